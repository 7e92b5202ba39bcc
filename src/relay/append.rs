//! The loop that moves events from the outbox to the event store.

use std::time::Duration;

use chrono::Utc;
use metrics::{counter, gauge, histogram};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::store::{self, Claim, Moved};
use super::{partitions, poison};
use crate::bus::wake::Wake;
use crate::database::{is_bad_data, is_outage, within};
use crate::event::{SHARDS, ShardSet};
use crate::operate::Gate;
use crate::pace::Pace;

/// A claim takes rows until they are as many bytes as this, as the outbox keeps them (compressed).
const MAX_CLAIM_BYTES: i64 = 32 * 1024 * 1024;
/// A claim that takes longer than this is given up; the database then rolls it back.
const CLAIM_DEADLINE: Duration = Duration::from_secs(35);
/// Finding the row that is refused takes a try for each of many.
const MEND_DEADLINE: Duration = Duration::from_mins(5);
/// Pauses after the first, second, … failure in a row.
const BACKOFF: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// A sweep walks over all that was deleted and not cleaned up yet, which is much while a transaction holds that back: it
/// is done again after this many times what it took, and not before the next poll.
const SWEEP_SHARE: u32 = 20;
/// When a shard that another relay held is looked at again.
const HELD_BY_ANOTHER: Duration = Duration::from_millis(20);

/// Moves events until stopped.
pub(super) struct Appender {
    pub pool: PgPool,
    /// Kafka: rows stay in the outbox, with their positions, until they are published.
    pub keep_for_publishing: bool,
    /// Most rows of one claim.
    pub pace: Pace,
    pub poll: Duration,
    pub outbox: Wake,
    pub event_store: Wake,
    pub publish: Wake,
    pub database: Gate,
    /// Whether this one looks at the whole outbox at every poll.
    pub sweeps: bool,
}

impl Appender {
    /// Runs until the token is cancelled; a claim under way is finished.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        let mut todo = ShardSet::ALL;
        let mut sweep = true;
        let mut failures = 0;
        let (mut next_poll, mut next_sweep) = (Instant::now() + self.poll, Instant::now() + self.poll);
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let claimed = self.claim(todo, sweep).await;
            if sweep {
                next_sweep = begun + self.poll.max(begun.elapsed() * SWEEP_SHARE);
            }
            match claimed {
                Ok(left) => {
                    failures = 0;
                    self.pace.done();
                    self.database.open();
                    todo = left.more;
                    if todo.is_empty() {
                        todo = self.news(left.held, next_poll, &stop).await;
                    } else {
                        todo = todo.union(left.held).union(self.outbox.take_now());
                    }
                }
                Err(e) => {
                    self.pace.failed();
                    self.failed(&e, &mut failures, &stop).await;
                    todo = ShardSet::ALL;
                }
            }
            let now = Instant::now();
            sweep = false;
            if now >= next_poll {
                next_poll = now + self.poll;
                sweep = self.sweeps && now >= next_sweep;
                todo = ShardSet::ALL;
            }
        }
        Ok(())
    }

    /// Waits for news, for a held shard to become free, or for the next poll.
    async fn news(&self, held: ShardSet, next_poll: Instant, stop: &CancellationToken) -> ShardSet {
        let held_again = async {
            if held.is_empty() {
                std::future::pending::<()>().await;
            }
            sleep(HELD_BY_ANOTHER).await;
        };
        tokio::select! {
            shards = self.outbox.take() => shards.union(held),
            () = held_again => held,
            () = tokio::time::sleep_until(next_poll) => ShardSet::ALL,
            () = stop.cancelled() => ShardSet::EMPTY,
        }
    }

    async fn claim(&self, shards: ShardSet, sweep: bool) -> Result<Left, sqlx::Error> {
        if shards.is_empty() {
            return Ok(Left::default());
        }
        let claim = Claim {
            shards,
            per_shard: share(self.pace.events(), shards),
            bytes_per_shard: share(MAX_CLAIM_BYTES, shards),
            sweep,
            keep: self.keep_for_publishing,
        };
        let begun = Instant::now();
        let moved = match within(CLAIM_DEADLINE, store::claim(&self.pool, claim)).await {
            Err(e) if is_bad_data(&e) => within(MEND_DEADLINE, self.mend(claim, &e)).await?,
            result => result?,
        };
        let left = Left::after(claim, &moved);
        if !left.moved.is_empty() {
            histogram!("cornjacket_relay_append_seconds").record(begun.elapsed().as_secs_f64());
            self.event_store.add(left.moved);
            self.publish.hear(left.moved);
        }
        record(&moved);
        Ok(left)
    }

    /// The store refused the batch: a partition is missing, or a row is bad. Another process may have made the partition
    /// by now, so the claim is tried again before rows are suspected.
    async fn mend(&self, claim: Claim, cause: &sqlx::Error) -> Result<Vec<Moved>, sqlx::Error> {
        let made = partitions::make_missing(&self.pool, Utc::now()).await?;
        if made > 0 {
            info!(made, "made {made} missing partition(s) of the event store");
        }
        match store::claim(&self.pool, claim).await {
            Err(e) if is_bad_data(&e) => {
                warn!(error = %cause, "the event store refused a batch: isolating the row");
                poison::isolate(&self.pool, claim).await
            }
            result => result,
        }
    }

    async fn failed(&self, error: &sqlx::Error, failures: &mut usize, stop: &CancellationToken) {
        self.database.close(if is_outage(error) { "the database is away" } else { "the database refuses claims" });
        if *failures == 0 {
            warn!(%error, "relay cannot claim: trying again until it can");
        }
        counter!("cornjacket_relay_failures_total").increment(1);
        let pause = BACKOFF[(*failures).min(BACKOFF.len() - 1)];
        *failures += 1;
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// How much of a batch one shard may take, so that all together make the batch.
fn share(batch: i64, shards: ShardSet) -> i64 {
    let shards = shards.iter().count().clamp(1, SHARDS);
    (batch / i64::try_from(shards).unwrap_or(1)).max(1)
}

/// What is left to do after a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Left {
    /// Shards that may have more rows.
    more: ShardSet,
    /// Shards that another relay held.
    held: ShardSet,
    /// Shards with new events in the store.
    moved: ShardSet,
}

impl Left {
    fn after(claim: Claim, moved: &[Moved]) -> Self {
        let full = |m: &&Moved| m.found >= claim.per_shard || m.bytes >= claim.bytes_per_shard;
        let got: ShardSet = moved.iter().map(|m| m.shard).collect();
        Self {
            more: moved.iter().filter(full).map(|m| m.shard).collect(),
            held: claim.shards.without(got),
            moved: moved.iter().filter(|m| m.stored > 0).map(|m| m.shard).collect(),
        }
    }
}

#[expect(clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "row counts of one batch")]
fn record(moved: &[Moved]) {
    let stored: i64 = moved.iter().map(|m| m.stored).sum();
    let known: i64 = moved.iter().filter(|m| m.taken < i64::MAX).map(|m| m.taken - m.stored).sum();
    if stored > 0 {
        counter!("cornjacket_relay_stored_total").increment(stored as u64);
        histogram!("cornjacket_relay_batch_events").record(stored as f64);
    }
    if known > 0 {
        counter!("cornjacket_relay_known_total").increment(known as u64);
    }
    let oldest = moved.iter().filter_map(|m| m.oldest_seconds).fold(0.0, f64::max);
    gauge!("cornjacket_relay_lag_seconds").set(oldest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(shard: i16, taken: i64, stored: i64) -> Moved {
        Moved { shard, found: taken, taken, stored, bytes: taken * 100, oldest_seconds: None }
    }

    #[test]
    fn full_shards_are_read_on_and_missing_ones_are_held() {
        let shards: ShardSet = [1, 2, 3].into_iter().collect();
        let claim = Claim { shards, per_shard: 10, bytes_per_shard: 5000, sweep: false, keep: false };
        let few_and_large = Moved { bytes: 6000, ..moved(2, 3, 0) };
        assert_eq!(Left::after(claim, &[few_and_large]).more.to_vec(), [2]);
        let left = Left::after(claim, &[moved(1, 10, 10), moved(2, 3, 0)]);
        assert_eq!(left.more.to_vec(), [1]);
        assert_eq!(left.held.to_vec(), [3]);
        assert_eq!(left.moved.to_vec(), [1]);
    }

    #[test]
    fn a_batch_is_shared_out_among_its_shards() {
        assert_eq!(share(2000, ShardSet::ALL), 31);
        assert_eq!(share(2000, [5].into_iter().collect()), 2000);
        assert_eq!(share(10, ShardSet::ALL), 1);
    }
}
