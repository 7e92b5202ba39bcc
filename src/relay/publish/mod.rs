//! The loop that publishes stored events to Kafka and then deletes their outbox rows.
//!
//! Each shard is published by one relay at a time, under a lock of its own: not the one that appending takes, so that
//! an outage of the broker never keeps events from the event store. A relay that was frozen may publish rows again that
//! another has published since; positions in the messages let consumers drop them. A topic that is not written is set
//! aside: its events wait in the outbox, in order, and those of other topics are published past them.

mod producers;
mod reach;
mod round;
mod standing;
mod store;
mod trial;
mod verdict;

#[cfg(test)]
mod order;

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::producers::Producers;
use self::reach::Reach;
use self::standing::Standings;
use super::Relay;
use crate::bus::BusError;
use crate::bus::kafka::KafkaSettings;
use crate::bus::wake::Wake;
use crate::event::ShardSet;
use crate::operate::Gate;
use crate::pace::Pace;
use crate::registry::Catalog;

/// Pauses after the first, second, … failure in a row.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
/// When a shard that another relay held is looked at again.
const HELD_BY_ANOTHER: Duration = Duration::from_millis(50);

/// Publishes until stopped.
pub(super) struct Publisher {
    pool: PgPool,
    pace: Pace,
    poll: Duration,
    news: Wake,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// The version of the catalogue that topics are looked up in.
    routes: Arc<Catalog>,
    producers: Producers,
    standings: Standings,
    reach: Reach,
    bus: Gate,
}

/// What is left to do.
#[derive(Debug, Default)]
struct Left {
    /// Shards that may have more rows.
    more: ShardSet,
    /// Shards that another relay held.
    held: ShardSet,
    /// Nothing was confirmed, and why.
    outage: Option<String>,
}

impl Publisher {
    pub fn new(relay: &Relay, settings: &KafkaSettings, news: Wake) -> Result<Self, BusError> {
        Ok(Self {
            pool: relay.pool.clone(),
            pace: Pace::new(relay.settings.batch),
            poll: relay.settings.poll,
            news,
            catalog: relay.catalog.clone(),
            routes: Arc::default(),
            producers: Producers::new(settings)?,
            standings: Standings::default(),
            reach: Reach::new(),
            bus: relay.bus.clone(),
        })
    }

    /// Runs until the token is cancelled; a batch under way is finished.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), BusError> {
        let mut todo = ShardSet::ALL;
        let mut failures = 0;
        let mut next_poll = Instant::now() + self.poll;
        // Before the first load no topic is known: events would go where they do not belong.
        if stop.run_until_cancelled(self.catalog.changed()).await.is_none() {
            return Ok(());
        }
        self.routes = self.catalog.borrow_and_update().clone();
        while !stop.is_cancelled() {
            let cause = match self.turn(todo).await {
                Ok(Left { outage: Some(cause), .. }) => Some(cause),
                Err(e) => Some(e.to_string()),
                Ok(left) => {
                    failures = 0;
                    self.bus.open();
                    todo = self.next(&left, next_poll, &stop).await;
                    None
                }
            };
            if let Some(cause) = cause {
                self.failed(&cause, failures, &stop).await?;
                failures += 1;
                todo = ShardSet::ALL;
            }
            if Instant::now() >= next_poll {
                next_poll = Instant::now() + self.poll;
                // Rows that wait are many perhaps: they are walked over again only when their topic is back.
                if !self.standings.any_waits() {
                    self.reach.forget();
                }
                todo = ShardSet::ALL;
            }
        }
        Ok(())
    }

    /// Tries a topic that was set aside, if one is due, and publishes what else there is.
    async fn turn(&mut self, todo: ShardSet) -> Result<Left, BusError> {
        self.follow_catalog();
        let mut todo = todo;
        let now = Instant::now();
        self.standings.forgive(now);
        self.producers.tidy(&self.standings);
        let due = self.standings.next().filter(|(_, at, _)| *at <= now);
        if let Some((topic, place)) = due.map(|(topic, _, place)| (topic.to_owned(), place))
            && self.trial(&topic, place).await?
        {
            todo = ShardSet::ALL;
        }
        if todo.is_empty() { Ok(Left::default()) } else { self.round(todo).await }
    }

    /// Where events go has changed: what waits may go elsewhere, and goes before what came later.
    fn follow_catalog(&mut self) {
        if self.catalog.has_changed().unwrap_or(false) {
            self.routes = self.catalog.borrow_and_update().clone();
            if self.standings.any_waits() {
                self.standings.all_back();
                self.reach.forget();
            }
        }
    }

    /// The shards to look at next: waits for news, a held shard, a topic to be tried, or the next poll.
    async fn next(&self, left: &Left, next_poll: Instant, stop: &CancellationToken) -> ShardSet {
        if !left.more.is_empty() {
            return left.more.union(left.held).union(self.news.take_now());
        }
        let held_again = if left.held.is_empty() { next_poll } else { Instant::now() + HELD_BY_ANOTHER };
        let due = self.standings.next().map_or(next_poll, |(_, at, _)| at);
        tokio::select! {
            shards = self.news.take() => shards.union(left.held),
            () = sleep_until(held_again.min(next_poll).min(due)) => left.held,
            () = stop.cancelled() => ShardSet::EMPTY,
        }
    }

    /// Nothing is confirmed: all producers are replaced.
    async fn failed(&mut self, cause: &str, failures: usize, stop: &CancellationToken) -> Result<(), BusError> {
        self.bus.close("publishing is not confirmed");
        if failures == 0 {
            warn!(cause, "cannot publish: the outbox keeps the events, trying again until it can");
        }
        counter!("cornjacket_relay_publish_failures_total").increment(1);
        self.pace.failed();
        self.producers.renew()?;
        tokio::select! {
            () = sleep(BACKOFF[failures.min(BACKOFF.len() - 1)]) => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }
}
