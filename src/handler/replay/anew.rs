//! Rows folded anew with the events of letters: which rows, from where to where, and what becomes of the letters.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::history::at;
use super::made::Made;
use super::refold::Refold;
use super::{Replays, Served, store};
use crate::bus::embedded::store as event_store;
use crate::dead_letters::EVENT_HANDLER;
use crate::dead_letters::replay::{Done, Pass, Requested, store as letters};
use crate::event::{SHARDS, Shard, shard_of};
use crate::handler::expire;
use crate::projection::store::{self as rows, Target};
use crate::projection::{Row, RowKey};

/// How many times as many letters begin a pass that reads all events of the projection's sources.
const PER_SCAN: i64 = 5;

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
        let Some(begins) = served.begins_after() else {
            let why = "where the projection began (startFrom: Latest) was not noted by the release that began it";
            return self.out_of_place(connection, served, None, why).await;
        };
        let lost = self.lost(&begins, &shards).await?;
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
        let found = letters::requested(connection, EVENT_HANDLER, name, None, self.pace.events() * PER_SCAN).await?;
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
        self.pace.done();
        self.pace.weighed(keys.len(), before.state_bytes);
        let bounds = self.bounds(connection, served, &task, &now, &before.rows).await?;
        self.read(connection, served, &mut refold, &handled, &|key, shard| bounds.of(key, shard)).await?;
        let went_in: Vec<Uuid> = refold.rows.values().flat_map(|anew| anew.went_in.iter().copied()).collect();
        // What was lost while it was read, or discarded, is seen by the next pass.
        if !self.lost(&begins, shards).await?.is_empty() || !letters::lock(connection, &went_in).await? {
            return Ok(None);
        }
        let accepted: HashMap<String, DateTime<Utc>> =
            refold.rows.iter().filter_map(|(key, anew)| Some((key.clone(), anew.accepted?))).collect();
        let (mended, refused, mut pass) = self.settle(connection, served, task, refold).await?;
        let mended: Vec<(RowKey, Row)> =
            mended.into_iter().map(|(key, row)| (key.clone(), not_behind(row, before.rows.get(&key)))).collect();
        write(connection, served, &mended, &accepted).await?;
        for (lane, why) in refused {
            let Some(late) = self.out_of_place(connection, served, Some(&[lane]), &why).await? else { return Ok(None) };
            pass = pass.and(late);
        }
        Ok(Some(pass))
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

    /// Marks what became of the letters; returns the rows to be written, the aggregates whose rows are refused and why, and
    /// what was done.
    async fn settle(
        &self,
        connection: &mut PgConnection,
        served: &Served,
        task: Task,
        refold: Refold<'_>,
    ) -> Result<(Vec<(RowKey, Row)>, Vec<(String, String)>, Pass), sqlx::Error> {
        let Task { mut done, found, .. } = task;
        for failed in refold.failed {
            done.failed_in((Some(served.name().to_owned()), failed.lane), failed.dlq_id, cause(served, &failed.cause));
        }
        let made = Made::of(refold.rows, served.program().has_own_key());
        for dlq_id in made.went_in {
            done.replayed(dlq_id, None);
        }
        let mut pass = done.mark(connection, EVENT_HANDLER, Some(&served.hash)).await?;
        let refused: Vec<(Uuid, String)> = made.failed.iter().map(|(id, why)| (*id, cause(served, why))).collect();
        pass.failed += letters::failed(connection, &refused, Some(&served.hash)).await?;
        let why = cause(served, "the event is not in the event store, from which the row would be folded anew");
        if !served.program().has_own_key() {
            let lanes: Vec<(String, String)> = made.unmet.into_iter().map(|lane| (lane, why.clone())).collect();
            pass.failed += letters::failed_lanes(connection, EVENT_HANDLER, served.name(), &lanes).await?;
        } else if pass == Pass::default() {
            let unmet: Vec<(Uuid, String)> = found.iter().map(|letter| (letter.dlq_id, why.clone())).collect();
            pass.failed += letters::failed(connection, &unmet, None).await?;
        }
        Ok((made.mended, made.refused, pass))
    }
}

/// Writes rows; those of a projection with a retention are dated by their last event, as when they are built anew.
async fn write<'m>(
    connection: &mut PgConnection,
    served: &Served,
    mended: &'m [(RowKey, Row)],
    accepted: &HashMap<String, DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    let subjects = std::slice::from_ref(&served.subject);
    let rows: Vec<(&RowKey, &Row)> = mended.iter().map(|(key, row)| (key, row)).collect();
    rows::write_anew(connection, subjects, &rows).await?;
    if served.progress.live_spec.as_ref().is_some_and(|spec| spec.retention_seconds.is_some()) {
        let date = |((_, key), _): &'m (RowKey, Row)| Some((key.as_str(), *accepted.get(key)?));
        let dates: Vec<(&str, DateTime<Utc>)> = mended.iter().filter_map(date).collect();
        expire::date(connection, Target::Live, served.name(), &dates).await?;
    }
    Ok(())
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

fn cause(served: &Served, why: &str) -> String {
    format!("projection {}: {why}", served.name())
}

fn not_behind(row: Row, before: Option<&Row>) -> Row {
    match before {
        Some(before) => row.not_behind(before),
        None => row,
    }
}
