//! What MQTT tells Prometheus.

use metrics::{Counter, Gauge, Histogram};

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is an event.
    Accepted,
    /// It was one before.
    Repeated,
    /// It is a dead letter.
    Refused,
    /// The broker had kept it for new subscribers: it is old.
    Retained,
    /// QoS 0, and too much waited.
    Dropped,
}

impl Ended {
    const ALL: [Self; 5] = [Self::Accepted, Self::Repeated, Self::Refused, Self::Retained, Self::Dropped];

    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Repeated => "repeated",
            Self::Refused => "refused",
            Self::Retained => "retained",
            Self::Dropped => "dropped",
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Instruments {
    ended: [Counter; Ended::ALL.len()],
    pub ack_seconds: Histogram,
    pub connected: Gauge,
    pub connects: Counter,
    pub granted: Gauge,
    pub refused: Gauge,
}

impl Instruments {
    pub fn new() -> Self {
        Self {
            ended: Ended::ALL
                .map(|ended| metrics::counter!("cornjacket_mqtt_messages_total", "outcome" => ended.label())),
            ack_seconds: metrics::histogram!("cornjacket_mqtt_ack_seconds"),
            connected: metrics::gauge!("cornjacket_mqtt_connected"),
            connects: metrics::counter!("cornjacket_mqtt_connects_total"),
            granted: metrics::gauge!("cornjacket_mqtt_subscriptions", "state" => "granted"),
            refused: metrics::gauge!("cornjacket_mqtt_subscriptions", "state" => "refused"),
        }
    }

    pub fn ended(&self, ended: Ended, count: u64) {
        self.ended[ended as usize].increment(count);
    }
}
