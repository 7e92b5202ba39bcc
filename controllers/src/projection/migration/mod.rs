//! What is to be done to the tables of projections: from what is wanted and what the database has to a plan. Pure.
//!
//! A plan is a list of steps, each with its statement, whether it loses data, and how it is run. What loses data waits
//! for an approval ([`approval`]) of the plan's hash. Steps are about [`indexes`] on fields of the state, and about the
//! [`rows`] that a changed definition replaces; and, in the time-series database, about the tables of [`series`].
//!
//! Dropping an index that nobody declares any more is additive: it loses no data, and declaring the field again brings the
//! index back.

pub mod approval;
pub mod indexes;
pub mod rows;
pub mod series;

use std::collections::BTreeMap;

use crds::registration::sha256;
use serde_json::json;

/// Whether a step loses data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Additive,
    Destructive,
}

impl Class {
    /// As the ledger and messages have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Additive => "additive",
            Self::Destructive => "destructive",
        }
    }
}

/// How a step is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In a transaction, with its row of the ledger.
    Transaction,
    /// In no transaction: a row of the ledger says before that it was started.
    Concurrently,
    /// By the handler, once the new definition is registered; the row of the ledger is written with the registration.
    Registration,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Names it in the ledger, the same in every process and release.
    pub name: String,
    pub statement: String,
    pub class: Class,
    pub way: Way,
    /// What it is for, for people.
    pub purpose: String,
}

/// The steps that are outstanding for one projection, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Empty for what is nobody's.
    pub projection_type: String,
    pub steps: Vec<Step>,
}

impl Plan {
    /// SHA-256 (hex) over what is outstanding: equal plans have equal hashes, whenever they are made.
    pub fn hash(&self) -> String {
        let step = |step: &Step| json!([step.name, step.statement, step.class.as_str()]);
        let steps: Vec<_> = self.steps.iter().map(step).collect();
        sha256(&json!([self.projection_type, steps]).to_string())
    }

    /// Whether some step loses data.
    pub fn is_destructive(&self) -> bool {
        self.steps.iter().any(|step| step.class == Class::Destructive)
    }
}

/// How far a step has come; the newest row of the ledger about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Rises from row to row.
    pub id: i64,
    pub state: State,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Started,
    Done,
    /// With what the database said.
    Failed(String),
}

/// The newest row about each step, by its name.
pub type Ledger = BTreeMap<String, Entry>;

/// What the handler's database has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    pub indexes: indexes::Existing,
    pub ledger: Ledger,
}

impl Catalog {
    pub fn state(&self, step: &Step) -> Option<&State> {
        self.ledger.get(&step.name).map(|entry| &entry.state)
    }
}

/// A text as a literal of SQL.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str) -> Step {
        Step {
            name: name.to_owned(),
            statement: "SELECT 1".to_owned(),
            class: Class::Additive,
            way: Way::Transaction,
            purpose: "nothing".to_owned(),
        }
    }

    fn plan(steps: Vec<Step>) -> Plan {
        Plan { projection_type: "p".to_owned(), steps }
    }

    #[test]
    fn the_hash_stands_for_what_is_done_and_not_for_how_it_is_told() {
        let one = plan(vec![step("a"), step("b")]);
        assert_eq!(one.hash(), one.clone().hash());
        let told = Step { purpose: "else".to_owned(), ..step("a") };
        assert_eq!(plan(vec![told, step("b")]).hash(), one.hash());
        let others = [
            plan(vec![step("a")]),
            plan(vec![step("b"), step("a")]),
            plan(vec![Step { class: Class::Destructive, ..step("a") }, step("b")]),
            plan(vec![Step { statement: "SELECT 2".to_owned(), ..step("a") }, step("b")]),
            Plan { projection_type: "q".to_owned(), ..one.clone() },
        ];
        for other in others {
            assert_ne!(other.hash(), one.hash(), "{other:?}");
        }
    }

    #[test]
    fn a_text_cannot_leave_its_literal() {
        assert_eq!(literal("value"), "'value'");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"\'; DROP TABLE projections; --"), r"E'\\''; DROP TABLE projections; --'");
    }
}
