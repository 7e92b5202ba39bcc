//! Events that a row does not have though it has later ones: pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::fold::{FoldError, Folded, Row};
use super::program::Program;
use crate::event::{Shard, StoredEvent};
use crate::expression;

/// What a row does with an event that comes late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It is applied where it is newer, by (time, id), than what the row has.
    IfNewer,
    /// It is applied last.
    Anyhow,
}

impl Program {
    /// The key of the row that an event belongs to; `None` where the filter drops it.
    ///
    /// # Errors
    /// The filter or the key cannot be evaluated.
    pub fn key(&self, event: &StoredEvent) -> Result<Option<String>, FoldError> {
        self.key_of(event, &|| expression::event(event))
    }

    /// Folds the event that comes next in the row's order.
    ///
    /// # Errors
    /// It cannot be folded.
    pub fn fold_next(&self, row: Option<&Row>, event: &StoredEvent) -> Result<Folded, FoldError> {
        self.fold(row, event, &|| expression::event(event))
    }

    /// Folds an event whose position the row may have passed already. What the row has seen stays seen.
    ///
    /// # Errors
    /// It cannot be folded.
    pub fn fold_late(&self, row: Option<&Row>, event: &StoredEvent, late: Late) -> Result<Folded, FoldError> {
        let Some(row) = row else { return self.fold(None, event, &|| expression::event(event)) };
        let mut unseen = Row { position: i64::MIN, positions: None, ..row.clone() };
        if late == Late::Anyhow {
            unseen.last_event_timestamp = DateTime::<Utc>::MIN_UTC;
        }
        Ok(match self.fold(Some(&unseen), event, &|| expression::event(event))? {
            Folded::Changed(after) => Folded::Changed(after.not_behind(row)),
            other => other,
        })
    }
}

impl Row {
    /// The row, with what `before` has seen beside what it has: later events are those above both.
    #[must_use]
    pub fn not_behind(mut self, before: &Self) -> Self {
        if self.shard == before.shard {
            self.position = self.position.max(before.position);
        } else {
            (self.shard, self.position) = (before.shard, before.position);
        }
        if let Some(positions) = &mut self.positions {
            for (shard, position) in before.positions.iter().flatten() {
                let seen = positions.entry(*shard).or_insert(*position);
                *seen = (*seen).max(*position);
            }
        }
        let newest = |row: &Self| (row.last_event_timestamp, row.last_event_id);
        (self.last_event_timestamp, self.last_event_id) = newest(&self).max(newest(before));
        self
    }

    /// The last positions that are in the row.
    pub fn all_positions(&self) -> BTreeMap<Shard, i64> {
        self.positions.clone().unwrap_or_else(|| BTreeMap::from([(self.shard, self.position)]))
    }
}
