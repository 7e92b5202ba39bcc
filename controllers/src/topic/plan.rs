//! What is to be done about a topic on the bus. Pure: what is wanted and what exists go in.
//!
//! A broker does not say who made a topic. So nothing is written to one before it is on record, with the registration
//! of the resource, that the platform claims it; and a claim is made when the topic does not exist, or when
//! `spec.adoptionPolicy` allows to take over the one that does. A claim lasts as long as the registration: it survives
//! restarts, and a resource that is deleted and made anew meets its topic like any other.

use std::collections::BTreeMap;

use crds::reason::Reason;
use crds::topic::{AdoptionPolicy, Drift};

use super::differences::{Actual, PARTITIONS, REDPANDA_REPLICATION, REPLICATION, differences, words};
use super::wanted::Wanted;

/// The topics of a broker, by name.
pub type Broker = BTreeMap<String, Actual>;

/// Differences that a message names.
const NAMED: usize = 8;

/// A change of one configuration key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration {
    Set {
        key: String,
        value: String,
    },
    /// Back to the broker's default.
    Reset {
        key: String,
    },
}

impl Alteration {
    pub fn key(&self) -> &str {
        match self {
            Self::Set { key, .. } | Self::Reset { key } => key,
        }
    }
}

/// What keeps a topic from being as described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub reason: Reason,
    /// The cause, and what to do about it.
    pub message: String,
}

/// What is to be done about one topic. Nothing, where nothing is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The differences, sorted by key.
    pub drift: Vec<Drift>,
    /// The claim is to be recorded; the rest comes after.
    pub claim: bool,
    pub create: bool,
    /// Partitions to have in all.
    pub partitions: Option<i32>,
    pub alterations: Vec<Alteration>,
    pub blocked: Option<Blocked>,
}

/// The way from what exists to what is wanted.
pub fn plan(wanted: &Wanted, actual: Option<&Actual>) -> Plan {
    let writes = wanted.rules.writes;
    let Some(actual) = actual else {
        return Plan { claim: writes && !wanted.claimed, create: writes && wanted.claimed, ..Plan::default() };
    };
    let drift = differences(wanted, actual);
    let mut plan = Plan { drift, ..Plan::default() };
    if !writes {
        return plan;
    }
    if let Err(why) = &actual.config {
        plan.blocked = Some(Blocked { reason: Reason::Retrying, message: why.clone() });
        return plan;
    }
    if wanted.claimed {
        correct(&mut plan, wanted, actual);
    } else {
        match adoption_refused(wanted, &plan.drift) {
            Some(message) => plan.blocked = Some(Blocked { reason: Reason::AdoptionRefused, message }),
            None => plan.claim = true,
        }
    }
    plan
}

fn adoption_refused(wanted: &Wanted, drift: &[Drift]) -> Option<String> {
    let name = &wanted.spec.topic_name;
    let before = format!("'{name}' existed before this resource and is left as it is");
    match wanted.rules.adoption {
        AdoptionPolicy::Always => None,
        AdoptionPolicy::IfIdentical if drift.is_empty() => None,
        AdoptionPolicy::IfIdentical => Some(format!(
            "{before}: {}; describe it as it is, or set spec.adoptionPolicy: Always to have it changed",
            words(drift, NAMED)
        )),
        AdoptionPolicy::Never => {
            let how = if drift.is_empty() { "it is as described".to_owned() } else { words(drift, NAMED) };
            Some(format!("{before}: spec.adoptionPolicy is Never; {how}; name another topic, or allow to take it over"))
        }
    }
}

fn correct(plan: &mut Plan, wanted: &Wanted, actual: &Actual) {
    for drift in &plan.drift {
        let key = drift.key.clone();
        match (key.as_str(), &drift.desired) {
            (PARTITIONS, _) if wanted.spec.partitions < actual.partitions => {}
            (PARTITIONS, _) if wanted.rules.allow_repartition => plan.partitions = Some(wanted.spec.partitions),
            (PARTITIONS, _) => plan.blocked = Some(repartition(wanted, actual)),
            (REPLICATION, Some(value)) if actual.changes_replication() => {
                plan.alterations.push(Alteration::Set { key: REDPANDA_REPLICATION.to_owned(), value: value.clone() });
            }
            (REPLICATION, _) => plan.blocked = Some(replication(wanted, actual)),
            (_, Some(value)) => plan.alterations.push(Alteration::Set { key, value: value.clone() }),
            (_, None) => plan.alterations.push(Alteration::Reset { key }),
        }
    }
}

fn repartition(wanted: &Wanted, actual: &Actual) -> Blocked {
    let (has, wants) = (actual.partitions, wanted.spec.partitions);
    let message = format!(
        "the topic has {has} partitions and spec.partitions is {wants}: more of them break the order of each aggregate's \
         events once; set allowRepartition: true to accept that"
    );
    Blocked { reason: Reason::RepartitionRefused, message }
}

fn replication(wanted: &Wanted, actual: &Actual) -> Blocked {
    let (has, wants) = (actual.replication, wanted.spec.replication_factor);
    let message = format!(
        "the topic has {has} copies and spec.replicationFactor is {wants}: this broker cannot change that of an existing \
         topic by a setting; reassign its partitions (kafka-reassign-partitions), or set replicationFactor to {has}"
    );
    Blocked { reason: Reason::UnsupportedByBroker, message }
}

/// Records in one call of a broker, which does a call as a whole or, above some 10 000, not at all.
const RECORDS: usize = 5_000;

/// Cuts a list into calls. `records` is what an item weighs; one that is too heavy by itself has a call of its own.
pub fn calls<T>(items: &[T], records: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut calls, mut start, mut weight) = (Vec::new(), 0, 0);
    for (at, item) in items.iter().enumerate() {
        let more = records(item);
        if at > start && weight + more > RECORDS {
            calls.push(&items[start..at]);
            (start, weight) = (at, 0);
        }
        weight += more;
    }
    if start < items.len() {
        calls.push(&items[start..]);
    }
    calls
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
