//! What a Topic's status says about the bus. Pure.

use std::collections::BTreeMap;

use crds::condition::{ConditionType, Finding, Status};
use crds::reason::Reason;
use crds::registration::{Compiled, Topic};
use crds::shared::{Conditions, DataPlaneStatus};
use crds::topic::{DRIFT_LIMIT, Drift, TopicStatus};
use serde_json::Value;

use super::differences::{Actual, PARTITIONS, words};
use super::plan::Blocked;
use super::wanted::Wanted;
use crate::status::Facts;

/// Differences that a message names.
const NAMED: usize = 8;

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
    /// By name of the topic.
    pub topics: BTreeMap<String, Seen>,
}

/// A topic as it stands after a look.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What it was compared with.
    pub wanted: Wanted,
    pub exists: Option<Existing>,
    /// This process made it.
    pub created: bool,
    /// What still differs, sorted by key.
    pub drift: Vec<Drift>,
    pub standing: Standing,
}

/// What a broker says of a topic that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    pub id: Option<String>,
    pub partitions: i32,
    pub replication: i32,
}

/// How far a topic has been brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is only compared.
    Observed,
    /// It may be made or taken over, once the claim is on record.
    Claimable,
    /// All that can be done is done.
    Applied,
    Blocked(Blocked),
}

impl Existing {
    pub fn of(actual: &Actual) -> Self {
        Self { id: actual.id.clone(), partitions: actual.partitions, replication: actual.replication }
    }
}

impl Seen {
    /// Whether trying again soon may help.
    pub fn is_unfinished(&self) -> bool {
        matches!(&self.standing, Standing::Blocked(blocked) if blocked.reason == Reason::Retrying)
    }
}

/// Whether the broker was just found to be such that the claim for a topic may be recorded.
pub fn is_claimable(wanted: &Wanted, bus: &Bus) -> bool {
    let Bus::Kafka(kafka) = bus else { return false };
    let seen = kafka.topics.get(&wanted.spec.topic_name);
    seen.is_some_and(|seen| seen.standing == Standing::Claimable && seen.wanted == *wanted)
}

/// The conditions about the broker and the topic, for a generation of the resource.
pub fn findings(spec: &Topic, generation: i64, manages: bool, bus: &Bus) -> Vec<Finding> {
    let broker =
        |status: Status, reason, message: &str| Finding::new(ConditionType::BrokerReachable, status, reason, message);
    match bus {
        Bus::Embedded => {
            let message = "the bus is the event store itself: no topic is needed";
            vec![exists(Status::True, Reason::EmbeddedBus, message)]
        }
        Bus::Unknown => vec![broker(Status::Unknown, Reason::Pending, "the broker has not been asked yet")],
        Bus::Unreachable(why) => vec![
            broker(Status::False, Reason::BrokerUnreachable, why),
            exists(Status::Unknown, Reason::BrokerUnreachable, format!("not known: {why}")),
        ],
        Bus::Kafka(kafka) => {
            let mut findings = vec![broker(Status::True, Reason::BrokerReachable, "the broker answers")];
            if let Some(seen) = compared(spec, generation, kafka) {
                findings.extend(on_broker(seen, manages));
            } else {
                findings.extend(kafka.topics.get(&spec.topic_name).and_then(existence));
                let message = "not compared with the broker yet";
                findings.push(Finding::new(ConditionType::ConfigApplied, Status::Unknown, Reason::Pending, message));
            }
            findings
        }
    }
}

/// The topic, where it was compared with this very form.
fn compared<'a>(spec: &Topic, generation: i64, kafka: &'a Kafka) -> Option<&'a Seen> {
    let seen = kafka.topics.get(&spec.topic_name);
    seen.filter(|seen| seen.wanted.generation == generation && seen.wanted.spec == *spec)
}

/// Whether a broker is about to be compared with this form.
pub fn is_awaited(spec: &Topic, generation: i64, bus: &Bus) -> bool {
    match bus {
        Bus::Embedded | Bus::Unreachable(_) => false,
        Bus::Unknown => true,
        Bus::Kafka(kafka) => compared(spec, generation, kafka).is_none(),
    }
}

/// That the platform made a topic stays said, though the process that made it may have ended.
pub fn remember_making(findings: &mut [Finding], previous: Option<&Value>) {
    let before = previous.and_then(|status| status["conditions"].as_array());
    let made = |condition: &Value| condition["reason"] == Reason::TopicCreated.as_str();
    let Some(message) = before.and_then(|all| all.iter().find(|c| made(c))).and_then(|c| c["message"].as_str()) else {
        return;
    };
    if let Some(exists) = findings.iter_mut().find(|finding| finding.reason == Reason::TopicExists) {
        exists.reason = Reason::TopicCreated;
        message.clone_into(&mut exists.message);
    }
}

fn exists(status: Status, reason: Reason, message: impl Into<String>) -> Finding {
    Finding::new(ConditionType::TopicExists, status, reason, message)
}

fn on_broker(seen: &Seen, manages: bool) -> Vec<Finding> {
    let name = &seen.wanted.spec.topic_name;
    let Some(existence) = existence(seen) else {
        return vec![match &seen.standing {
            Standing::Blocked(Blocked { reason, message }) => exists(Status::False, *reason, message),
            Standing::Claimable | Standing::Applied => {
                exists(Status::False, Reason::TopicMissing, format!("'{name}' is being made"))
            }
            Standing::Observed if manages => {
                let message =
                    format!("'{name}' does not exist, and is not made while the resource is paused or refused");
                exists(Status::False, Reason::TopicMissing, message)
            }
            Standing::Observed => {
                let message =
                    format!("'{name}' does not exist and spec.managementPolicy is Observe: make it, or set Manage");
                exists(Status::False, Reason::TopicMissing, message)
            }
        }];
    };
    let mut findings = vec![existence];
    findings.extend(applied(seen));
    findings.push(drifted(seen));
    findings
}

/// That the topic exists, if it does.
fn existence(seen: &Seen) -> Option<Finding> {
    let name = &seen.wanted.spec.topic_name;
    seen.exists.as_ref()?;
    let (reason, how) = if seen.created { (Reason::TopicCreated, "was made") } else { (Reason::TopicExists, "exists") };
    Some(exists(Status::True, reason, format!("'{name}' {how}")))
}

fn applied(seen: &Seen) -> Option<Finding> {
    let finding = |status: Status, reason, message: &str| {
        Some(Finding::new(ConditionType::ConfigApplied, status, reason, message))
    };
    match &seen.standing {
        Standing::Observed => None,
        Standing::Claimable => finding(Status::Unknown, Reason::Pending, "the topic is being taken over"),
        Standing::Applied => finding(Status::True, Reason::ConfigApplied, "the configuration is as described"),
        Standing::Blocked(Blocked { reason, message }) => finding(Status::False, *reason, message),
    }
}

fn drifted(seen: &Seen) -> Finding {
    if seen.drift.is_empty() {
        return Finding::new(ConditionType::Drifted, false, Reason::InSync, "as described");
    }
    let found = words(&seen.drift, NAMED);
    let why = match &seen.standing {
        Standing::Observed => "nothing is written while it is only observed",
        Standing::Blocked(_) => "ConfigApplied says why it is left so",
        _ if seen.drift.iter().any(|drift| drift.key == PARTITIONS) => {
            "partitions cannot be taken away: describe as many as there are"
        }
        _ => "about to be put right",
    };
    Finding::new(ConditionType::Drifted, true, Reason::DriftDetected, format!("{found}: {why}"))
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
            let seen = kafka.topics.get(&spec.topic_name);
            let existing = seen.and_then(|seen| seen.exists.as_ref());
            status.topic_id = existing.and_then(|existing| existing.id.clone());
            status.partitions = existing.map(|existing| existing.partitions);
            status.replication_factor = existing.map(|existing| existing.replication);
            status.drift = seen.map(|seen| seen.drift.iter().take(DRIFT_LIMIT).cloned().collect()).unwrap_or_default();
        }
    }
    serde_json::to_value(status)
}
