//! Which deliveries events become. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::endpoint::{Endpoints, Matcher};
use super::program::{Content, ProgramError};
use crate::bus::Wanted;
use crate::event::StoredEvent;

/// What events become, before duplicates are looked for.
#[derive(Default)]
pub struct Plan {
    pub planned: Vec<Planned>,
    pub failures: Vec<Failure>,
}

/// An event that is to be delivered to an endpoint.
pub struct Planned {
    /// Which of the events.
    pub event: usize,
    pub matcher: Arc<Matcher>,
    pub content: Content,
}

/// An event that an action could not evaluate.
pub struct Failure {
    /// Which of the events.
    pub event: usize,
    pub action: String,
    pub error: ProgramError,
}

/// Which events are needed with their payloads.
pub fn wanted(endpoints: &Endpoints) -> Wanted {
    let (mut event_types, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
    for matcher in endpoints.matchers.values() {
        let source = matcher.program.source();
        event_types.extend(source.event_types.iter().cloned());
        prefixes.extend(source.prefixes.iter().cloned());
    }
    Wanted { event_types: event_types.into_iter().collect(), prefixes: prefixes.into_iter().collect() }
}

/// Asks every action about every event. One that was accepted before the action was there is none of its.
pub fn plan(events: &[StoredEvent], endpoints: &Endpoints) -> Plan {
    let mut plan = Plan::default();
    for (number, event) in events.iter().enumerate() {
        for matcher in endpoints.matchers.values().filter(|matcher| event.ingested_at >= matcher.since) {
            match matcher.program.of(event) {
                Ok(None) => {}
                Ok(Some(content)) => {
                    plan.planned.push(Planned { event: number, matcher: matcher.clone(), content });
                }
                Err(error) => {
                    plan.failures.push(Failure { event: number, action: matcher.action.clone(), error });
                }
            }
        }
    }
    plan
}
