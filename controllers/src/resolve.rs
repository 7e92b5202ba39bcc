//! From a whole set of resources to what each should run as, or why it cannot. Pure.
//!
//! The order is that of the references: topics, then event types (which go to topics), then projections (which read
//! event types). A resource that is refused is looked at by the others as it was registered last.

mod cache;
mod claims;
mod form;

use std::collections::BTreeMap;

use crds::condition::{ConditionType, Finding};
use crds::reason::Reason;
use crds::registration::{self, Compiled, Kind, ResourceKey};
use crds::routing::Routes;
use crds::shared::{ManagementPolicy, Reconciliation};

pub use self::cache::Cache;
use self::cache::{Compilation, Others};
use self::claims::Claims;
pub use self::form::Form;
use crate::plan::{Registered, Registrations};
use crate::projection::migration::approval::Held;
use crate::resource::{Declared, Resource, policies};
use crate::webhook_action::secrets::Secrets;
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
    Run(Form),
    /// It cannot run. What ran before goes on.
    Refused(Failure),
    /// What it would lose waits for an approval. What ran before goes on.
    Held(Held),
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

/// What is served, or about to be.
#[derive(Default)]
pub(crate) struct Known {
    /// By resource name.
    pub topics: BTreeMap<String, registration::Topic>,
    pub routes: Routes,
    /// The topic of each event type.
    pub event_types: BTreeMap<String, String>,
    pub secrets: Secrets,
}

impl Known {
    fn learn(&mut self, name: &str, spec: &Compiled) {
        match spec {
            Compiled::Topic(spec) => {
                self.topics.insert(name.to_owned(), spec.clone());
            }
            Compiled::EventType(spec) => {
                // Of two that claim a type, the senior one has it.
                self.event_types.entry(spec.event_type.clone()).or_insert_with(|| spec.topic.clone());
            }
            Compiled::Projection(_) | Compiled::WebhookAction(_) => {}
        }
    }
}

/// Resolves the whole set of one namespace. There is one resolution per declared resource, in order of reference.
pub fn resolve(set: &[Declared], registered: &Registrations, secrets: &Secrets) -> Vec<Resolution> {
    resolve_again(&mut Cache::default(), set, registered, secrets)
}

/// The same where a cache holds what was compiled in the look before.
pub fn resolve_again(
    cache: &mut Cache,
    set: &[Declared],
    registered: &Registrations,
    secrets: &Secrets,
) -> Vec<Resolution> {
    let mut known = Known { secrets: secrets.clone(), ..Known::default() };
    let mut resolutions = Vec::with_capacity(set.len());
    cache.begin_look();
    for kind in Kind::ALL {
        let mut claims = Claims::default();
        for declared in by_seniority(set, kind, registered) {
            let before = last_good(&declared.key, registered);
            let (outcome, findings) = judge(declared, &claims, before, &known, cache);
            match (&outcome, before.and_then(|row| row.spec.as_ref())) {
                (Outcome::Run(spec), _) => known.learn(&declared.key.name, spec),
                (_, Some(spec)) => known.learn(&declared.key.name, spec),
                _ => {}
            }
            if !matches!(&outcome, Outcome::Refused(failure) if failure.reason == Reason::Conflict) {
                claims.accept(declared);
            }
            let (key, generation, origin) = (declared.key.clone(), declared.generation, declared.origin.clone());
            let manages = declared.resource.as_ref().is_ok_and(|r| policies(r).management == ManagementPolicy::Manage);
            resolutions.push(Resolution { key, generation, origin, outcome, manages, findings });
        }
        if kind == Kind::Topic {
            known.routes = Routes::of(known.topics.values());
        }
    }
    cache.end_look();
    resolutions
}

/// What is registered for a resource, where this release can read it.
fn last_good<'a>(key: &ResourceKey, registered: &'a Registrations) -> Option<&'a Registered> {
    registered.get(key).filter(|row| row.active && row.spec.is_some())
}

/// The oldest first; where ages are unknown, what is registered already, then by name.
fn by_seniority<'a>(set: &'a [Declared], kind: Kind, registered: &Registrations) -> Vec<&'a Declared> {
    let mut of_kind: Vec<&Declared> = set.iter().filter(|declared| declared.key.kind == kind).collect();
    of_kind.sort_by_cached_key(|d| (d.created, last_good(&d.key, registered).is_none(), d.key.name.clone()));
    of_kind
}

fn judge(
    declared: &Declared,
    claims: &Claims<'_>,
    before: Option<&Registered>,
    known: &Known,
    cache: &mut Cache,
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
    if let Err(conflict) = claims.check(declared) {
        return (Outcome::Refused(conflict), Vec::new());
    }
    let (compiled, findings) = compile(&declared.key, resource, before, known, cache);
    let observing = policies.management == ManagementPolicy::Observe && resource.kind() != Kind::Topic;
    let outcome = match compiled {
        Ok(_) if observing => Outcome::LeftAlone(Reason::Observing),
        Ok(form) => Outcome::Run(form),
        Err(failure) => Outcome::Refused(failure),
    };
    (outcome, findings)
}

fn compile(
    key: &ResourceKey,
    resource: &Resource,
    before: Option<&Registered>,
    known: &Known,
    cache: &mut Cache,
) -> Compilation {
    let spec = before.and_then(|row| row.spec.as_ref());
    let hash = before.map(|row| row.hash.as_str());
    let mut cached = |others, compile: &dyn Fn(&mut Vec<Finding>) -> Result<Compiled, Failure>| {
        cache.get(key, resource, hash, others, compile)
    };
    match resource {
        Resource::Topic(resource) => {
            cached(Others::Nothing, &|_| topic::resolve::compile(resource, spec).map(Compiled::Topic))
        }
        Resource::EventType(resource) => {
            let destination = event_type::resolve::destination(resource, known);
            cached(Others::Destination(destination.clone()), &|findings| {
                event_type::resolve::compile(resource, spec, &destination, findings).map(Compiled::EventType)
            })
        }
        Resource::Projection(resource) => {
            let several = projection::resolve::reads_several_topics(resource, known);
            cached(Others::SeveralTopics(several), &|_| {
                projection::resolve::compile(resource, spec, several).map(Compiled::Projection)
            })
        }
        // Their Secrets may have changed: there are few of them, and little is to be compiled.
        Resource::WebhookAction(resource) => {
            let mut findings = Vec::new();
            let compiled = webhook_action::resolve::compile(resource, &known.secrets, &mut findings);
            (compiled.map(|spec| Form::from(Compiled::WebhookAction(Box::new(spec)))), findings)
        }
    }
}

#[cfg(test)]
mod tests;
