//! One flush, without I/O: what is written together, what is told apart when the database refuses it, and what each
//! entry is answered.

use std::collections::VecDeque;
use std::ops::Range;

use super::idempotency::{Standing, standings};
use super::{Accepted, Entry, Outcome, RefusedBy};

/// Entries that stand or fall together: one, or all of an all-or-nothing batch.
type Unit = Range<usize>;

/// What goes to the database in one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    units: Vec<Unit>,
    /// An all-or-nothing batch with keys: its keys are looked at before it is committed.
    pub transaction: bool,
}

/// What the database said about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Stored,
    /// The key was accepted before, for the same request, as this event.
    Before(uuid::Uuid),
    /// The key was accepted before, for another request.
    OtherRequest,
    /// The key was there and is gone: write it again.
    Gone,
}

/// The entries of one flush and what became of them.
pub(super) struct Flush {
    entries: Vec<Entry>,
    outcomes: Vec<Option<Outcome>>,
    /// Entries that share the fate of an earlier one: (entry, earlier one).
    repeats: Vec<(usize, usize)>,
    pending: VecDeque<Write>,
}

impl Flush {
    /// `requests`: the entries of each request, and whether they stand or fall together.
    pub fn new(requests: impl Iterator<Item = (Vec<Entry>, bool)>) -> Self {
        let mut entries = Vec::new();
        let mut pending: VecDeque<Write> = VecDeque::new();
        for (request, together) in requests {
            let rows = entries.len()..entries.len() + request.len();
            let transaction = together && request.iter().any(|e| e.key.is_some());
            entries.extend(request);
            let units = if together { vec![rows] } else { rows.map(|i| i..i + 1).collect() };
            match pending.back_mut() {
                Some(last) if !transaction && !last.transaction => last.units.extend(units),
                _ => pending.push_back(Write { units, transaction }),
            }
        }
        let outcomes = vec![None; entries.len()];
        let mut flush = Self { entries, outcomes, repeats: Vec::new(), pending };
        for index in 0..flush.pending.len() {
            flush.compare_keys(index);
        }
        flush
    }

    /// Settles what the keys of one write say about each other.
    fn compare_keys(&mut self, index: usize) {
        let rows: Vec<usize> = self.pending[index].units.iter().flat_map(Clone::clone).collect();
        if rows.iter().all(|i| self.entries[*i].key.is_none()) {
            return;
        }
        let all = standings(rows.iter().map(|i| self.entries[*i].key.as_ref()));
        for (row, standing) in rows.iter().zip(all) {
            match standing {
                Standing::First => {}
                Standing::Repeats(first) => self.repeats.push((*row, rows[first])),
                Standing::Conflicts => self.outcomes[*row] = Some(Err(key_reused(&self.entries[*row]))),
            }
        }
        if self.pending[index].transaction && rows.iter().any(|i| self.outcomes[*i].is_some()) {
            self.fail_units(&self.pending[index].units.clone(), &RefusedBy::WithBatch);
        }
    }

    /// The next thing to write, and its rows.
    pub fn next(&mut self) -> Option<(Write, Vec<usize>)> {
        while let Some(write) = self.pending.pop_front() {
            let rows: Vec<usize> = write.units.iter().flat_map(Clone::clone).filter(|i| self.is_open(*i)).collect();
            if !rows.is_empty() {
                return Some((write, rows));
            }
        }
        None
    }

    fn is_open(&self, row: usize) -> bool {
        self.outcomes[row].is_none() && !self.repeats.iter().any(|(repeat, _)| *repeat == row)
    }

    pub fn entry(&self, row: usize) -> &Entry {
        &self.entries[row]
    }

    pub fn rows(&self) -> usize {
        self.entries.len()
    }

    /// The database's answer to a write.
    pub fn settle(&mut self, write: &Write, rows: &[usize], answers: &[Row]) {
        let mut again = Vec::new();
        for (row, answer) in rows.iter().zip(answers) {
            let event_id = self.entries[*row].event_id;
            self.outcomes[*row] = match answer {
                Row::Stored => Some(Ok(Accepted { event_id, repeated: false })),
                Row::Before(earlier) => Some(Ok(Accepted { event_id: *earlier, repeated: *earlier != event_id })),
                Row::OtherRequest => Some(Err(key_reused(&self.entries[*row]))),
                Row::Gone => {
                    again.push(*row..*row + 1);
                    None
                }
            };
        }
        if write.transaction && !committed(answers) {
            self.undo(write, rows, answers);
        } else if !again.is_empty() {
            self.pending.push_front(Write { units: again, transaction: false });
        }
    }

    /// A transaction that was rolled back: all is written again, or nothing.
    fn undo(&mut self, write: &Write, rows: &[usize], answers: &[Row]) {
        let refused = answers.contains(&Row::OtherRequest);
        for (row, answer) in rows.iter().zip(answers) {
            if *answer != Row::OtherRequest {
                self.outcomes[*row] = refused.then_some(Err(RefusedBy::WithBatch));
            }
        }
        if refused {
            self.fail_units(&write.units, &RefusedBy::WithBatch);
        } else {
            self.pending.push_front(write.clone());
        }
    }

    /// The database refused the write for what is in it: halves are tried, a single unit is refused.
    pub fn split(&mut self, write: Write, reason: &str) {
        if let [unit] = write.units.as_slice() {
            self.fail_units(std::slice::from_ref(unit), &RefusedBy::Data(reason.to_owned()));
            return;
        }
        let Write { mut units, transaction } = write;
        let right = units.split_off(units.len() / 2);
        self.pending.push_front(Write { units: right, transaction });
        self.pending.push_front(Write { units, transaction });
    }

    /// What is not settled yet is refused.
    pub fn give_up(&mut self, write: &Write, why: &RefusedBy) {
        self.fail_units(&write.units.clone(), why);
        while let Some(write) = self.pending.pop_front() {
            self.fail_units(&write.units, why);
        }
    }

    fn fail_units(&mut self, units: &[Unit], why: &RefusedBy) {
        for row in units.iter().flat_map(Clone::clone) {
            if self.is_open(row) {
                self.outcomes[row] = Some(Err(why.clone()));
            }
        }
    }

    /// The outcome of each entry.
    pub fn finish(mut self) -> Vec<Outcome> {
        for (repeat, first) in std::mem::take(&mut self.repeats) {
            if self.outcomes[repeat].is_none() {
                self.outcomes[repeat] = self.outcomes[first]
                    .clone()
                    .map(|outcome| outcome.map(|accepted| Accepted { repeated: true, ..accepted }));
            }
        }
        let unanswered = || Err(RefusedBy::Unavailable("the write was given up".to_owned()));
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect()
    }
}

/// Whether a transaction with these answers is committed.
pub(super) fn committed(answers: &[Row]) -> bool {
    !answers.iter().any(|answer| matches!(answer, Row::OtherRequest | Row::Gone))
}

pub(super) fn key_reused(entry: &Entry) -> RefusedBy {
    RefusedBy::KeyReused(entry.key.as_ref().map(|k| k.shown().to_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::IdempotencyKey;
    use super::*;

    fn entry(id: u128, key: Option<(&str, u8)>) -> Entry {
        let key = key.map(|(key, request)| IdempotencyKey::from_header(key, [request; 32]));
        Entry { event_id: Uuid::from_u128(id), shard: 0, envelope: String::new(), key, again: false }
    }

    fn stored(id: u128, repeated: bool) -> Accepted {
        Accepted { event_id: Uuid::from_u128(id), repeated }
    }

    /// Runs a flush against a database that refuses some rows.
    fn run(mut flush: Flush, refuses: impl Fn(u128) -> bool) -> (Vec<Outcome>, Vec<u128>) {
        let mut table = Vec::new();
        while let Some((write, rows)) = flush.next() {
            let ids: Vec<u128> = rows.iter().map(|i| flush.entry(*i).event_id.as_u128()).collect();
            if ids.iter().any(|id| refuses(*id)) {
                flush.split(write, "refused");
            } else {
                table.extend(ids);
                flush.settle(&write, &rows, &vec![Row::Stored; rows.len()]);
            }
        }
        (flush.finish(), table)
    }

    proptest! {
        #[test]
        fn a_refused_row_takes_only_its_own_batch_with_it(
            requests in prop::collection::vec((prop::collection::vec(any::<bool>(), 1..6), any::<bool>()), 1..12)
        ) {
            let mut bad = Vec::new();
            let mut expected = Vec::new();
            let mut entries = Vec::new();
            for (rows, together) in &requests {
                let first = bad.len();
                bad.extend(rows.iter().copied());
                entries.push(((first..bad.len()).map(|i| entry(i as u128, None)).collect(), *together));
                let fails = rows.iter().any(|b| *b);
                expected.extend(rows.iter().map(|b| if *together { fails } else { *b }));
            }
            let (outcomes, table) = run(Flush::new(entries.into_iter()), |id| bad[usize::try_from(id).expect("small")]);
            prop_assert_eq!(outcomes.iter().map(Result::is_err).collect::<Vec<_>>(), expected.clone());
            let kept: Vec<u128> = (0u128..).zip(expected).filter(|(_, e)| !e).map(|(i, _)| i).collect();
            prop_assert_eq!(table, kept, "each row once, in the order of arrival");
        }
    }

    #[test]
    fn a_repetition_within_a_flush_is_answered_as_the_first_and_another_body_is_refused() {
        let entries =
            vec![entry(1, Some(("k", 1))), entry(2, Some(("k", 1))), entry(3, Some(("k", 2))), entry(4, None)];
        let (outcomes, table) = run(Flush::new([(entries, false)].into_iter()), |_| false);
        assert_eq!(outcomes[0], Ok(stored(1, false)));
        assert_eq!(outcomes[1], Ok(stored(1, true)));
        assert!(matches!(outcomes[2], Err(RefusedBy::KeyReused(_))));
        assert_eq!(outcomes[3], Ok(stored(4, false)));
        assert_eq!(table, [1, 4]);
    }

    #[test]
    fn a_known_key_of_another_request_refuses_the_whole_all_or_nothing_batch() {
        let entries = vec![entry(1, Some(("k", 1))), entry(2, Some(("l", 1)))];
        let mut flush = Flush::new([(entries, true)].into_iter());
        let (write, rows) = flush.next().expect("one write");
        assert!(write.transaction);
        flush.settle(&write, &rows, &[Row::Stored, Row::OtherRequest]);
        assert!(flush.next().is_none());
        let outcomes = flush.finish();
        assert_eq!(outcomes[0], Err(RefusedBy::WithBatch));
        assert!(matches!(outcomes[1], Err(RefusedBy::KeyReused(_))));
    }

    #[test]
    fn a_key_that_expired_meanwhile_is_written_again() {
        let mut flush = Flush::new([(vec![entry(1, Some(("k", 1))), entry(2, None)], false)].into_iter());
        let (write, rows) = flush.next().expect("one write");
        flush.settle(&write, &rows, &[Row::Gone, Row::Stored]);
        let (write, rows) = flush.next().expect("the first again");
        assert_eq!(rows, [0]);
        flush.settle(&write, &rows, &[Row::Before(Uuid::from_u128(9))]);
        assert_eq!(flush.finish(), [Ok(stored(9, true)), Ok(stored(2, false))]);
    }
}
