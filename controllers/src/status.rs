//! The status document of a resource. Pure: what was resolved, what is registered, who runs it and the time go in.
//!
//! `Ready` is true only when every live instance of the roles concerned acknowledged the very hash that is
//! registered, and everything else that the resource depends on is there.

pub mod away;
mod propagation;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use crds::condition::{self, ConditionType, Finding, Status};
use crds::reason::Reason;
use crds::registration::{Compiled, Kind, ResourceKey};
use crds::role::Role;
use crds::shared::{Conditions, DataPlaneStatus};
use serde_json::Value;

use self::propagation::propagation;
pub use self::propagation::running;
use crate::plan::Served;
use crate::projection::migration::rows::Rows;
use crate::resolve::{Outcome, Resolution};
use crate::topic::status::Bus;
use crate::webhook_action::status::Endpoint;
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// `live`, `following` (near the head of the event store, from which it is fed), `catching_up` or `halted`.
    pub status: String,
    pub message: Option<String>,
    /// Events accepted before this were gone when the rows were made.
    pub history_from: Option<DateTime<Utc>>,
    /// The rows as they are.
    pub rows: Rows,
    /// Whether others are built beside those served.
    pub beside: bool,
    /// Positions of the event store that a catch-up has read, of all shards together.
    pub read: i64,
    /// Those still to be read, when it was last looked at.
    pub behind: i64,
}

/// What the writer does with a time series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesProgress {
    /// `running`, `halted` or `removed`.
    pub status: String,
    pub message: Option<String>,
    /// Positions of the event store still to be read, when it was last looked at.
    pub behind: i64,
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
    pub acks: HashMap<ResourceKey, Vec<Ack>>,
}

impl DataPlane {
    /// Adds what one database knows.
    pub fn add(&mut self, instances: Vec<Instance>, acks: Vec<Ack>) {
        self.instances.extend(instances);
        for ack in acks {
            self.acks.entry(ack.key.clone()).or_default().push(ack);
        }
    }
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
    /// Of a Projection.
    pub projection: projection::status::Seen<'a>,
    /// Of a WebhookAction: what its deliveries showed of the endpoint, once there were any.
    pub endpoint: Option<&'a Endpoint>,
}

impl Facts<'_> {
    /// Whether the broker has not been compared yet with what is wanted of it now. It is about to be.
    pub fn await_broker(&self) -> bool {
        match self.spec {
            Some(Compiled::Topic(spec)) => topic::status::is_awaited(spec, self.resolution.generation, self.bus),
            _ => false,
        }
    }
}

/// The status document, as under `.status` in a cluster. Equal facts give an equal document, whatever the time.
pub fn document(facts: &Facts<'_>, previous: Option<&Value>, now: DateTime<Utc>) -> Value {
    let propagation = propagation(&facts.resolution.key, facts.served, facts.data_plane);
    let mut dependencies = facts.resolution.findings.clone();
    dependencies.extend(of_kind(facts, previous));
    dependencies.push(propagation.finding.clone());
    about_what_is_served(facts, &mut dependencies);
    let mut findings = summary(facts, &dependencies);
    // What a refusal is about is said there.
    dependencies.retain(|finding| findings.iter().all(|said| said.condition != finding.condition));
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
        Kind::Projection => projection::status::document(facts, conditions, data_plane),
        Kind::WebhookAction => webhook_action::status::document(generation, conditions, data_plane),
    };
    // Serialising plain structs cannot fail.
    document.unwrap_or(Value::Null)
}

/// While the newest generation does not run, what runs is an older one, and so is what these say.
fn about_what_is_served(facts: &Facts<'_>, dependencies: &mut [Finding]) {
    if matches!(facts.resolution.outcome, Outcome::Run(_)) {
        return;
    }
    let is_about_it = |finding: &&mut Finding| {
        use ConditionType::{
            CaughtUp, ConfigApplied, Drifted, EndpointHealthy, MigrationsApplied, Propagated, TopicExists,
        };
        let all = [CaughtUp, ConfigApplied, Drifted, EndpointHealthy, MigrationsApplied, Propagated, TopicExists];
        all.contains(&finding.condition)
    };
    for finding in dependencies.iter_mut().filter(is_about_it) {
        finding.generation = facts.served.map(|served| served.generation);
    }
}

fn of_kind(facts: &Facts<'_>, previous: Option<&Value>) -> Vec<Finding> {
    match (facts.resolution.key.kind, facts.spec) {
        (Kind::Topic, Some(Compiled::Topic(spec))) => {
            let Resolution { generation, manages, .. } = facts.resolution;
            let mut findings = topic::status::findings(spec, *generation, *manages, facts.bus);
            topic::status::remember_making(&mut findings, previous);
            findings
        }
        (Kind::Projection, _) => projection::status::findings(facts),
        (Kind::WebhookAction, Some(_)) => {
            vec![webhook_action::status::finding(&facts.resolution.key.name, facts.endpoint)]
        }
        _ => Vec::new(),
    }
}

/// The conditions named now, with the transition times of those that were there before.
fn conditions(previous: Option<&Value>, findings: &[Finding], generation: i64, now: DateTime<Utc>) -> Conditions {
    let mut after = conditions_beside(previous, findings, generation, now);
    after.retain(|c| findings.iter().any(|f| f.condition.as_str() == c.type_));
    after
}

/// The conditions named now, and those that were there before.
fn conditions_beside(
    previous: Option<&Value>,
    findings: &[Finding],
    generation: i64,
    now: DateTime<Utc>,
) -> Conditions {
    let before = previous.and_then(|status| status.get("conditions")).cloned();
    let before: Conditions = before.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default();
    condition::merge(&before, findings, generation, now)
}

/// `Ready`, `Reconciling` and `Stalled`, and the dependency that a refusal is about.
fn summary(facts: &Facts<'_>, dependencies: &[Finding]) -> Vec<Finding> {
    match &facts.resolution.outcome {
        Outcome::Refused(failure) => {
            let message = format!("{}; {}", failure.message, still_served(facts.served));
            let transient = failure.reason == Reason::Retrying;
            let mut findings = three(Status::False, transient, !transient, failure.reason, &message);
            if let Some(condition) = failure.condition {
                let holds = condition == ConditionType::Conflict;
                findings.push(Finding::new(condition, holds, failure.reason, failure.message.clone()));
            }
            findings
        }
        Outcome::Held(held) => {
            let message = format!("{}; {}", still_served(facts.served), held.message);
            three(Status::False, true, false, Reason::ApprovalRequired, &message)
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

/// `CaughtUp` says how far rows are, `Drifted` and `Conflict` what somebody should look at, `EndpointHealthy` how somebody
/// else's server does: none keeps a resource from being ready, except a projection that stopped. `ApprovalRequired` does while
/// something waits.
fn satisfied(finding: &Finding) -> bool {
    match finding.condition {
        ConditionType::CaughtUp => finding.reason != Reason::Halted,
        ConditionType::Drifted | ConditionType::Conflict | ConditionType::EndpointHealthy => true,
        ConditionType::ApprovalRequired => finding.status == Status::False,
        _ => finding.status == Status::True,
    }
}

fn is_terminal(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConfigRejected
            | Reason::AdoptionRefused
            | Reason::RepartitionRefused
            | Reason::UnsupportedByBroker
            | Reason::Halted
    )
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

#[cfg(test)]
mod tests;
