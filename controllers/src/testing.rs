//! What the unit tests of this crate share.

use std::collections::BTreeMap;

use crds::registration::{Fold, Kind, OnError, Projection, Rebuild, ResourceKey, Source, StartFrom, Topic};

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

/// A topic that this platform made, and keeps.
pub fn wanted(topic_name: &str) -> Wanted {
    let rules = Rules { writes: true, ..Rules::default() };
    Wanted { resource: topic_name.into(), generation: 1, spec: topic(topic_name), rules, claimed: true }
}
