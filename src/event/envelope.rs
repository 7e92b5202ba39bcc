//! The envelope: one JSON form in the outbox, the event store and on the bus.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Shard, shard_of};

/// An accepted event, serialised once at ingest. The payload stays the caller's own text, so no number loses a digit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// UUID v7, given at acceptance.
    pub event_id: Uuid,
    pub event_type: String,
    pub aggregate_id: String,
    /// When the event occurred: the caller's time, else the time of acceptance.
    pub timestamp: DateTime<Utc>,
    pub payload: Box<RawValue>,
    pub metadata: Metadata,
    /// When the platform accepted it.
    pub ingested_at: DateTime<Utc>,
}

/// What is known about an event beside what it says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The caller's own trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// W3C trace context of the request that brought the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// How it came in: `http`, `mqtt`, or the CloudEvents `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The version of the payload schema that it was validated against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<i32>,
    /// The CloudEvents `id`, where it came as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloudevents_id: Option<String>,
    /// Where it came in by MQTT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<MqttOrigin>,
}

/// The message that an event came in as.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttOrigin {
    pub topic: String,
    /// Tells a message that the broker sends again (QoS 1): client id, packet id and a hash of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
}

/// An event with its place in the event store, as readers get it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    pub shard: Shard,
    /// Order within the shard: 1, 2, 3, … without a gap.
    pub position: i64,
    pub event_id: Uuid,
    pub event_type: String,
    pub aggregate_id: String,
    pub timestamp: DateTime<Utc>,
    pub payload: Value,
    pub metadata: Value,
    pub ingested_at: DateTime<Utc>,
}

/// As [`StoredEvent::envelope`] writes it.
#[derive(Deserialize)]
struct Held {
    event_id: Uuid,
    event_type: String,
    aggregate_id: String,
    timestamp: DateTime<Utc>,
    payload: Value,
    #[serde(default)]
    metadata: Value,
    ingested_at: DateTime<Utc>,
}

impl StoredEvent {
    /// The event in an envelope, which was stored at this position.
    ///
    /// # Errors
    /// It holds no event.
    pub fn from_envelope(envelope: &Value, position: i64) -> Result<Self, serde_json::Error> {
        let held = Held::deserialize(envelope)?;
        Ok(Self {
            shard: shard_of(&held.aggregate_id),
            position,
            event_id: held.event_id,
            event_type: held.event_type,
            aggregate_id: held.aggregate_id,
            timestamp: held.timestamp,
            payload: held.payload,
            metadata: held.metadata,
            ingested_at: held.ingested_at,
        })
    }

    /// The event as it is stored, without its place.
    pub fn envelope(&self) -> Value {
        json!({
            "event_id": self.event_id,
            "event_type": self.event_type,
            "aggregate_id": self.aggregate_id,
            "timestamp": self.timestamp,
            "payload": self.payload,
            "metadata": self.metadata,
            "ingested_at": self.ingested_at,
        })
    }
}
