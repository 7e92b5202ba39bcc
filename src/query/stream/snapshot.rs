//! What a reader of the projections has seen, as a set of transactions.
//!
//! Every row names the transaction that last wrote it. Transactions commit in another order than their numbers, so
//! "greater than the last number seen" would miss rows. [`Seen`] is exact instead: all transactions below `through`
//! count as seen, except those named as open (they had not committed when their neighbours were read) and those of
//! which only the rows up to a key were delivered. A row is due exactly when its transaction is not in the set.
//!
//! Which rows a transaction wrote is in a log that is kept for some minutes. A reader who was away for longer
//! [`Scan`]s the rows instead, in the order of their keys, for those that are due.

use serde::{Deserialize, Serialize};

/// A transaction's number (`xid8`).
pub type Xid = u64;

/// `pg_current_snapshot()`: which transactions a statement could see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// All transactions from here on were not yet visible.
    pub xmax: Xid,
    /// Those below `xmax` that were still running.
    pub in_progress: Vec<Xid>,
}

impl Snapshot {
    /// Reads PostgreSQL's text form, `xmin:xmax:xip,xip,…`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let _xmin: Xid = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let running = parts.next()?;
        let in_progress =
            running.split(',').filter(|x| !x.is_empty()).map(|x| x.parse().ok()).collect::<Option<_>>()?;
        Some(Self { xmax, in_progress })
    }
}

impl Snapshot {
    /// All transactions that were visible.
    pub fn seen(&self) -> Seen {
        Seen { through: self.xmax, open: self.in_progress.clone(), partial: Vec::new() }
    }
}

/// The transactions whose rows a reader has had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Transactions below this number are seen, except the following. From it on, none is.
    pub through: Xid,
    /// Below `through`, and not seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Xid>,
    /// Below `through`, and seen only in the rows whose key is not above the one named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<(Xid, String)>,
}

impl Seen {
    /// The set after a reader had all due rows of a statement, in order of (transaction, key), up to a row of
    /// transaction `to`. `key` is that row's key where more rows of the transaction may follow, else `None`.
    #[must_use]
    pub fn advance(&self, now: &Snapshot, to: Xid, key: Option<&str>) -> Self {
        let still_open = |x: &Xid| *x != to && (*x > to || now.in_progress.contains(x));
        let became_open = now.in_progress.iter().filter(|x| self.through <= **x && **x < to);
        let mut open: Vec<Xid> = self.open.iter().filter(|x| still_open(x)).chain(became_open).copied().collect();
        open.sort_unstable();
        let mut partial: Vec<(Xid, String)> = self.partial.iter().filter(|(x, _)| *x > to).cloned().collect();
        partial.extend(key.map(|key| (to, key.to_owned())));
        Self { through: self.through.max(to + 1), open, partial }
    }

    /// Whether the log no longer tells what is due: transactions up to `forgotten` may be missing in it. Those still
    /// running `now` are not: they have not written to it yet.
    pub fn predates(&self, forgotten: Option<Xid>, now: &Snapshot) -> bool {
        forgotten.is_some_and(|forgotten| {
            self.through <= forgotten
                || self.partial.iter().any(|(x, _)| *x <= forgotten)
                || self.open.iter().any(|x| *x <= forgotten && !now.in_progress.contains(x))
        })
    }
}

/// A pass over all rows of a projection, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// What could be seen when it began. Rows written later are left to the log.
    pub until: Seen,
    /// The last key looked at; empty at the beginning.
    pub after: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    impl Seen {
        /// Whether a row with this key, last written by this transaction, was had.
        fn contains(&self, xid: Xid, key: &str) -> bool {
            let delivered = |(x, upto): &(Xid, String)| *x != xid || key <= upto.as_str();
            xid < self.through && !self.open.contains(&xid) && self.partial.iter().all(delivered)
        }
    }

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).unwrap()
    }

    #[test]
    fn reads_the_text_form() {
        assert_eq!(snapshot("10:20:10,14"), Snapshot { xmax: 20, in_progress: vec![10, 14] });
        assert_eq!(snapshot("10:10:"), Snapshot { xmax: 10, in_progress: vec![] });
        for broken in ["", "1:2", "a:2:", "1:b:", "1:2:x", "1:2:3,,x"] {
            assert_eq!(Snapshot::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_late_commit_is_due_though_higher_numbers_were_seen() {
        let seen = Seen::default().advance(&snapshot("100:112:100,105"), 111, None);
        assert!(seen.contains(104, "a") && seen.contains(111, "a"));
        assert!(!seen.contains(100, "a") && !seen.contains(105, "a") && !seen.contains(112, "a"));
        let seen = seen.advance(&snapshot("105:120:105"), 100, Some("k"));
        assert!(seen.contains(100, "k") && !seen.contains(100, "l") && !seen.contains(105, "a"));
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Begin a transaction that will write these keys.
        Begin(Vec<u8>),
        /// Commit the n-th of those that run.
        Commit(usize),
        /// Read a page of about n rows, of which the reader acknowledges m before it breaks off.
        Read(usize, usize),
        /// Forget all of the log but its last n entries.
        Forget(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            proptest::collection::vec(0u8..8, 1..5).prop_map(Step::Begin),
            (0usize..6).prop_map(Step::Commit),
            (1usize..4, 0usize..6).prop_map(|(page, taken)| Step::Read(page, taken)),
            (0usize..4).prop_map(Step::Forget),
        ];
        proptest::collection::vec(step, 1..80)
    }

    /// A table of rows with the transaction that last wrote each, and the log, as PostgreSQL would keep them.
    #[derive(Default)]
    struct Model {
        next: Xid,
        running: Vec<(Xid, Vec<u8>)>,
        rows: BTreeMap<String, Xid>,
        log: BTreeMap<Xid, Vec<String>>,
        forgotten: Option<Xid>,
        seen: Seen,
        scan: Option<Scan>,
        had: Vec<(String, Xid)>,
    }

    impl Model {
        fn commit(&mut self, n: usize) {
            if self.running.is_empty() {
                return;
            }
            let (xid, keys) = self.running.remove(n % self.running.len());
            // Row locks: a key that a running transaction writes is written by no other.
            for key in &keys {
                self.rows.insert(key.to_string(), xid);
            }
            self.log.insert(xid, keys.iter().map(u8::to_string).collect());
        }

        fn begin(&mut self, mut keys: Vec<u8>) {
            keys.sort_unstable();
            keys.dedup();
            keys.retain(|k| self.running.iter().all(|(_, held)| !held.contains(k)));
            self.running.push((self.next, keys));
            self.next += 1;
        }

        /// Drops all of the log but its last entries.
        fn forget(&mut self, kept: usize) {
            for _ in kept..self.log.len() {
                let (xid, _) = self.log.pop_first().expect("counted");
                self.forgotten = self.forgotten.max(Some(xid));
            }
        }

        fn now(&self) -> Snapshot {
            Snapshot { xmax: self.next, in_progress: self.running.iter().map(|r| r.0).collect() }
        }

        fn read(&mut self, page: usize, taken: usize) {
            let now = self.now();
            match self.scan.clone() {
                Some(scan) => self.read_rows(scan, page, taken),
                None if self.seen.predates(self.forgotten, &now) => {
                    self.scan = Some(Scan { until: now.seen(), after: String::new() });
                }
                None => self.read_log(&now, page, taken),
            }
        }

        fn read_log(&mut self, now: &Snapshot, page: usize, taken: usize) {
            let (mut due, mut last): (Vec<(Xid, String)>, _) = (Vec::new(), None);
            for (xid, keys) in &self.log {
                let newest = keys.iter().filter(|key| self.rows[*key] == *xid && !self.seen.contains(*xid, key));
                if due.len() >= page {
                    break;
                }
                due.extend(newest.map(|key| (*xid, key.clone())));
                last = Some(*xid);
            }
            let complete = last == self.log.last_key_value().map(|(xid, _)| *xid);
            for (i, (xid, key)) in due.iter().enumerate().take(taken) {
                let more = due.get(i + 1).is_some_and(|next| next.0 == *xid);
                self.seen = self.seen.advance(now, *xid, more.then_some(key));
                self.had.push((key.clone(), *xid));
            }
            if taken >= due.len() {
                self.seen = match last {
                    Some(last) if !complete => self.seen.advance(now, last, None),
                    _ => now.seen(),
                };
            }
        }

        fn read_rows(&mut self, mut scan: Scan, page: usize, taken: usize) {
            let rows: Vec<_> =
                self.rows.iter().filter(|row| *row.0 > scan.after).take(page).map(|(k, x)| (k.clone(), *x)).collect();
            for (key, xid) in rows.iter().take(taken) {
                if !self.seen.contains(*xid, key) && scan.until.contains(*xid, key) {
                    self.had.push((key.clone(), *xid));
                }
                scan.after.clone_from(key);
            }
            if rows.len() < page && taken >= rows.len() {
                self.seen = scan.until;
                self.scan = None;
            } else {
                self.scan = Some(scan);
            }
        }
    }

    proptest! {
        #[test]
        fn no_state_is_missed_and_none_is_had_twice(steps in steps()) {
            let mut model = Model { next: 3, ..Model::default() };
            for step in steps {
                match step {
                    Step::Begin(keys) => model.begin(keys),
                    Step::Commit(n) => model.commit(n),
                    Step::Read(page, taken) => model.read(page, taken),
                    Step::Forget(kept) => model.forget(kept),
                }
            }
            while !model.running.is_empty() {
                model.commit(0);
            }
            for _ in 0..100 {
                model.read(2, 10);
            }
            let mut once = model.had.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(once.len(), model.had.len(), "a state was had twice");
            for (key, xid) in &model.rows {
                let last = model.had.iter().rev().find(|(k, _)| k == key).map(|h| h.1);
                prop_assert_eq!(last, Some(*xid), "the newest state of {} was missed", key);
            }
            prop_assert!(model.seen.open.is_empty() && model.seen.partial.is_empty());
        }
    }
}
