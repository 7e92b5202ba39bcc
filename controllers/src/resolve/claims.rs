//! What no two resources of a kind may share: a name, a prefix, a table, being the default. The senior one has it.

use std::collections::HashMap;

use crds::condition::ConditionType;
use crds::reason::Reason;

use super::Failure;
use crate::resource::{Declared, Resource, claim};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Claim<'a> {
    Name(&'a str),
    Default,
    Prefix(&'a str),
    Table(&'a str),
}

/// What the resources of one kind have claimed so far.
#[derive(Default)]
pub(super) struct Claims<'a> {
    /// The first holder of each, by its place in the order of seniority.
    holders: HashMap<Claim<'a>, (usize, &'a Declared)>,
    accepted: usize,
}

impl<'a> Claims<'a> {
    /// Later resources find claimed what this one claims.
    pub fn accept(&mut self, declared: &'a Declared) {
        let place = (self.accepted, declared);
        self.accepted += 1;
        for claim in declared.resource.iter().flat_map(claims_of) {
            self.holders.entry(claim).or_insert(place);
        }
    }

    /// Nobody senior claims what this resource claims.
    pub fn check(&self, declared: &Declared) -> Result<(), Failure> {
        let claims = declared.resource.iter().flat_map(claims_of);
        let held = claims.filter_map(|claim| self.holders.get(&claim).map(|(place, senior)| (claim, place, senior)));
        let Some((claim, _, senior)) = held.min_by_key(|(_, place, _)| **place) else { return Ok(()) };
        let shared = match claim {
            Claim::Name(name) => format!("'{name}'"),
            Claim::Default => "to be the default topic".to_owned(),
            Claim::Prefix(prefix) => format!("the prefix '{prefix}'"),
            Claim::Table(table) => format!("the table '{table}'"),
        };
        let message = format!(
            "{shared} is claimed by {} ({}) already, which keeps it: change or remove {} ({})",
            senior.key, senior.origin, declared.key, declared.origin
        );
        Err(Failure::new(Reason::Conflict, message).of(ConditionType::Conflict))
    }
}

fn claims_of(resource: &Resource) -> impl Iterator<Item = Claim<'_>> {
    let (default, prefixes) = match resource {
        Resource::Topic(topic) => (topic.spec.is_default(), topic.spec.prefixes()),
        _ => (false, &[][..]),
    };
    let table = match resource {
        Resource::Projection(projection) => projection.spec.time_series.as_ref().map(|series| series.table.as_str()),
        _ => None,
    };
    let name = claim(resource).map(Claim::Name);
    let prefixes = prefixes.iter().map(|prefix| Claim::Prefix(prefix));
    name.into_iter().chain(default.then_some(Claim::Default)).chain(prefixes).chain(table.map(Claim::Table))
}
