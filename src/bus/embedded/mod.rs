//! The embedded bus: the event store itself, read by one cursor per consumer group and shard.
//!
//! Positions are gap-free and become visible in order, so "everything above the cursor" misses nothing. Instances of a
//! group share the work by locking cursors with SKIP LOCKED; a cursor's lock lasts as long as the transaction that
//! carries the effects, so no event is folded twice.

pub mod store;

use std::collections::HashSet;
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, sleep_until};

use self::store::Cursors;
use super::reader::{BusError, Claim, Lane, Wanted};
use super::wake::Wake;
use crate::event::{Shard, ShardSet};
use crate::pace::Pace;

/// Most events of one claim. Large, so that a backlog makes batches larger and rows are written less often: with cleaning
/// up held back, the versions of a row are what makes it slow.
const BATCH: i64 = 16_000;

/// When a cursor that another instance held is looked at again.
const HELD_BY_ANOTHER: Duration = Duration::from_millis(50);

/// Reads the event store for a consumer group.
pub struct EmbeddedReader {
    cursors: Cursors,
    /// Holds the cursors and the effects.
    effects: PgPool,
    /// Holds the event store.
    ingestion: PgPool,
    wake: Wake,
    poll: Duration,
    next_poll: Instant,
    /// Shards that may have news.
    todo: ShardSet,
    /// Shards whose cursors another instance held: looked at again soon, since it may have read before their news came.
    held: ShardSet,
    /// Shards of the claim that is open, and those of them that may have more.
    open: ShardSet,
    more: ShardSet,
    /// Shards that the last claim did not come to, since others filled it: they are next.
    first: ShardSet,
    /// Those of the claim that is open.
    unreached: ShardSet,
    pub(super) pace: Pace,
}

impl EmbeddedReader {
    /// `poll`: how often all shards are looked at, whatever was notified.
    pub fn new(cursors: Cursors, effects: PgPool, ingestion: PgPool, wake: Wake, poll: Duration) -> Self {
        Self {
            cursors,
            effects,
            ingestion,
            wake,
            poll,
            next_poll: Instant::now(),
            todo: ShardSet::ALL,
            held: ShardSet::EMPTY,
            open: ShardSet::EMPTY,
            more: ShardSet::EMPTY,
            first: ShardSet::EMPTY,
            unreached: ShardSet::EMPTY,
            pace: Pace::new(BATCH),
        }
    }

    pub(super) async fn ready(&mut self, until: Instant, deferred: &HashSet<Lane>) {
        self.todo = self.todo.union(self.wake.take_now());
        if self.todo.without(shards(deferred)).is_empty() {
            let held_again = Instant::now() + HELD_BY_ANOTHER;
            let until = if self.held.is_empty() { until } else { until.min(held_again) };
            tokio::select! {
                shards = self.wake.take() => self.todo = self.todo.union(shards),
                () = sleep_until(until.min(self.next_poll)) => {}
            }
        }
        self.todo = self.todo.union(std::mem::take(&mut self.held));
        if Instant::now() >= self.next_poll {
            self.next_poll = Instant::now() + self.poll;
            self.todo = ShardSet::ALL;
        }
    }

    pub(super) async fn claim(&mut self, wanted: &Wanted, deferred: &HashSet<Lane>) -> Result<Option<Claim>, BusError> {
        let todo = self.todo.without(shards(deferred));
        let first = todo.both(self.first);
        let asked = if first.is_empty() { todo } else { first };
        if asked.is_empty() {
            return Ok(None);
        }
        let mut tx = self.cursors.begin(&self.effects).await?;
        let cursors = self.cursors.lock(&mut tx, asked).await?;
        let per_shard = (self.pace.events() / i64::try_from(cursors.len().max(1)).unwrap_or(1)).max(1);
        let page = store::read(&self.ingestion, &cursors, per_shard, wanted).await?;
        let mine: ShardSet = cursors.iter().map(|c| c.0).collect();
        self.open = asked;
        self.more = if page.cut { mine } else { full(&page.events, &cursors, per_shard) };
        self.unreached = page.unreached(mine);
        self.held = asked.without(mine);
        if page.cut {
            self.pace.cut_at(page.events.len());
        }
        let events = page.events;
        if events.is_empty() {
            tx.rollback().await?;
            self.committed();
            return Ok(None);
        }
        self.cursors.advance(&mut tx, &last_positions(&events)).await?;
        let lanes = events.iter().map(|e| Lane::try_from(e.shard).unwrap_or(0)).collect();
        Ok(Some(Claim { tx, events, lanes, topics: Vec::new(), late: Vec::new(), gap: false }))
    }

    pub(super) fn committed(&mut self) {
        self.todo = self.todo.without(self.open).union(self.more);
        self.first = self.unreached;
        self.pace.done();
        self.undone();
    }

    pub(super) fn failed(&mut self) {
        self.pace.failed();
        self.undone();
    }

    pub(super) fn undone(&mut self) {
        self.open = ShardSet::EMPTY;
        self.more = ShardSet::EMPTY;
        self.unreached = ShardSet::EMPTY;
    }
}

fn shards(lanes: &HashSet<Lane>) -> ShardSet {
    lanes.iter().filter_map(|lane| Shard::try_from(*lane).ok()).collect()
}

/// Shards of which as many events were read as were asked for.
fn full(events: &[crate::event::StoredEvent], cursors: &[(Shard, i64)], per_shard: i64) -> ShardSet {
    let count = |shard| events.iter().filter(|e| e.shard == shard).count();
    let limit = usize::try_from(per_shard).unwrap_or(usize::MAX);
    cursors.iter().map(|c| c.0).filter(|shard| count(*shard) >= limit).collect()
}

/// The last position of each shard among events that are in order.
pub fn last_positions(events: &[crate::event::StoredEvent]) -> Vec<(Shard, i64)> {
    let mut last = std::collections::BTreeMap::new();
    for event in events {
        last.insert(event.shard, event.position);
    }
    last.into_iter().collect()
}
