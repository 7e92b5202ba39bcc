//! What the unit tests of this crate share.

use std::collections::BTreeMap;

use crds::registration::{
    CircuitBreaker, Deduplication, Fold, Kind, OnError, Projection, RateLimit, Rebuild, ResourceKey, Retry, Source,
    StartFrom, Topic, WebhookAction,
};
use crds::webhook_action::{Jitter, Ordering};

use crate::topic::wanted::{Rules, Wanted};

pub fn key(kind: Kind, name: &str) -> ResourceKey {
    ResourceKey { namespace: "default".into(), kind, name: name.into() }
}

pub fn topic(topic_name: &str) -> Topic {
    Topic {
        topic_name: topic_name.into(),
        prefixes: Vec::new(),
        default: false,
        partitions: 1,
        replication_factor: 1,
        config: BTreeMap::new(),
    }
}

/// A projection with the newest payload of every event.
pub fn projection(projection_type: &str) -> Projection {
    Projection {
        projection_type: projection_type.into(),
        source: Source::default(),
        filter: None,
        key: None,
        fold: Fold::Latest,
        start_from: StartFrom::Earliest,
        on_error: OnError::DeadLetter,
        rebuild: Rebuild::BlueGreen,
        retention_seconds: None,
        indexes: Vec::new(),
        reads_event_store: false,
    }
}

/// An action on no events, of which nothing is secret.
pub fn action() -> WebhookAction {
    WebhookAction {
        source: Source::default(),
        when: None,
        url: "https://example.com/".into(),
        headers: Vec::new(),
        body: None,
        signing: Vec::new(),
        timeout_ms: 1,
        retry: Retry { max_attempts: 1, backoff_ms: vec![1], jitter: Jitter::None },
        rate_limit: RateLimit { deliveries: 1, per_ms: 1, max_waiting: 1, max_wait_ms: 1 },
        deduplication: Deduplication { window_ms: 1, key: None },
        circuit_breaker: CircuitBreaker { failures: 1, cooldown_ms: 1 },
        ordering: Ordering::None,
    }
}

/// A topic that this platform made, and keeps.
pub fn wanted(topic_name: &str) -> Wanted {
    let rules = Rules { writes: true, ..Rules::default() };
    Wanted { resource: topic_name.into(), generation: 1, spec: topic(topic_name), rules, claimed: true }
}
