//! From a whole set of resources to what each should run as, or why it cannot. Pure.
//!
//! The order is that of the references: topics, then event types (which go to topics), then projections (which read
//! event types). A resource that is refused is looked at by the others as it was registered last.

use std::collections::BTreeMap;

use crds::condition::{ConditionType, Finding};
use crds::reason::Reason;
use crds::registration::{self, Compiled, Kind, ResourceKey};
use crds::shared::{ManagementPolicy, Reconciliation};

use crate::plan::Registrations;
use crate::resource::{Declared, Resource, claim, policies};
use crate::{event_type, projection, topic, webhook_action};

/// What became of one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution {
    pub key: ResourceKey,
    pub generation: i64,
    pub origin: String,
    pub outcome: Outcome,
    /// False where spec.managementPolicy is Observe.
    pub manages: bool,
    /// What was established on the way.
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is to run like this.
    Run(Compiled),
    /// It cannot run. What ran before goes on.
    Refused(Failure),
    /// It asks not to be touched (`Paused` or `Observing`). What ran before goes on.
    LeftAlone(Reason),
}

/// Why a resource cannot run; a change mends it, trying again does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The dependency that failed, where there is a condition for it.
    pub condition: Option<ConditionType>,
    pub reason: Reason,
    /// The cause, and what to do about it.
    pub message: String,
}

impl Failure {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { condition: None, reason, message: message.into() }
    }

    #[must_use]
    pub fn of(mut self, condition: ConditionType) -> Self {
        self.condition = Some(condition);
        self
    }
}

/// What is served, or about to be, by resource name.
#[derive(Default)]
pub(crate) struct Known {
    pub topics: BTreeMap<String, registration::Topic>,
    pub event_types: BTreeMap<String, registration::EventType>,
}

impl Known {
    fn learn(&mut self, name: &str, spec: &Compiled) {
        match spec {
            Compiled::Topic(spec) => {
                self.topics.insert(name.to_owned(), spec.clone());
            }
            Compiled::EventType(spec) => {
                self.event_types.insert(name.to_owned(), spec.clone());
            }
            Compiled::Projection(_) => {}
        }
    }
}

/// Resolves the whole set of one namespace. There is one resolution per declared resource, in order of reference.
pub fn resolve(set: &[Declared], registered: &Registrations) -> Vec<Resolution> {
    let mut known = Known::default();
    let mut resolutions = Vec::with_capacity(set.len());
    for kind in Kind::ALL {
        let mut accepted: Vec<&Declared> = Vec::new();
        for declared in by_seniority(set, kind, registered) {
            let before = last_good(&declared.key, registered);
            let (outcome, findings) = judge(declared, &accepted, before, &known);
            match (&outcome, before) {
                (Outcome::Run(spec), _) | (_, Some(spec)) => known.learn(&declared.key.name, spec),
                _ => {}
            }
            if !matches!(&outcome, Outcome::Refused(failure) if failure.reason == Reason::Conflict) {
                accepted.push(declared);
            }
            let Declared { key, generation, origin, .. } = declared.clone();
            let manages = declared.resource.as_ref().is_ok_and(|r| policies(r).management == ManagementPolicy::Manage);
            resolutions.push(Resolution { key, generation, origin, outcome, manages, findings });
        }
    }
    resolutions
}

fn last_good<'a>(key: &ResourceKey, registered: &'a Registrations) -> Option<&'a Compiled> {
    registered.get(key).filter(|row| row.active).and_then(|row| row.spec.as_ref())
}

/// The oldest first; where ages are unknown, what is registered already, then by name.
fn by_seniority<'a>(set: &'a [Declared], kind: Kind, registered: &Registrations) -> Vec<&'a Declared> {
    let mut of_kind: Vec<&Declared> = set.iter().filter(|declared| declared.key.kind == kind).collect();
    of_kind.sort_by_key(|d| (d.created, last_good(&d.key, registered).is_none(), d.key.name.clone()));
    of_kind
}

fn judge(
    declared: &Declared,
    accepted: &[&Declared],
    before: Option<&Compiled>,
    known: &Known,
) -> (Outcome, Vec<Finding>) {
    let resource = match &declared.resource {
        Ok(resource) => resource,
        Err(unreadable) => {
            let failure = Failure::new(unreadable.reason, unreadable.message.clone());
            return (Outcome::Refused(failure), Vec::new());
        }
    };
    let policies = policies(resource);
    if policies.reconciliation == Reconciliation::Paused {
        return (Outcome::LeftAlone(Reason::Paused), Vec::new());
    }
    let mut findings = Vec::new();
    let compiled =
        conflict(declared, resource, accepted).and_then(|()| compile(resource, before, known, &mut findings));
    let observing = policies.management == ManagementPolicy::Observe && resource.kind() != Kind::Topic;
    let outcome = match compiled {
        Ok(_) if observing => Outcome::LeftAlone(Reason::Observing),
        Ok(spec) => Outcome::Run(spec),
        Err(failure) => Outcome::Refused(failure),
    };
    (outcome, findings)
}

fn compile(
    resource: &Resource,
    before: Option<&Compiled>,
    known: &Known,
    findings: &mut Vec<Finding>,
) -> Result<Compiled, Failure> {
    match resource {
        Resource::Topic(resource) => topic::resolve::compile(resource, before).map(Compiled::Topic),
        Resource::EventType(resource) => {
            event_type::resolve::compile(resource, before, known, findings).map(Compiled::EventType)
        }
        Resource::Projection(resource) => {
            projection::resolve::compile(resource, before, known).map(Compiled::Projection)
        }
        Resource::WebhookAction(resource) => Err(webhook_action::resolve::refuse(resource)),
    }
}

/// Two resources that want one name, prefix or default: the senior one has it.
fn conflict(declared: &Declared, resource: &Resource, accepted: &[&Declared]) -> Result<(), Failure> {
    for senior in accepted {
        let Ok(other) = &senior.resource else { continue };
        let shared = match (claim(resource), claim(other)) {
            (Some(name), Some(theirs)) if name == theirs => Some(format!("'{name}'")),
            _ => topic::resolve::shared_route(resource, other),
        };
        if let Some(shared) = shared {
            let message = format!(
                "{shared} is claimed by {} ({}) already, which keeps it: change or remove {} ({})",
                senior.key, senior.origin, declared.key, declared.origin
            );
            return Err(Failure::new(Reason::Conflict, message).of(ConditionType::Conflict));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
