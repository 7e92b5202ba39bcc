//! Reads what rows are made of from the event store.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::refold::{Placed, Refold};
use super::store::{self, Stretch};
use super::{Replays, Served};
use crate::bus::Wanted;
use crate::bus::embedded::store as event_store;
use crate::database::within;
use crate::dead_letters::EVENT_HANDLER;
use crate::dead_letters::replay::store as letters;
use crate::event::{SHARDS, Shard, StoredEvent, shard_of};
use crate::handler::catch_up::advance;

/// Events that are read together, of all aggregates or shards.
const EVENTS: usize = 4_096;
/// How long a page may take.
const PAGE: Duration = Duration::from_mins(1);

impl Replays {
    /// Reads the rows' events above the positions given, up to a bound, and folds them.
    pub(super) async fn read(
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
            let read = store::of_aggregates(&self.ingestion, &left, types, each);
            let page = within(PAGE, read).await?;
            self.take(connection, served, refold, &page.events, through).await?;
            left = rest(left, &page.events, page.cut, each);
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
            let page = within(PAGE, event_store::read(&self.ingestion, &from, each, &wanted)).await?;
            self.take(connection, served, refold, &page.events, through).await?;
            advance(&mut cursors, &page, &ends, each);
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
        let due = |placed: &&Placed<'_>| placed.event().position <= through(placed.key(), placed.event().shard);
        let placed: Vec<&Placed<'_>> = placed.iter().filter(due).collect();
        let ids: Vec<Uuid> = placed.iter().map(|placed| placed.event().event_id).collect();
        // Also where there is nothing to be asked: a transaction that says nothing for long is ended.
        let marked = within(PAGE, letters::about(connection, EVENT_HANDLER, served.name(), &ids)).await?;
        let marked: HashMap<Uuid, letters::Marked> =
            marked.into_iter().map(|letter| (letter.event_id, letter)).collect();
        for placed in placed {
            refold.take(placed, &marked);
        }
        Ok(())
    }
}

/// The position of a shard.
pub(super) fn at(positions: &[i64], shard: Shard) -> i64 {
    usize::try_from(shard).ok().and_then(|at| positions.get(at)).copied().unwrap_or(0)
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
