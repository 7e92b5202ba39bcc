//! Rows folded anew, event by event, with those of letters that were asked for: pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::dead_letters::replay::store::Marked;
use crate::event::StoredEvent;
use crate::projection::{Folded, Program, Row};

/// A row in the making.
#[derive(Debug, Default)]
pub(super) struct Anew {
    pub row: Option<Row>,
    /// When the last event in it was accepted.
    pub accepted: Option<DateTime<Utc>>,
    /// Letters that were asked for and whose events were met.
    pub asked: Vec<Uuid>,
    /// Those of them whose events are in the row.
    pub went_in: Vec<Uuid>,
    /// Why the row cannot be made: an event that was in it cannot be folded after one of a letter.
    pub refused: Option<String>,
}

/// A letter that fails again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub dlq_id: Uuid,
    pub lane: String,
    pub cause: String,
}

/// An event that belongs to one of the rows.
pub(super) struct Placed<'e> {
    event: &'e StoredEvent,
    key: String,
    /// Whether the filter lets it pass, or why that cannot be said.
    passes: Result<bool, String>,
}

/// The rows of some keys.
pub(super) struct Refold<'p> {
    program: &'p Program,
    pub rows: BTreeMap<String, Anew>,
    pub failed: Vec<Failed>,
    /// Lanes in which a letter failed: what comes later in them is left out.
    blocked: HashSet<String>,
}

impl<'p> Refold<'p> {
    /// `blocked`: lanes in which a letter has failed already.
    pub fn new(program: &'p Program, keys: impl IntoIterator<Item = String>, blocked: HashSet<String>) -> Self {
        let rows = keys.into_iter().map(|key| (key, Anew::default())).collect();
        Self { program, rows, failed: Vec::new(), blocked }
    }

    /// Which of the rows an event belongs to, if to one of them.
    pub fn place<'e>(&self, event: &'e StoredEvent) -> Option<Placed<'e>> {
        let found = self.program.key(event);
        let key = if self.program.has_own_key() {
            found.as_ref().ok().and_then(Clone::clone)?
        } else {
            event.aggregate_id.clone()
        };
        let passes = found.map(|key| key.is_some()).map_err(|error| error.to_string());
        self.rows.contains_key(&key).then_some(Placed { event, key, passes })
    }

    /// Folds an event, which comes after those taken before. `letters`: those about events that are not in the rows.
    pub fn take(&mut self, placed: &Placed<'_>, letters: &HashMap<Uuid, Marked>) {
        let Placed { event, key, passes } = placed;
        let letter = letters.get(&event.event_id);
        let Some(anew) = self.rows.get_mut(key) else { return };
        if letter.is_some_and(|letter| !letter.requested || self.blocked.contains(&event.aggregate_id)) {
            return;
        }
        anew.asked.extend(letter.map(|letter| letter.dlq_id));
        if anew.refused.is_some() {
            return;
        }
        let folded = match passes {
            Ok(true) => self.program.fold_next(anew.row.as_ref(), event).map_err(|error| error.to_string()),
            Ok(false) => Ok(Folded::Seen),
            Err(error) => Err(error.clone()),
        };
        match (folded, letter) {
            (Ok(folded), _) => {
                if let Folded::Changed(row) = folded {
                    anew.row = Some(row);
                    anew.accepted = Some(event.ingested_at);
                }
                anew.went_in.extend(letter.map(|letter| letter.dlq_id));
            }
            (Err(cause), Some(letter)) => {
                let lane = event.aggregate_id.clone();
                self.blocked.insert(lane.clone());
                self.failed.push(Failed { dlq_id: letter.dlq_id, lane, cause });
            }
            (Err(cause), None) => {
                anew.refused = Some(format!(
                    "event {}, which is in the row, fails behind those of letters: {cause}",
                    event.event_id
                ));
            }
        }
    }
}

impl<'e> Placed<'e> {
    pub fn event(&self) -> &'e StoredEvent {
        self.event
    }

    pub fn key(&self) -> &str {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use crds::registration::{Fold, OnError, Projection, Rebuild, Source, StartFrom};
    use serde_json::{Value, json};

    use super::*;
    use crate::event::shard_of;

    fn program(fields: &[(&str, &str)], filter: Option<&str>) -> Program {
        let fields = fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Program::compile(&Projection {
            projection_type: "p".to_owned(),
            source: Source { event_types: vec!["t".to_owned()], prefixes: vec![] },
            filter: filter.map(str::to_owned),
            key: None,
            fold: Fold::Fields(fields),
            start_from: StartFrom::Earliest,
            on_error: OnError::DeadLetter,
            rebuild: Rebuild::Never,
            retention_seconds: None,
            indexes: vec![],
            reads_event_store: false,
        })
        .expect("compiles")
    }

    fn event(position: i64, payload: Value) -> StoredEvent {
        let at = chrono::DateTime::from_timestamp(1_700_000_000 + position, 0).expect("a time");
        StoredEvent {
            shard: shard_of("a"),
            position,
            event_id: Uuid::from_u128(position.unsigned_abs().into()),
            event_type: "t".to_owned(),
            aggregate_id: "a".to_owned(),
            timestamp: at,
            payload,
            metadata: json!({}),
            ingested_at: at,
        }
    }

    fn letters(marked: &[(i64, bool)]) -> HashMap<Uuid, Marked> {
        let marked = marked.iter().map(|(position, requested)| {
            let event_id = Uuid::from_u128(position.unsigned_abs().into());
            (event_id, Marked { event_id, dlq_id: Uuid::from_u128(1000 + event_id.as_u128()), requested: *requested })
        });
        marked.collect()
    }

    fn refold(program: &Program, events: &[StoredEvent], marked: &[(i64, bool)]) -> (Anew, Vec<Failed>) {
        let mut refold = Refold::new(program, ["a".to_owned()], HashSet::new());
        let letters = letters(marked);
        for event in events {
            if let Some(placed) = refold.place(event) {
                refold.take(&placed, &letters);
            }
        }
        (refold.rows.remove("a").expect("the row"), refold.failed)
    }

    const JOINED: &str = "(has(state.s) ? state.s : '') + event.payload.v";

    #[test]
    fn the_events_of_letters_go_in_where_they_belong_and_only_those_that_were_asked_for() {
        let program = program(&[("s", JOINED)], None);
        let events: Vec<_> = (1..=5).map(|n| event(n, json!({"v": n.to_string()}))).collect();
        let (anew, failed) = refold(&program, &events, &[(2, true), (4, false)]);
        let row = anew.row.expect("a row");
        assert_eq!((row.state, row.position), (json!({"s": "1235"}), 5));
        assert_eq!((anew.went_in.len(), anew.asked.len(), failed.len()), (1, 1, 0));
    }

    #[test]
    fn what_comes_after_a_letter_that_fails_again_in_its_lane_is_left_out() {
        let program = program(&[("s", JOINED)], None);
        let events = [
            event(1, json!({"v": "1"})),
            event(2, json!({"v": 2})),
            event(3, json!({"v": "3"})),
            event(4, json!({"v": "4"})),
        ];
        let (anew, failed) = refold(&program, &events, &[(2, true), (4, true)]);
        assert_eq!(anew.row.expect("a row").state, json!({"s": "13"}));
        assert!(anew.went_in.is_empty() && anew.refused.is_none());
        assert_eq!((failed.len(), failed[0].dlq_id), (1, Uuid::from_u128(1002)));
        assert!(failed[0].cause.contains("fields.s"), "{}", failed[0].cause);
    }

    #[test]
    fn a_row_whose_own_events_fail_after_a_letter_s_is_refused() {
        // Fails on what follows a 2.
        let program = program(&[("s", "has(state.s) && state.s == '2' ? string(1 / 0) : event.payload.v")], None);
        let events = [event(1, json!({"v": "1"})), event(2, json!({"v": "2"})), event(3, json!({"v": "3"}))];
        let (anew, failed) = refold(&program, &events, &[(2, true)]);
        assert!(failed.is_empty() && anew.asked.len() == 1);
        assert!(anew.refused.is_some_and(|why| why.contains("00000000-0000-0000-0000-000000000003")));
        assert!(refold_ok(&program, &events[..2]));
    }

    fn refold_ok(program: &Program, events: &[StoredEvent]) -> bool {
        let (anew, failed) = refold(program, events, &[(2, true)]);
        failed.is_empty() && anew.refused.is_none() && anew.went_in.len() == 1
    }

    #[test]
    fn an_event_that_the_filter_leaves_out_now_needs_no_replay_any_more() {
        let program = program(&[("s", JOINED)], Some("event.payload.v != '2'"));
        let events = [event(1, json!({"v": "1"})), event(2, json!({"v": "2"}))];
        let (anew, _) = refold(&program, &events, &[(2, true)]);
        assert_eq!(anew.row.expect("a row").state, json!({"s": "1"}));
        assert_eq!(anew.went_in.len(), 1);
    }
}
