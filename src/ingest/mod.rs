//! Ingest: where events come in. In: HTTP requests with an event or many (our own form, NDJSON, CloudEvents). Out:
//! entries for the outbox, and an answer.
//!
//! Guarantees: 202 is answered only after the event is committed; whatever is accepted can be stored, published and
//! read by every later room; every refusal names the field, its value and the rule. An event whose id, key or answer
//! was lost on the way can be sent again under the same idempotency key and is accepted once.
//!
//! Never waits for room in a queue (429), nor for a database that is away (503).

pub mod accept;
mod bounds;
mod check;
pub mod cloudevents;
pub mod envelope;
mod http;
mod ids;
mod json;
pub mod mqtt;
mod pointer;
pub mod refusal;
mod text;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;

use crate::event::{Clock, SystemClock};
use crate::lifecycle::Lifecycle;
use crate::operate::Gate;
use crate::outbox::{self, OnCommit, Outbox};
use crate::registry::Catalog;

pub use check::Rules;
pub use http::{openapi, routes};
pub use ids::EventIds;

/// Bounds of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest body with one event, and largest event of a batch, in bytes. Default 1 MiB.
    pub event_bytes: usize,
    /// Largest body with a batch, in bytes. Default 5 MiB.
    pub batch_bytes: usize,
    /// Most events of a batch. Default 1 000.
    pub batch_events: usize,
    /// Most header fields. Default 64.
    pub header_fields: usize,
    /// Largest header: names and values together, in bytes. Default 16 KiB.
    pub header_bytes: usize,
    /// Most bytes of bodies in memory at a time, of all requests together. Default 128 MiB.
    pub bodies_bytes: usize,
    /// How long a body may take to arrive. Default 10 s.
    pub request_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: 1 << 20,
            batch_bytes: 5 << 20,
            batch_events: 1_000,
            header_fields: 64,
            header_bytes: 16 << 10,
            bodies_bytes: 128 << 20,
            request_time: Duration::from_secs(10),
        }
    }
}

/// What can be set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub rules: Rules,
    pub limits: Limits,
    pub outbox: outbox::Settings,
}

/// What the handlers of requests work with.
pub struct Ingest {
    outbox: Outbox,
    catalog: watch::Receiver<Arc<Catalog>>,
    rules: Rules,
    limits: Limits,
    bodies: http::Bodies,
    ids: EventIds,
    clock: Arc<dyn Clock>,
    on_commit: OnCommit,
    instruments: Instruments,
}

impl Ingest {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }
}

struct Instruments {
    accepted: Counter,
    repeated: Counter,
    ack_seconds: Histogram,
    batch_events: Histogram,
}

impl Instruments {
    fn new() -> Self {
        Self {
            accepted: metrics::counter!("cornjacket_ingest_accepted_total"),
            repeated: metrics::counter!("cornjacket_ingest_repeated_total"),
            ack_seconds: metrics::histogram!("cornjacket_ingest_ack_seconds"),
            batch_events: metrics::histogram!("cornjacket_ingest_batch_events"),
        }
    }

    fn refused(reason: refusal::Reason, count: u64) {
        metrics::counter!("cornjacket_ingest_refused_total", "reason" => reason.label()).increment(count);
    }
}

/// Starts the outbox writers and answers what [`routes`] serves. `gate` opens when events can be stored.
pub fn start(
    lifecycle: &Lifecycle,
    database: &PgConnectOptions,
    catalog: watch::Receiver<Arc<Catalog>>,
    settings: &Settings,
    gate: Gate,
    on_commit: &OnCommit,
) -> Arc<Ingest> {
    Arc::new(Ingest {
        outbox: Outbox::start(lifecycle, database, &settings.outbox, gate, on_commit),
        catalog,
        rules: settings.rules,
        limits: settings.limits,
        bodies: http::Bodies::new(settings.limits.bodies_bytes),
        ids: EventIds::default(),
        clock: Arc::new(SystemClock),
        on_commit: Arc::clone(on_commit),
        instruments: Instruments::new(),
    })
}

/// Whether text is a W3C trace context of version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts.as_slice(), ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && hex(flags, 2))
}

#[cfg(test)]
mod tests {
    use super::is_traceparent;

    #[test]
    fn only_a_whole_trace_context_counts() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(!is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"));
        assert!(!is_traceparent("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"));
        assert!(!is_traceparent("nonsense"));
    }
}
