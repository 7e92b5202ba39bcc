//! What the unit tests of this crate share.

use std::collections::BTreeMap;

use crds::registration::{Kind, ResourceKey, Topic};

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
