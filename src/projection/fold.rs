//! One event into one row: pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use crds::language::expression::{Bindings, to_cel};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::program::{Program, Rule};
use crate::database::find_nul;
use crate::event::{MAX_NAME_CHARS, Shard, StoredEvent};

/// Largest state of one row, in bytes of JSON text.
pub const MAX_STATE_BYTES: usize = 1024 * 1024;

/// A projection row, as far as folding is concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub state: Value,
    pub last_event_id: Uuid,
    pub last_event_timestamp: DateTime<Utc>,
    /// Shard and position of the last event folded.
    pub shard: Shard,
    pub position: i64,
    /// Positions by shard, where the projection has a key of its own.
    pub positions: Option<BTreeMap<Shard, i64>>,
}

impl Row {
    /// The last position of this shard that is in the row.
    fn seen(&self, shard: Shard) -> i64 {
        match &self.positions {
            Some(positions) => positions.get(&shard).copied().unwrap_or(0),
            None if self.shard == shard => self.position,
            None => 0,
        }
    }
}

/// What became of an event.
#[derive(Debug, PartialEq)]
pub enum Folded {
    /// The row after it.
    Changed(Row),
    /// It was in the row already.
    Seen,
    /// `latest` and `merge`: the row holds a newer event, by (time, id).
    Stale,
}

/// Why an event cannot be folded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FoldError {
    #[error("{field}: {cause}")]
    Expression { field: String, cause: String },
    #[error("filter: must be true or false, is {0}")]
    FilterNotBool(String),
    #[error("key: must be a string of 1 to {MAX_NAME_CHARS} characters, is {0}")]
    BadKey(String),
    #[error("state: {0} bytes, more than the {MAX_STATE_BYTES} that a row may have")]
    StateTooLarge(usize),
    #[error("state: the text at {0} holds \\u0000, which PostgreSQL cannot store")]
    NulInState(String),
}

impl Program {
    /// The key of the row that an event belongs to; `None` where the filter drops it. `event` is its CEL form.
    pub(super) fn key_of(
        &self,
        event: &StoredEvent,
        cel: &impl Fn() -> cel::Value,
    ) -> Result<Option<String>, FoldError> {
        if let Some(filter) = &self.filter {
            match evaluate("filter", filter.evaluate(&cel(), None))? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Ok(None),
                other => return Err(FoldError::FilterNotBool(cut(&other.to_string()))),
            }
        }
        let Some(key) = &self.key else { return Ok(Some(event.aggregate_id.clone())) };
        match evaluate("key", key.evaluate(&cel(), None))? {
            Value::String(key) if (1..=MAX_NAME_CHARS).contains(&key.chars().count()) && !key.contains('\0') => {
                Ok(Some(key))
            }
            other => Err(FoldError::BadKey(cut(&other.to_string()))),
        }
    }

    /// Folds an event into a row.
    pub(super) fn fold(
        &self,
        row: Option<&Row>,
        event: &StoredEvent,
        cel: &impl Fn() -> cel::Value,
    ) -> Result<Folded, FoldError> {
        if row.is_some_and(|row| row.seen(event.shard) >= event.position) {
            return Ok(Folded::Seen);
        }
        let newest =
            row.is_none_or(|row| (event.timestamp, event.event_id) > (row.last_event_timestamp, row.last_event_id));
        let state = match &self.rule {
            Rule::Latest | Rule::Merge if !newest => return Ok(Folded::Stale),
            Rule::Latest => event.payload.clone(),
            Rule::Merge => merged(row, &event.payload),
            Rule::Fields(fields) => {
                let before = row.map_or_else(|| Value::Object(Map::new()), |row| row.state.clone());
                let bindings = Bindings::new(&cel(), Some(&to_cel(&before)));
                let mut after = Map::new();
                for (name, expression) in fields {
                    let value = evaluate(&format!("fields.{name}"), expression.evaluate_in(&bindings))?;
                    after.insert(name.clone(), value);
                }
                Value::Object(after)
            }
        };
        check_storable(&state)?;
        let positions = self.has_own_key().then(|| {
            let mut positions = row.and_then(|row| row.positions.clone()).unwrap_or_default();
            positions.insert(event.shard, event.position);
            positions
        });
        let (last_event_id, last_event_timestamp) = match row {
            Some(row) if !newest => (row.last_event_id, row.last_event_timestamp),
            _ => (event.event_id, event.timestamp),
        };
        let (shard, position) = (event.shard, event.position);
        Ok(Folded::Changed(Row { state, last_event_id, last_event_timestamp, shard, position, positions }))
    }
}

/// RFC 7396.
fn merged(row: Option<&Row>, payload: &Value) -> Value {
    let mut state = row.map_or(Value::Null, |row| row.state.clone());
    json_patch::merge(&mut state, payload);
    state
}

fn evaluate<E: std::fmt::Display>(field: &str, result: Result<Value, E>) -> Result<Value, FoldError> {
    result.map_err(|e| FoldError::Expression { field: field.to_owned(), cause: e.to_string() })
}

/// Whatever passes here, PostgreSQL stores: an update never fails because of one event's state.
fn check_storable(state: &Value) -> Result<(), FoldError> {
    if let Some(pointer) = find_nul(state) {
        return Err(FoldError::NulInState(pointer));
    }
    let bytes = size(state);
    if bytes > MAX_STATE_BYTES { Err(FoldError::StateTooLarge(bytes)) } else { Ok(()) }
}

/// Roughly the length of the JSON text, without writing it.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 12,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => fields.iter().map(|(name, item)| name.len() + 4 + size(item)).sum::<usize>() + 2,
    }
}

fn cut(text: &str) -> String {
    const KEPT: usize = 120;
    if text.chars().count() <= KEPT { text.to_owned() } else { text.chars().take(KEPT).chain(['…']).collect() }
}
