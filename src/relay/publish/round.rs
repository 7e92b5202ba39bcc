//! One round of publishing: lock shards, read rows, publish them, delete what was confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::{info, warn};

use super::reach::Fate;
use super::store::{self, Positioned};
use super::verdict::{Failure, Sent, Verdict};
use super::{Left, Publisher};
use crate::bus::kafka::{DEADLINE, Message};
use crate::bus::{BusError, DEFAULT_TOPIC};
use crate::event::ShardSet;
use crate::relay::store::dead_letter;

/// Larger events are not even tried: no broker of ours takes messages of this size.
const MAX_MESSAGE_BYTES: usize = 900_000;

/// A row with its number in the page, and its topic.
pub(super) type Routed<'a> = (usize, &'a Positioned, &'a str);

impl Publisher {
    /// Publishes what is next in some shards, but for topics that are set aside.
    pub(super) async fn round(&mut self, shards: ShardSet) -> Result<Left, BusError> {
        let mut tx = self.pool.begin().await?;
        let mine = store::lock(&mut tx, shards).await?;
        let page = store::positioned(&mut tx, mine, self.reach.floors(), self.pace.events()).await?;
        let left = Left { more: page.more, held: shards.without(mine), outage: None };
        if page.rows.is_empty() {
            return Ok(left);
        }
        let begun = Instant::now();
        let routes = self.routes.clone();
        let topics = page.rows.iter().map(|row| routes.topic_for(&row.event_type).unwrap_or(DEFAULT_TOPIC));
        let all: Vec<Routed<'_>> =
            page.rows.iter().zip(topics).enumerate().map(|(at, (row, t))| (at, row, t)).collect();
        if let Err(cause) = self.set_missing_aside(&mut tx, &all).await? {
            return Ok(Left { outage: Some(cause), ..left });
        }
        let open: Vec<Routed<'_>> = all.iter().filter(|(_, _, topic)| !self.standings.waits(topic)).copied().collect();
        let verdict = self.deliver(&mut tx, &open, DEADLINE).await?;
        self.blame(&mut tx, &page.rows, &verdict.failed).await?;
        tx.commit().await?;
        histogram!("cornjacket_relay_publish_seconds").record(begun.elapsed().as_secs_f64());
        let gone = gone(&verdict);
        let fate = |at: usize, topic: &str| match gone.get(at) {
            Some(true) => Fate::Gone,
            _ if self.standings.waits(topic) => Fate::Waits,
            _ => Fate::Stays,
        };
        let stay = self.reach.advance(all.iter().map(|(at, row, topic)| (row.shard, row.position, fate(*at, topic))));
        if verdict.outage.is_none() {
            self.pace.done();
            if page.cut {
                self.pace.cut_at(page.rows.len());
            }
        }
        Ok(Left { more: left.more.union(stay), outage: verdict.outage, ..left })
    }

    /// Asks for topics that were not written before, and sets those aside that cannot be. The inner error: the broker
    /// does not answer.
    async fn set_missing_aside(
        &mut self,
        connection: &mut PgConnection,
        rows: &[Routed<'_>],
    ) -> Result<Result<(), String>, BusError> {
        let topics: BTreeSet<&str> =
            rows.iter().map(|(_, _, topic)| *topic).filter(|topic| !self.standings.waits(topic)).collect();
        let refused = match self.producers.unwritable(&topics).await {
            Ok(refused) => refused,
            Err(cause) => return Ok(Err(cause)),
        };
        for (topic, (cause, refused)) in refused {
            if let Some((_, row, _)) = rows.iter().find(|(_, _, other)| *other == topic) {
                self.set_aside(connection, &topic, &cause, refused, row).await?;
            }
        }
        Ok(Ok(()))
    }

    pub(super) async fn blame(
        &mut self,
        connection: &mut PgConnection,
        rows: &[Positioned],
        failed: &BTreeMap<String, Failure>,
    ) -> Result<(), BusError> {
        for (topic, failure) in failed {
            if let Some(row) = rows.get(failure.row) {
                self.set_aside(connection, topic, &failure.cause, failure.refused, row).await?;
            }
        }
        Ok(())
    }

    async fn set_aside(
        &mut self,
        connection: &mut PgConnection,
        topic: &str,
        cause: &str,
        refused: bool,
        first: &Positioned,
    ) -> Result<(), BusError> {
        self.producers.doubt(topic);
        counter!("cornjacket_relay_publish_failures_total").increment(1);
        if self.standings.failed(topic, (first.shard, first.position), Instant::now()) {
            warn!(topic, cause, "a topic is not written: its events wait in the outbox, others go on");
        }
        self.measure();
        if refused {
            store::tried(connection, first.shard, first.position).await?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a handful of topics")]
    pub(super) fn measure(&self) {
        gauge!("cornjacket_relay_topics_aside").set(self.standings.waiting() as f64);
    }

    /// Publishes rows, and deletes those that are confirmed or can never be.
    pub(super) async fn deliver(
        &mut self,
        connection: &mut PgConnection,
        rows: &[Routed<'_>],
        within: Duration,
    ) -> Result<Verdict, BusError> {
        let (fitting, oversized): (Vec<Routed<'_>>, Vec<Routed<'_>>) =
            rows.iter().partition(|(_, row, _)| row.envelope.len() <= MAX_MESSAGE_BYTES);
        let messages = fitting.iter().map(|(_, row, topic)| message(row, topic)).collect();
        let deliveries = self.producers.publish(messages, &self.standings, within).await?;
        let sent = fitting.iter().zip(deliveries).map(|((at, row, topic), delivery)| Sent {
            row: *at,
            topic,
            bytes: row.envelope.len() + row.aggregate_id.len(),
            together: self.standings.together(topic),
            delivery,
        });
        let mut verdict = Verdict::of(&sent.collect::<Vec<_>>());
        verdict.letters.extend(oversized.iter().map(|(at, row, _)| (*at, too_large(row.envelope.len()))));
        for topic in &verdict.shrink {
            info!(topic, "a topic takes less at a time than the others");
            self.standings.shrink(topic, Instant::now());
        }
        settle(connection, rows, &verdict).await?;
        Ok(verdict)
    }
}

async fn settle(connection: &mut PgConnection, rows: &[Routed<'_>], verdict: &Verdict) -> Result<(), sqlx::Error> {
    let id = |at: usize| rows.binary_search_by_key(&at, |(at, _, _)| *at).ok().map(|found| rows[found].1.outbox_id);
    for (at, cause) in &verdict.letters {
        if let Some(event_id) = id(*at) {
            warn!(%event_id, cause, "event cannot be published: it goes to the dead letters");
            counter!("cornjacket_relay_dead_letters_total", "cause" => "refused_by_bus").increment(1);
            dead_letter(connection, event_id, cause).await?;
        }
    }
    let confirmed: Vec<_> = verdict.confirmed.iter().filter_map(|at| id(*at)).collect();
    if !confirmed.is_empty() {
        store::published(connection, &confirmed).await?;
        counter!("cornjacket_relay_published_total").increment(confirmed.len() as u64);
    }
    Ok(())
}

/// By number in the page: whether the row is gone.
fn gone(verdict: &Verdict) -> Vec<bool> {
    let rows = || verdict.confirmed.iter().chain(verdict.letters.iter().map(|(at, _)| at));
    let mut gone = vec![false; rows().max().map_or(0, |last| last + 1)];
    rows().for_each(|at| gone[*at] = true);
    gone
}

fn too_large(bytes: usize) -> String {
    format!("the event is {bytes} bytes, more than the {MAX_MESSAGE_BYTES} that can be published")
}

fn message(row: &Positioned, topic: &str) -> Message {
    Message {
        topic: topic.to_owned(),
        key: row.aggregate_id.clone(),
        value: row.envelope.clone(),
        event_id: row.outbox_id.to_string(),
        event_type: row.event_type.clone(),
        traceparent: row.traceparent.clone(),
        late: row.late,
        shard: row.shard,
        position: row.position,
    }
}
