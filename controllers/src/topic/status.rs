//! What a Topic's status says about the bus. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::condition::{ConditionType, Finding, Status};
use crds::reason::Reason;
use crds::registration::{Compiled, Topic};
use crds::shared::{Conditions, DataPlaneStatus};
use crds::topic::{Drift, TopicStatus};
use serde_json::Value;

use super::plan::{Broker, differences};
use crate::status::Facts;

/// The bus as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Bus {
    /// The event store itself: there are no topics to make.
    #[default]
    Embedded,
    /// A broker that has not been asked yet.
    Unknown,
    /// A broker that does not answer, and why.
    Unreachable(String),
    /// A broker that answered.
    Kafka(Kafka),
}

/// What a broker answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kafka {
    pub topics: Broker,
    /// Topics that were made by this process.
    pub created: BTreeSet<String>,
    /// Topics that could not be made: the cause, and whether trying again would not help.
    pub refused: BTreeMap<String, (String, bool)>,
}

/// The conditions about the broker and the topic.
pub fn findings(spec: &Topic, manages: bool, bus: &Bus) -> Vec<Finding> {
    let broker =
        |status: Status, reason, message: &str| Finding::new(ConditionType::BrokerReachable, status, reason, message);
    let topic =
        |status: Status, reason, message: String| Finding::new(ConditionType::TopicExists, status, reason, message);
    match bus {
        Bus::Embedded => {
            let message = "the bus is the event store itself: no topic is needed";
            vec![topic(Status::True, Reason::EmbeddedBus, message.to_owned())]
        }
        Bus::Unknown => vec![broker(Status::Unknown, Reason::Pending, "the broker has not been asked yet")],
        Bus::Unreachable(why) => vec![
            broker(Status::False, Reason::BrokerUnreachable, why),
            topic(Status::Unknown, Reason::BrokerUnreachable, format!("not known: {why}")),
        ],
        Bus::Kafka(kafka) => {
            let mut findings = vec![broker(Status::True, Reason::BrokerReachable, "the broker answers")];
            findings.extend(on_broker(spec, manages, kafka));
            findings
        }
    }
}

fn on_broker(spec: &Topic, manages: bool, kafka: &Kafka) -> Vec<Finding> {
    let name = &spec.topic_name;
    let exists =
        |status: Status, reason, message: String| Finding::new(ConditionType::TopicExists, status, reason, message);
    if let Some(existing) = kafka.topics.get(name) {
        let (reason, how) = if kafka.created.contains(name) {
            (Reason::TopicCreated, "was made")
        } else {
            (Reason::TopicExists, "exists")
        };
        let differing: Vec<String> = differences(spec, *existing)
            .into_iter()
            .map(|(what, wanted, actual)| format!("{what} is {actual}, described is {wanted}"))
            .collect();
        let drifted = if differing.is_empty() {
            Finding::new(ConditionType::Drifted, false, Reason::InSync, "as described")
        } else {
            let message = format!("{}: an existing topic is left as it is", differing.join("; "));
            Finding::new(ConditionType::Drifted, true, Reason::DriftDetected, message)
        };
        return vec![exists(Status::True, reason, format!("'{name}' {how}")), drifted];
    }
    vec![match kafka.refused.get(name) {
        Some((why, true)) => exists(Status::False, Reason::ConfigRejected, why.clone()),
        Some((why, false)) => exists(Status::False, Reason::Retrying, why.clone()),
        None if manages => exists(Status::False, Reason::TopicMissing, format!("'{name}' is being made")),
        None => {
            let message =
                format!("'{name}' does not exist and spec.managementPolicy is Observe: make it, or set Manage");
            exists(Status::False, Reason::TopicMissing, message)
        }
    }]
}

/// The status document.
pub fn document(
    facts: &Facts<'_>,
    generation: i64,
    conditions: Conditions,
    data_plane: Option<DataPlaneStatus>,
) -> serde_json::Result<Value> {
    let mut status =
        TopicStatus { observed_generation: Some(generation), conditions, data_plane, ..TopicStatus::default() };
    if let Some(Compiled::Topic(spec)) = facts.spec {
        status.topic_name = Some(spec.topic_name.clone());
        status.partitions = Some(spec.partitions);
        if let Bus::Kafka(kafka) = facts.bus {
            let existing = kafka.topics.get(&spec.topic_name);
            status.partitions = existing.map(|e| e.partitions);
            status.replication_factor = existing.map(|e| e.replication);
            status.drift = existing.map(|e| drift(spec, *e)).unwrap_or_default();
        }
    }
    serde_json::to_value(status)
}

fn drift(spec: &Topic, existing: super::plan::ExistingTopic) -> Vec<Drift> {
    let entry = |(key, desired, actual): (&str, i32, i32)| Drift {
        key: key.to_owned(),
        desired: Some(desired.to_string()),
        actual: Some(actual.to_string()),
    };
    differences(spec, existing).into_iter().map(entry).collect()
}
