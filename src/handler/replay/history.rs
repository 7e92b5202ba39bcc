//! Folds rows anew from the event store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::refold::{Anew, Placed, Refold};
use super::store::{self, Stretch};
use super::{Replays, Served};
use crate::bus::Wanted;
use crate::bus::embedded::store as event_store;
use crate::dead_letters::EVENT_HANDLER;
use crate::dead_letters::replay::{Done, Pass, Requested, store as letters};
use crate::event::{SHARDS, Shard, StoredEvent, shard_of};
use crate::projection::store::{self as rows, Target};
use crate::projection::{Row, RowKey};

/// Events that are read together, of all aggregates or shards.
const EVENTS: usize = 4_096;

/// Which rows are made, and what is known of their letters.
struct Task {
    keys: BTreeSet<String>,
    blocked: HashSet<String>,
    done: Done,
    /// Letters that were read to find the keys.
    found: Vec<Requested>,
    /// The last positions of their events, by key and shard.
    last: HashMap<(String, Shard), i64>,
}

impl Replays {
    /// Folds rows anew with the events of letters. `None`: not now.
    pub(super) async fn refold(
        &mut self,
        connection: &mut PgConnection,
        served: &Served,
    ) -> Result<Option<Pass>, sqlx::Error> {
        let own_key = served.program().has_own_key();
        let task =
            if own_key { self.by_key(connection, served).await? } else { self.by_lane(connection, served).await? };
        let shards: BTreeSet<Shard> =
            if own_key { (0..).take(SHARDS).collect() } else { task.keys.iter().map(|key| shard_of(key)).collect() };
        let lost = match served.begins_after() {
            Some(begins) => self.lost(&begins, &shards).await?,
            None => {
                let why = "where the projection began (startFrom: Latest) was not noted by the release that began it";
                return self.out_of_place(connection, served, None, why).await;
            }
        };
        if !lost.is_empty() {
            let gone: Vec<String> = task.keys.iter().filter(|key| lost.contains(&shard_of(key))).cloned().collect();
            let why =
                "the event store no longer holds all events since the projection began (retention has dropped some)";
            return self.out_of_place(connection, served, (!own_key).then_some(&gone[..]), why).await;
        }
        self.fold_anew(connection, served, task, &shards).await
    }

    /// Letters whose events cannot be put in their place: those of these lanes, or all.
    async fn out_of_place(
        &mut self,
        connection: &mut PgConnection,
        served: &Served,
        lanes: Option<&[String]>,
        why: &str,
    ) -> Result<Option<Pass>, sqlx::Error> {
        let cause = format!(
            "projection {}: the row cannot be folded anew: {why}; the event can be applied last instead, if the replay is \
             asked for with append",
            served.name()
        );
        self.late(connection, served, lanes, Some(&cause)).await
    }

    /// The rows of the aggregates whose letters come first.
    async fn by_lane(&self, connection: &mut PgConnection, served: &Served) -> Result<Task, sqlx::Error> {
        let lanes = letters::lanes(connection, EVENT_HANDLER, served.name(), self.pace.events()).await?;
        let keys = lanes.into_iter().collect();
        Ok(Task { keys, blocked: HashSet::new(), done: Done::default(), found: Vec::new(), last: HashMap::new() })
    }

    /// The rows that the letters which come first belong to.
    async fn by_key(&self, connection: &mut PgConnection, served: &Served) -> Result<Task, sqlx::Error> {
        let name = Some(served.name());
        let found = letters::requested(connection, EVENT_HANDLER, name, None, self.pace.events()).await?;
        let (mut keys, mut blocked, mut done) = (BTreeSet::new(), HashSet::new(), Done::default());
        let mut last = HashMap::new();
        for letter in &found {
            if done.blocks(letter) {
                continue;
            }
            match super::late::event(letter, &HashMap::new()).map(|event| served.program().key(&event)) {
                Ok(Ok(Some(key))) => {
                    let place = (key.clone(), letter.shard.unwrap_or_else(|| shard_of(&letter.lane_name)));
                    // They are in the order of their positions.
                    last.insert(place, letter.position.unwrap_or(0));
                    keys.insert(key);
                }
                Ok(Ok(None)) => {
                    done.replayed(letter.dlq_id, Some("the projection's filter leaves it out".to_owned()));
                }
                Ok(Err(error)) => {
                    blocked.insert(letter.lane_name.clone());
                    done.failed(letter, format!("projection {}: {error}", served.name()));
                }
                Err(cause) => {
                    blocked.insert(letter.lane_name.clone());
                    done.failed(letter, cause);
                }
            }
        }
        Ok(Task { keys, blocked, done, found, last })
    }

    /// Shards of which events since the rows began are gone.
    async fn lost(&self, begins: &[i64], shards: &BTreeSet<Shard>) -> Result<Vec<Shard>, sqlx::Error> {
        let heads = event_store::heads(&self.ingestion).await?;
        let after: Vec<(Shard, i64)> =
            shards.iter().map(|shard| (*shard, at(begins, *shard))).filter(|(s, p)| at(&heads, *s) > *p).collect();
        store::lost(&self.ingestion, &after).await
    }

    async fn fold_anew(
        &mut self,
        connection: &mut PgConnection,
        served: &Served,
        task: Task,
        shards: &BTreeSet<Shard>,
    ) -> Result<Option<Pass>, sqlx::Error> {
        let begins = served.begins_after().unwrap_or_else(|| vec![0; SHARDS]);
        let handled = self.handled(&served.progress, served.place).await?;
        let mut refold = Refold::new(served.program(), task.keys.iter().cloned(), task.blocked.clone());
        // While batches go on: this part of the history does not change.
        let through = |_: &str, shard: Shard| at(&handled, shard);
        self.read(connection, served, &mut refold, &begins, &through).await?;
        let Some(now) = self.keep_out_others(connection, served).await? else { return Ok(None) };
        let keys: Vec<RowKey> = task.keys.iter().map(|key| (0, key.clone())).collect();
        let subjects = std::slice::from_ref(&served.subject);
        let before = rows::load(connection, Target::Live, subjects, &keys.iter().collect::<Vec<_>>()).await?;
        self.pace.weighed(keys.len(), before.state_bytes);
        let bounds = self.bounds(connection, served, &task, &now, &before.rows).await?;
        self.read(connection, served, &mut refold, &handled, &|key, shard| bounds.of(key, shard)).await?;
        let went_in: Vec<Uuid> = refold.rows.values().flat_map(|anew| anew.went_in.iter().copied()).collect();
        // What was lost while it was read, or discarded, is seen by the next pass.
        if !self.lost(&begins, shards).await?.is_empty() || !letters::lock(connection, &went_in).await? {
            return Ok(None);
        }
        let (mended, failed) = self.settle(connection, served, task, refold).await?;
        let written: Vec<(RowKey, Row)> =
            mended.into_iter().map(|(key, row)| (key.clone(), not_behind(row, before.rows.get(&key)))).collect();
        rows::write_anew(connection, subjects, &written.iter().map(|(key, row)| (key, row)).collect::<Vec<_>>())
            .await?;
        Ok(Some(failed))
    }

    /// How far each row is folded: what it has, what has letters, and what is handled anyway.
    async fn bounds(
        &self,
        connection: &mut PgConnection,
        served: &Served,
        task: &Task,
        handled: &[i64],
        before: &HashMap<RowKey, Row>,
    ) -> Result<Bounds, sqlx::Error> {
        let mut rows = task.last.clone();
        for ((_, key), row) in before {
            for (shard, position) in row.all_positions() {
                let known = rows.entry((key.clone(), shard)).or_insert(position);
                *known = (*known).max(position);
            }
        }
        if !served.program().has_own_key() {
            let lanes: Vec<String> = task.keys.iter().cloned().collect();
            for (lane, position) in store::last_letters(connection, served.name(), &lanes).await? {
                let shard = shard_of(&lane);
                let known = rows.entry((lane, shard)).or_insert(position);
                *known = (*known).max(position);
            }
        }
        Ok(Bounds { handled: handled.to_vec(), rows })
    }

    /// Marks what became of the letters; returns the rows to be written, and what was done.
    async fn settle(
        &self,
        connection: &mut PgConnection,
        served: &Served,
        task: Task,
        refold: Refold<'_>,
    ) -> Result<(Vec<(RowKey, Row)>, Pass), sqlx::Error> {
        let Task { mut done, found, .. } = task;
        let (mut mended, mut refused, mut unmet) = (Vec::new(), Vec::new(), Vec::new());
        let progress = refold.rows.values().any(|anew| !anew.asked.is_empty());
        for failed in refold.failed {
            done.failed_in((Some(served.name().to_owned()), failed.lane), failed.dlq_id, cause(served, &failed.cause));
        }
        for (key, Anew { row, asked, went_in, refused: why }) in refold.rows {
            match why {
                Some(why) => refused.extend(asked.into_iter().map(|dlq_id| (dlq_id, cause(served, &why)))),
                None if asked.is_empty() => unmet.push(key),
                None => {
                    mended.extend(row.filter(|_| !went_in.is_empty()).map(|row| ((0, key), row)));
                    went_in.into_iter().for_each(|dlq_id| done.replayed(dlq_id, None));
                }
            }
        }
        let mut pass = done.mark(connection, EVENT_HANDLER, Some(&served.hash)).await?;
        pass.failed += letters::failed(connection, &refused, Some(&served.hash)).await?;
        let why = cause(served, "the event is not in the event store, from which the row would be folded anew");
        if !served.program().has_own_key() {
            let lanes: Vec<(String, String)> = unmet.into_iter().map(|lane| (lane, why.clone())).collect();
            pass.failed += letters::failed_lanes(connection, EVENT_HANDLER, served.name(), &lanes).await?;
        } else if !progress && pass == Pass::default() {
            let unmet: Vec<(Uuid, String)> = found.iter().map(|letter| (letter.dlq_id, why.clone())).collect();
            pass.failed += letters::failed(connection, &unmet, None).await?;
        }
        Ok((mended, pass))
    }

    /// Reads the rows' events above the positions given, up to a bound, and folds them.
    async fn read(
        &self,
        connection: &mut PgConnection,
        served: &Served,
        refold: &mut Refold<'_>,
        above: &[i64],
        through: &(impl Fn(&str, Shard) -> i64 + Sync),
    ) -> Result<(), sqlx::Error> {
        if served.program().has_own_key() {
            self.scan(connection, served, refold, above, through).await
        } else {
            self.read_lanes(connection, served, refold, above, through).await
        }
    }

    /// Of rows whose keys are aggregates: their own events only.
    async fn read_lanes(
        &self,
        connection: &mut PgConnection,
        served: &Served,
        refold: &mut Refold<'_>,
        above: &[i64],
        through: &(impl Fn(&str, Shard) -> i64 + Sync),
    ) -> Result<(), sqlx::Error> {
        let source = served.program().source();
        let stretch = |key: &String| {
            let shard = shard_of(key);
            Stretch { aggregate_id: key.clone(), after: at(above, shard), through: through(key, shard) }
        };
        let mut left: Vec<Stretch> = refold.rows.keys().map(stretch).collect();
        left.retain(|stretch| stretch.after < stretch.through);
        while !left.is_empty() {
            let each = i64::try_from((EVENTS / left.len()).max(1)).unwrap_or(1);
            let types = (&source.event_types[..], &source.prefixes[..]);
            let (events, cut) = store::of_aggregates(&self.ingestion, &left, types, each).await?;
            self.take(connection, served, refold, &events, through).await?;
            left = rest(left, &events, cut, each);
        }
        Ok(())
    }

    /// Of rows with a key of their own: all events of the projection's sources are looked at.
    async fn scan(
        &self,
        connection: &mut PgConnection,
        served: &Served,
        refold: &mut Refold<'_>,
        above: &[i64],
        through: &(impl Fn(&str, Shard) -> i64 + Sync),
    ) -> Result<(), sqlx::Error> {
        let source = served.program().source();
        let wanted = Wanted { event_types: source.event_types.clone(), prefixes: source.prefixes.clone() };
        let last = |shard| refold.rows.keys().map(|key| through(key, shard)).max().unwrap_or(0);
        let ends: Vec<i64> = (0..).take(SHARDS).map(last).collect();
        let mut cursors = above.to_vec();
        let each = i64::try_from(EVENTS / SHARDS).unwrap_or(1);
        loop {
            let open = |(shard, cursor): (Shard, i64)| (cursor < at(&ends, shard)).then_some((shard, cursor));
            let from: Vec<(Shard, i64)> = (0..).zip(cursors.iter().copied()).filter_map(open).collect();
            if from.is_empty() {
                return Ok(());
            }
            let page = event_store::read(&self.ingestion, &from, each, &wanted).await?;
            self.take(connection, served, refold, &page.events, through).await?;
            super::super::catch_up::advance(&mut cursors, &page, &ends, each);
            for (cursor, end) in cursors.iter_mut().zip(&ends) {
                *cursor = (*cursor).min(*end);
            }
        }
    }

    async fn take(
        &self,
        connection: &mut PgConnection,
        served: &Served,
        refold: &mut Refold<'_>,
        events: &[StoredEvent],
        through: &(impl Fn(&str, Shard) -> i64 + Sync),
    ) -> Result<(), sqlx::Error> {
        let reads = |event: &&StoredEvent| served.program().reads(&event.event_type);
        let placed: Vec<Placed<'_>> = events.iter().filter(reads).filter_map(|event| refold.place(event)).collect();
        let within = |placed: &&Placed<'_>| placed.event().position <= through(placed.key(), placed.event().shard);
        let placed: Vec<&Placed<'_>> = placed.iter().filter(within).collect();
        let ids: Vec<Uuid> = placed.iter().map(|placed| placed.event().event_id).collect();
        // Also where there is nothing to be asked: a transaction that says nothing for long is ended.
        let marked = letters::about(connection, EVENT_HANDLER, served.name(), &ids).await?;
        let marked: HashMap<Uuid, letters::Marked> =
            marked.into_iter().map(|letter| (letter.event_id, letter)).collect();
        for placed in placed {
            refold.take(placed, &marked);
        }
        Ok(())
    }
}

/// Positions up to which rows are folded.
struct Bounds {
    handled: Vec<i64>,
    rows: HashMap<(String, Shard), i64>,
}

impl Bounds {
    fn of(&self, key: &str, shard: Shard) -> i64 {
        let row = self.rows.get(&(key.to_owned(), shard)).copied().unwrap_or(0);
        row.max(at(&self.handled, shard))
    }
}

fn at(positions: &[i64], shard: Shard) -> i64 {
    usize::try_from(shard).ok().and_then(|at| positions.get(at)).copied().unwrap_or(0)
}

fn cause(served: &Served, why: &str) -> String {
    format!("projection {}: {why}", served.name())
}

fn not_behind(row: Row, before: Option<&Row>) -> Row {
    match before {
        Some(before) => row.not_behind(before),
        None => row,
    }
}

/// What is left to be read after a page.
fn rest(stretches: Vec<Stretch>, events: &[StoredEvent], cut: bool, each: i64) -> Vec<Stretch> {
    let mut read: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for event in events {
        let (count, last) = read.entry(&event.aggregate_id).or_default();
        (*count, *last) = (*count + 1, event.position);
    }
    // Of the one that it was cut in, and those behind it, there may be more.
    let cut_in = events.last().filter(|_| cut).map(|event| event.aggregate_id.as_str());
    let mut reached = true;
    let mut left = Vec::new();
    for stretch in stretches {
        reached &= cut_in != Some(stretch.aggregate_id.as_str());
        let (count, last) = read.get(stretch.aggregate_id.as_str()).copied().unwrap_or((0, stretch.after));
        if count >= each || !reached {
            left.push(Stretch { after: last, ..stretch });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn event(aggregate: &str, position: i64) -> StoredEvent {
        StoredEvent {
            shard: shard_of(aggregate),
            position,
            event_id: Uuid::nil(),
            event_type: "t".to_owned(),
            aggregate_id: aggregate.to_owned(),
            timestamp: chrono::DateTime::UNIX_EPOCH,
            payload: Value::Null,
            metadata: Value::Null,
            ingested_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn stretches() -> Vec<Stretch> {
        ["a", "b", "c"].map(|key| Stretch { aggregate_id: key.to_owned(), after: 1, through: 9 }).into()
    }

    fn left(events: &[StoredEvent], cut: bool) -> Vec<(String, i64)> {
        rest(stretches(), events, cut, 2).into_iter().map(|left| (left.aggregate_id, left.after)).collect()
    }

    #[test]
    fn an_aggregate_is_read_on_where_as_much_came_as_was_asked_for() {
        let events = [event("a", 3), event("a", 5), event("b", 2)];
        assert_eq!(left(&events, false), [("a".to_owned(), 5)]);
        assert_eq!(left(&[], false), []);
    }

    #[test]
    fn nothing_behind_a_cut_counts_as_read() {
        let events = [event("a", 3), event("b", 2)];
        assert_eq!(left(&events, true), [("b".to_owned(), 2), ("c".to_owned(), 1)]);
    }
}
