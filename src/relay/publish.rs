//! The loop that publishes stored events to Kafka and then deletes their outbox rows.
//!
//! Each shard is published by one relay at a time, under a lock of its own: not the one that appending takes, so that
//! an outage of the broker never keeps events from the event store. A relay that was frozen may publish rows again that
//! another has published since; positions in the messages let consumers drop them.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::Relay;
use super::store::{self, Positioned};
use crate::bus::kafka::{Delivery, KafkaSettings, Message, Producer};
use crate::bus::wake::Wake;
use crate::bus::{BusError, DEFAULT_TOPIC};
use crate::event::{SHARDS, ShardSet};
use crate::operate::Gate;
use crate::registry::Catalog;

/// Pauses after the first, second, … failure in a row.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
/// When a shard that another relay held is looked at again.
const HELD_BY_ANOTHER: Duration = Duration::from_millis(50);
/// Larger events are not even tried: no broker of ours takes messages of this size.
const MAX_MESSAGE_BYTES: usize = 900_000;
/// Most messages that are tried one by one in one transaction.
const SINGLY: usize = 20;

/// Publishes until stopped.
pub(super) struct Publisher {
    pool: PgPool,
    batch: i64,
    poll: Duration,
    news: Wake,
    catalog: watch::Receiver<Arc<Catalog>>,
    settings: KafkaSettings,
    producer: Producer,
    bus: Gate,
    /// Positions up to which rows are known to be gone, so that a scan need not walk over them.
    floors: Vec<i64>,
}

/// How a round went.
enum Round {
    /// All was confirmed. Some shards may have more, and some another relay held.
    Published { more: ShardSet, held: ShardSet },
    /// Something was not confirmed, and why.
    Unconfirmed(String),
}

impl Publisher {
    pub fn new(relay: &Relay, settings: &KafkaSettings, news: Wake) -> Result<Self, BusError> {
        Ok(Self {
            pool: relay.pool.clone(),
            batch: relay.settings.batch,
            poll: relay.settings.poll,
            news,
            catalog: relay.catalog.clone(),
            settings: settings.clone(),
            producer: Producer::new(settings)?,
            bus: relay.bus.clone(),
            floors: vec![0; SHARDS],
        })
    }

    /// Runs until the token is cancelled; a batch under way is finished.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), BusError> {
        let mut todo = ShardSet::ALL;
        let mut held = ShardSet::EMPTY;
        let mut failures = 0;
        let mut next_poll = Instant::now() + self.poll;
        // Before the first load no topic is known: events would go where they do not belong.
        if stop.run_until_cancelled(self.catalog.changed()).await.is_none() {
            return Ok(());
        }
        while !stop.is_cancelled() {
            let failure = match self.round(todo).await {
                Ok(Round::Published { more, held: others }) => {
                    failures = 0;
                    self.bus.open();
                    (todo, held) = (more, others);
                    None
                }
                Ok(Round::Unconfirmed(cause)) => Some(cause),
                Err(e) => Some(e.to_string()),
            };
            if let Some(cause) = failure {
                self.failed(&cause, failures, &stop).await?;
                failures += 1;
                todo = ShardSet::ALL;
            } else if todo.is_empty() {
                let held_again = if held.is_empty() { next_poll } else { Instant::now() + HELD_BY_ANOTHER };
                todo = tokio::select! {
                    shards = self.news.take() => shards.union(held),
                    () = sleep_until(held_again.min(next_poll)) => held,
                    () = stop.cancelled() => break,
                };
            } else {
                todo = todo.union(held).union(self.news.take_now());
            }
            if Instant::now() >= next_poll {
                next_poll = Instant::now() + self.poll;
                self.floors.fill(0);
                todo = ShardSet::ALL;
            }
        }
        Ok(())
    }

    /// A gap in the producer's sequence ends it, so after any failure there is a new one.
    async fn failed(&mut self, cause: &str, failures: usize, stop: &CancellationToken) -> Result<(), BusError> {
        self.bus.close("publishing is not confirmed");
        if failures == 0 {
            warn!(cause, "cannot publish: the outbox keeps the events, trying again until it can");
        }
        counter!("cornjacket_relay_publish_failures_total").increment(1);
        self.producer = Producer::new(&self.settings)?;
        tokio::select! {
            () = sleep(BACKOFF[failures.min(BACKOFF.len() - 1)]) => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    async fn round(&mut self, shards: ShardSet) -> Result<Round, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let mine = store::lock_publishing(&mut tx, shards).await?;
        let per_shard = (self.batch / i64::try_from(mine.iter().count().max(1)).unwrap_or(1)).max(1);
        let rows = store::positioned(&mut tx, mine, &self.floors, per_shard).await?;
        if rows.is_empty() {
            return Ok(Round::Published { more: ShardSet::EMPTY, held: shards.without(mine) });
        }
        let begun = Instant::now();
        let outcome = self.publish(&mut tx, &rows).await?;
        store::published(&mut tx, &outcome.confirmed).await?;
        tx.commit().await?;
        histogram!("cornjacket_relay_publish_seconds").record(begun.elapsed().as_secs_f64());
        counter!("cornjacket_relay_published_total").increment(outcome.confirmed.len() as u64);
        if let Some(cause) = outcome.failure {
            return Ok(Round::Unconfirmed(cause));
        }
        for row in &rows {
            let floor = &mut self.floors[usize::try_from(row.shard).unwrap_or(0)];
            *floor = row.position.max(*floor);
        }
        let count = |shard| rows.iter().filter(|row| row.shard == shard).count();
        let limit = usize::try_from(per_shard).unwrap_or(usize::MAX);
        let more = mine.iter().filter(|shard| count(*shard) >= limit).collect();
        Ok(Round::Published { more, held: shards.without(mine) })
    }

    async fn publish(&mut self, connection: &mut PgConnection, rows: &[Positioned]) -> Result<Outcome, sqlx::Error> {
        let mut outcome = Outcome::default();
        let (fitting, oversized): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| row.envelope.len() <= MAX_MESSAGE_BYTES);
        for row in oversized {
            let cause = format!(
                "the event is {} bytes, more than the {MAX_MESSAGE_BYTES} that can be published",
                row.envelope.len()
            );
            dead_letter(connection, row, &cause).await?;
        }
        let messages: Vec<Message> = fitting.iter().map(|row| self.message(row)).collect();
        let deliveries = self.producer.publish(&messages).await;
        let mut refused = Vec::new();
        for (row, delivery) in fitting.iter().zip(&deliveries) {
            match delivery {
                Delivery::Confirmed => outcome.confirmed.push(row.outbox_id),
                Delivery::TooLarge(_) => refused.push(*row),
                Delivery::Unconfirmed(cause) => outcome.failure = outcome.failure.or(Some(cause.clone())),
            }
        }
        if let Some(first) = refused.first() {
            info!(shard = first.shard, "the broker refused a batch as too large: trying its events one by one");
            outcome.failure.get_or_insert_with(|| "a batch was too large".to_owned());
            self.singly(connection, &fitting, &mut outcome).await?;
        }
        Ok(outcome)
    }

    /// Publishes unconfirmed rows one by one, in order, to tell the one that is too large from its neighbours.
    async fn singly(
        &mut self,
        connection: &mut PgConnection,
        rows: &[&Positioned],
        outcome: &mut Outcome,
    ) -> Result<(), sqlx::Error> {
        let begun = Instant::now();
        let unconfirmed: Vec<&&Positioned> =
            rows.iter().filter(|row| !outcome.confirmed.contains(&row.outbox_id)).collect();
        for row in unconfirmed.into_iter().take(SINGLY) {
            if begun.elapsed() > Duration::from_secs(2) {
                break;
            }
            let Ok(alone) = Producer::new(&self.settings) else { break };
            match alone.publish(&[self.message(row)]).await.pop() {
                Some(Delivery::Confirmed) => outcome.confirmed.push(row.outbox_id),
                Some(Delivery::TooLarge(cause)) => {
                    dead_letter(connection, row, &format!("the broker refused it: {cause}")).await?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn message(&self, row: &Positioned) -> Message {
        let topic = self.catalog.borrow().topic_for(&row.event_type).unwrap_or(DEFAULT_TOPIC).to_owned();
        Message {
            topic,
            key: row.aggregate_id.clone(),
            value: row.envelope.clone(),
            event_id: row.outbox_id.to_string(),
            event_type: row.event_type.clone(),
            traceparent: row.traceparent.clone(),
            shard: row.shard,
            position: row.position,
        }
    }
}

#[derive(Default)]
struct Outcome {
    confirmed: Vec<Uuid>,
    failure: Option<String>,
}

async fn dead_letter(connection: &mut PgConnection, row: &Positioned, cause: &str) -> Result<(), sqlx::Error> {
    warn!(event_id = %row.outbox_id, cause, "event cannot be published: it goes to the dead letters");
    counter!("cornjacket_relay_dead_letters_total", "cause" => "refused_by_bus").increment(1);
    store::dead_letter(connection, row.outbox_id, cause).await
}
