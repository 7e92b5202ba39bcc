//! What is asked of a topic on the bus, beside what the data plane has to know of it. Pure.

use std::collections::BTreeSet;

use crds::registration::Topic;
use crds::topic::{AdoptionPolicy, ConfigPolicy};

/// What is wanted of a topic, and what may be done for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Name of the resource.
    pub resource: String,
    /// Of the resource, so that an answer about an older one is known for what it is.
    pub generation: i64,
    pub spec: Topic,
    pub rules: Rules,
    /// The platform made the topic or took it over. This is on record before anything is written to a broker.
    pub claimed: bool,
}

/// What may be written, and what is not ours to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// False where the topic is only compared: under `Observe`, and while the resource is paused or refused.
    pub writes: bool,
    pub config: ConfigPolicy,
    pub adoption: AdoptionPolicy,
    pub allow_repartition: bool,
    /// Configuration keys that somebody else manages: never written, never reported.
    pub unmanaged: BTreeSet<String>,
}

impl Rules {
    /// `writes` says whether anything may be written at all.
    pub fn of(resource: &crds::Topic, writes: bool) -> Self {
        let spec = &resource.spec;
        let nulls = spec.config.iter().flatten().filter(|(_, value)| value.is_none());
        Self {
            writes,
            config: spec.config_policy.unwrap_or_default(),
            adoption: spec.adoption_policy.unwrap_or_default(),
            allow_repartition: spec.allow_repartition.unwrap_or(false),
            unmanaged: nulls.map(|(key, _)| key.clone()).collect(),
        }
    }
}
