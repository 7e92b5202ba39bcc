//! A batch in memory: many events into the rows they touch, each row read once and written once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::fold::{FoldError, Folded, Row};
use super::program::Program;
use crate::event::{Shard, StoredEvent};
use crate::expression;

/// A projection that takes part in a batch.
#[derive(Clone)]
pub struct Subject {
    pub projection_type: String,
    pub program: Arc<Program>,
    /// Events at or below these positions (by shard) are not folded: they are in the rows by another path.
    pub applied_through: Vec<i64>,
}

impl Subject {
    fn wants(&self, event: &StoredEvent) -> bool {
        self.program.reads(&event.event_type)
            && self.applied_through.get(index(event.shard)).is_none_or(|&through| event.position > through)
    }
}

/// An event that a projection could not fold.
#[derive(Debug)]
pub struct Failure {
    /// Index of the projection in the batch's subjects.
    pub subject: usize,
    /// Index of the event in the batch.
    pub event: usize,
    pub error: FoldError,
}

/// How the folds of a batch ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub applied: u64,
    pub filtered: u64,
    pub seen: u64,
    pub stale: u64,
}

/// Index of the subject and key of the row.
pub type RowKey = (usize, String);

/// The rows of a batch, before and after.
pub struct Working<'a> {
    subjects: &'a [Subject],
    events: &'a [StoredEvent],
    /// What is to be folded where, in the order of the events.
    steps: Vec<(RowKey, usize)>,
    /// CEL forms of the events, made when first asked for.
    forms: Vec<OnceLock<cel::Value>>,
    rows: HashMap<RowKey, Row>,
    changed: HashSet<RowKey>,
    pub failures: Vec<Failure>,
    pub tally: Tally,
}

impl<'a> Working<'a> {
    /// Finds the rows that the events belong to.
    pub fn plan(subjects: &'a [Subject], events: &'a [StoredEvent]) -> Self {
        let forms = events.iter().map(|_| OnceLock::new()).collect();
        let mut this = Self {
            subjects,
            events,
            steps: Vec::with_capacity(events.len()),
            forms,
            rows: HashMap::new(),
            changed: HashSet::new(),
            failures: Vec::new(),
            tally: Tally::default(),
        };
        for (at, event) in events.iter().enumerate() {
            for (number, subject) in subjects.iter().enumerate().filter(|(_, subject)| subject.wants(event)) {
                match subject.program.key_of(event, &|| form(&this.forms[at], event)) {
                    Ok(Some(key)) => this.steps.push(((number, key), at)),
                    Ok(None) => this.tally.filtered += 1,
                    Err(error) => this.failures.push(Failure { subject: number, event: at, error }),
                }
            }
        }
        this
    }

    /// The rows to be loaded, each once.
    pub fn keys(&self) -> Vec<&RowKey> {
        self.steps.iter().map(|(key, _)| key).collect::<HashSet<_>>().into_iter().collect()
    }

    /// Folds the events, in order, into the rows loaded. A failed event leaves its row as it was.
    pub fn fold(&mut self, loaded: HashMap<RowKey, Row>) {
        self.rows = loaded;
        for (key, at) in std::mem::take(&mut self.steps) {
            let (subject, event) = (&self.subjects[key.0], &self.events[at]);
            match subject.program.fold(self.rows.get(&key), event, &|| form(&self.forms[at], event)) {
                Ok(Folded::Changed(row)) => {
                    self.tally.applied += 1;
                    self.rows.insert(key.clone(), row);
                    self.changed.insert(key);
                }
                Ok(Folded::Seen) => self.tally.seen += 1,
                Ok(Folded::Stale) => self.tally.stale += 1,
                Err(error) => self.failures.push(Failure { subject: key.0, event: at, error }),
            }
        }
    }

    /// The rows to be written, in the order of their keys.
    pub fn changed(&self) -> Vec<(&RowKey, &Row)> {
        let mut rows: Vec<_> = self.changed.iter().filter_map(|key| self.rows.get_key_value(key)).collect();
        rows.sort_by_key(|(key, _)| *key);
        rows
    }
}

fn form(cell: &OnceLock<cel::Value>, event: &StoredEvent) -> cel::Value {
    cell.get_or_init(|| expression::event(event)).clone()
}

fn index(shard: Shard) -> usize {
    usize::try_from(shard).unwrap_or(0)
}
