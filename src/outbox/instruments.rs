//! What the outbox tells Prometheus.

use metrics::{Counter, Gauge, Histogram};

/// What the writers tell Prometheus.
#[derive(Clone)]
pub(super) struct Instruments {
    pub flush_rows: Histogram,
    pub flush_seconds: Histogram,
    pub retries: Counter,
    pub connects: Counter,
    pub refused_rows: Counter,
    pub queued_events: Gauge,
    pub queued_bytes: Gauge,
}

impl Instruments {
    pub fn new() -> Self {
        Self {
            flush_rows: metrics::histogram!("cornjacket_outbox_flush_rows"),
            flush_seconds: metrics::histogram!("cornjacket_outbox_flush_seconds"),
            retries: metrics::counter!("cornjacket_outbox_flush_retries_total"),
            connects: metrics::counter!("cornjacket_outbox_connects_total"),
            refused_rows: metrics::counter!("cornjacket_outbox_rows_refused_by_database_total"),
            queued_events: metrics::gauge!("cornjacket_outbox_queued_events"),
            queued_bytes: metrics::gauge!("cornjacket_outbox_queued_bytes"),
        }
    }
}
