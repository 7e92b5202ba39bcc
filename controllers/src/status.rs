//! The status document of a resource. Pure: what was resolved, what is registered, who runs it and the time go in.
//!
//! `Ready` is true only when every live instance of the roles concerned acknowledged the very hash that is
//! registered, and everything else that the resource depends on is there.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use crds::condition::{self, ConditionType, Finding, Status};
use crds::reason::Reason;
use crds::registration::{Compiled, Kind, ResourceKey};
use crds::role::Role;
use crds::shared::{Conditions, DataPlaneStatus};
use serde_json::Value;

use crate::plan::Served;
use crate::resolve::{Outcome, Resolution};
use crate::topic::status::Bus;
use crate::{event_type, projection, topic, webhook_action};

/// A live instance of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    pub role: Role,
    /// Host and process, for people.
    pub host: String,
}

/// What an instance said about a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub instance: String,
    pub role: Role,
    pub key: ResourceKey,
    pub hash: String,
    pub error: Option<String>,
}

/// What the handler does with a projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// `live`, `catching_up` or `halted`.
    pub status: String,
    pub message: Option<String>,
    /// Events accepted before this were gone when the rows were made.
    pub history_from: Option<DateTime<Utc>>,
    /// What became of the index on a field of the state.
    pub indexes: BTreeMap<String, Index>,
}

/// An index that a projection asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Index {
    Building,
    Built,
    /// With what the database said.
    Failed(String),
}

/// A row of `resource_status`.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusRow {
    pub status: Value,
    pub origin: String,
    pub generation: i64,
    pub spec_hash: String,
}

/// The data plane as it is.
#[derive(Clone, Debug, Default)]
pub struct DataPlane {
    pub instances: Vec<Instance>,
    pub acks: Vec<Ack>,
}

/// Everything that a status is computed from.
pub struct Facts<'a> {
    pub resolution: &'a Resolution,
    /// What is registered now.
    pub served: Option<&'a Served>,
    /// Its compiled form.
    pub spec: Option<&'a Compiled>,
    pub data_plane: &'a DataPlane,
    pub bus: &'a Bus,
    pub progress: Option<&'a Progress>,
}

/// How far the data plane has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Propagation {
    pub acked: i32,
    pub total: i32,
    pub finding: Finding,
}

/// The status document, as under `.status` in a cluster. Equal facts give an equal document, whatever the time.
pub fn document(facts: &Facts<'_>, previous: Option<&Value>, now: DateTime<Utc>) -> Value {
    let propagation = propagation(&facts.resolution.key, facts.served, facts.data_plane);
    let mut dependencies = facts.resolution.findings.clone();
    dependencies.extend(of_kind(facts));
    dependencies.push(propagation.finding.clone());
    let mut findings = summary(facts, &dependencies);
    findings.extend(dependencies);
    let conditions = conditions(previous, &findings, facts.resolution.generation, now);
    let data_plane = facts.served.map(|served| DataPlaneStatus {
        desired_hash: Some(served.hash.clone()),
        acked_replicas: Some(propagation.acked),
        total_replicas: Some(propagation.total),
    });
    let generation = facts.resolution.generation;
    let document = match facts.resolution.key.kind {
        Kind::Topic => topic::status::document(facts, generation, conditions, data_plane),
        Kind::EventType => event_type::status::document(facts.spec, generation, conditions, data_plane),
        Kind::Projection => projection::status::document(facts.spec, generation, conditions, data_plane),
        Kind::WebhookAction => webhook_action::status::document(generation, conditions),
    };
    // Serialising plain structs cannot fail.
    document.unwrap_or(Value::Null)
}

fn of_kind(facts: &Facts<'_>) -> Vec<Finding> {
    match (facts.resolution.key.kind, facts.spec) {
        (Kind::Topic, Some(Compiled::Topic(spec))) => {
            topic::status::findings(spec, facts.resolution.manages, facts.bus)
        }
        (Kind::Projection, _) => projection::status::findings(facts.spec, facts.progress),
        _ => Vec::new(),
    }
}

/// The conditions named now, with the transition times of those that were there before.
fn conditions(previous: Option<&Value>, findings: &[Finding], generation: i64, now: DateTime<Utc>) -> Conditions {
    let before = previous.and_then(|status| status.get("conditions")).cloned();
    let mut before: Conditions = before.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default();
    before.retain(|c| findings.iter().any(|f| f.condition.as_str() == c.type_));
    condition::merge(&before, findings, generation, now)
}

/// `Ready`, `Reconciling` and `Stalled`, and the dependency that a refusal is about.
fn summary(facts: &Facts<'_>, dependencies: &[Finding]) -> Vec<Finding> {
    match &facts.resolution.outcome {
        Outcome::Refused(failure) => {
            let message = format!("{}; {}", failure.message, still_served(facts.served));
            let mut findings = three(Status::False, false, true, failure.reason, &message);
            if let Some(condition) = failure.condition {
                let holds = condition == ConditionType::Conflict;
                findings.push(Finding::new(condition, holds, failure.reason, failure.message.clone()));
            }
            findings
        }
        Outcome::LeftAlone(reason) => {
            let ready = dependencies.iter().all(satisfied) && facts.served.is_some();
            let message = format!("{}; {}", left_alone(*reason), still_served(facts.served));
            three(ready.into(), false, false, *reason, &message)
        }
        Outcome::Run(_) => {
            if let Some(finding) = dependencies.iter().find(|finding| !satisfied(finding)) {
                let stalled = finding.status == Status::False && is_terminal(finding.reason);
                return three(Status::False, !stalled, stalled, finding.reason, &finding.message);
            }
            if let Some(truncated) = dependencies.iter().find(|finding| finding.reason == Reason::HistoryTruncated) {
                return three(Status::True, false, false, truncated.reason, &truncated.message);
            }
            let message = dependencies.last().map(|propagated| propagated.message.as_str()).unwrap_or_default();
            three(Status::True, false, false, Reason::Available, message)
        }
    }
}

fn three(ready: Status, reconciling: bool, stalled: bool, reason: Reason, message: &str) -> Vec<Finding> {
    vec![
        Finding::new(ConditionType::Ready, ready, reason, message),
        Finding::new(ConditionType::Reconciling, reconciling, reason, message),
        Finding::new(ConditionType::Stalled, stalled, reason, message),
    ]
}

/// `CaughtUp` says how far rows are, `Drifted` and `Conflict` what somebody should look at: none keeps a resource from
/// being ready, except a projection that stopped. `ApprovalRequired` does while something waits.
fn satisfied(finding: &Finding) -> bool {
    match finding.condition {
        ConditionType::CaughtUp => finding.reason != Reason::Halted,
        ConditionType::Drifted | ConditionType::Conflict => true,
        ConditionType::ApprovalRequired => finding.status == Status::False,
        _ => finding.status == Status::True,
    }
}

fn is_terminal(reason: Reason) -> bool {
    matches!(reason, Reason::ConfigRejected | Reason::Failed | Reason::Halted)
}

fn still_served(served: Option<&Served>) -> String {
    match served {
        Some(served) => format!("generation {} is still served", served.generation),
        None => "nothing is served for it".to_owned(),
    }
}

fn left_alone(reason: Reason) -> &'static str {
    match reason {
        Reason::Paused => "spec.reconciliation is Paused: set it to Active to apply changes",
        _ => "spec.managementPolicy is Observe: nothing is written; set it to Manage to apply changes",
    }
}

/// Whether every live instance of the roles concerned runs what is registered.
pub fn propagation(key: &ResourceKey, served: Option<&Served>, data_plane: &DataPlane) -> Propagation {
    let finding =
        |status: Status, reason, message: String| Finding::new(ConditionType::Propagated, status, reason, message);
    let Some(served) = served else {
        let finding = finding(Status::Unknown, Reason::Pending, "nothing is registered".to_owned());
        return Propagation { acked: 0, total: 0, finding };
    };
    let roles = key.kind.acknowledged_by();
    let live: Vec<&Instance> = data_plane.instances.iter().filter(|i| roles.contains(&i.role)).collect();
    let (mut acked, mut errors, mut waiting) = (0, Vec::new(), Vec::new());
    for instance in &live {
        match ack_of(instance, key, &served.hash, &data_plane.acks) {
            Some(Ack { error: None, .. }) => acked += 1,
            Some(Ack { error: Some(error), .. }) => {
                errors.push(format!("{} on {}: {error}", instance.role, instance.host));
            }
            None => waiting.push(format!("{} on {}", instance.role, instance.host)),
        }
    }
    let total = i32::try_from(live.len()).unwrap_or(i32::MAX);
    let finding = if live.is_empty() {
        let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let message = format!("no instance of {} is alive: start one", roles.join(" or "));
        finding(Status::Unknown, Reason::NoInstances, message)
    } else if !errors.is_empty() {
        finding(Status::False, Reason::LoadFailed, first_of(&errors))
    } else if !waiting.is_empty() {
        let message = format!(
            "{acked} of {total} instances run generation {}; waiting for {}",
            served.generation,
            first_of(&waiting)
        );
        finding(Status::False, Reason::AwaitingInstances, message)
    } else {
        let message = format!("generation {} runs on {total} of {total} instances", served.generation);
        finding(Status::True, Reason::Acknowledged, message)
    };
    Propagation { acked, total, finding }
}

fn ack_of<'a>(instance: &Instance, key: &ResourceKey, hash: &str, acks: &'a [Ack]) -> Option<&'a Ack> {
    acks.iter().find(|a| a.instance == instance.id && a.role == instance.role && a.key == *key && a.hash == hash)
}

fn first_of(texts: &[String]) -> String {
    match texts {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

#[cfg(test)]
mod tests;
