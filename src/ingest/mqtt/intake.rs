//! Takes messages in, in the order in which they came: each becomes an event in the outbox or a dead letter, and is
//! acknowledged once that is committed. While the database is away nothing is acknowledged, and nothing overtakes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::backoff::Backoff;
use crds::cause::Chain;
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::acks::Acks;
use super::instruments::{Ended, Instruments};
use super::message::Message;
use super::read::{Read, read};
use super::routes::Routes;
use super::store::{self, Letter};
use super::window::{Delivery, Window};
use crate::event::MqttOrigin;
use crate::ingest::Ingest;
use crate::ingest::accept::{Circumstances, admit};
use crate::ingest::refusal::Refusal;
use crate::outbox::{Entry, RefusedBy};

/// Most messages that are committed together.
const BATCH: usize = 500;
/// Most bytes of events that are handed to the outbox together; its queue holds several times that.
const PART_BYTES: usize = 4 << 20;
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// A message, and what is needed to acknowledge it.
pub struct Delivered {
    pub message: Message,
    /// The connection that brought it.
    pub connection: u64,
    pub at: Instant,
}

/// What a message becomes.
enum Fate {
    Event(Entry),
    Letter(Letter),
    /// Nothing, on purpose.
    Nothing(Ended),
}

/// Told to stop before all was committed: what is not acknowledged comes again.
struct Stopped;

/// Where messages are taken in.
pub struct Intake {
    pub ingest: Arc<Ingest>,
    pub pool: PgPool,
    pub client_id: String,
    pub max_event_bytes: usize,
    pub routes: watch::Receiver<Arc<Routes>>,
    pub window: Window,
    pub acks: Acks,
    pub instruments: Instruments,
    pub stop: CancellationToken,
}

impl Intake {
    /// Runs until no more messages come, or until it is told to stop while the database is away.
    pub async fn run(mut self, mut messages: mpsc::Receiver<Delivered>) {
        let mut batch = Vec::with_capacity(BATCH);
        while messages.recv_many(&mut batch, BATCH).await > 0 {
            let Ok(()) = self.take(&batch).await else { return };
            for Delivered { message, connection, at } in batch.drain(..) {
                if message.acknowledged {
                    self.acks.give(connection, message.packet).await;
                }
                self.instruments.ack_seconds.record(at.elapsed());
            }
        }
    }

    /// Makes a batch durable.
    async fn take(&mut self, batch: &[Delivered]) -> Result<(), Stopped> {
        let routes = Arc::clone(&self.routes.borrow());
        let (mut entries, mut letters) = (Vec::new(), Vec::new());
        for (index, delivered) in batch.iter().enumerate() {
            match self.fate(&delivered.message, &routes) {
                Fate::Event(entry) => entries.push((index, entry)),
                Fate::Letter(letter) => letters.push(letter),
                Fate::Nothing(ended) => self.instruments.ended(ended, 1),
            }
        }
        self.store(batch, entries, &mut letters).await?;
        self.keep(letters).await?;
        for Delivered { message, .. } in batch.iter().filter(|delivered| delivered.message.acknowledged) {
            self.window.note(message.packet, message.fingerprint());
        }
        Ok(())
    }

    fn fate(&self, message: &Message, routes: &Routes) -> Fate {
        if message.retained {
            return Fate::Nothing(Ended::Retained);
        }
        if message.duplicate && self.window.holds(message.packet, message.fingerprint()) {
            return Fate::Nothing(Ended::Repeated);
        }
        let now = self.ingest.clock.now();
        let event_id = self.ingest.ids.next(now);
        let admitted = read(message, routes, self.max_event_bytes).and_then(|read| {
            let Read { candidate, key, traceparent } = read;
            let mqtt = Some(MqttOrigin { topic: message.topic.clone(), delivery: self.delivery(message) });
            let known = Circumstances { event_id, now, key, traceparent, transport: "mqtt", mqtt };
            admit(&candidate, &self.ingest.catalog(), self.ingest.rules, known)
        });
        match admitted {
            Ok(admitted) => Fate::Event(admitted.entry),
            Err(refusal) => Fate::Letter(Letter::new(event_id, message, &refusal.detail())),
        }
    }

    fn delivery(&self, message: &Message) -> Option<String> {
        let delivery =
            || Delivery { client: self.client_id.clone(), packet: message.packet, fingerprint: message.fingerprint() };
        message.acknowledged.then(|| delivery().to_string())
    }

    /// Commits events, in their order; those that can never be stored become letters.
    async fn store(
        &mut self,
        batch: &[Delivered],
        entries: Vec<(usize, Entry)>,
        letters: &mut Vec<Letter>,
    ) -> Result<(), Stopped> {
        let mut waiting = VecDeque::from(entries);
        let mut failures = 0;
        while !waiting.is_empty() {
            let part = part(&mut waiting);
            let outcomes = self.ingest.outbox.accept(part.iter().map(|(_, entry)| entry.clone()).collect()).await;
            let mut left = Vec::new();
            for ((index, mut entry), outcome) in part.into_iter().zip(outcomes) {
                match outcome {
                    Ok(accepted) if accepted.repeated => self.instruments.ended(Ended::Repeated, 1),
                    Ok(_) => self.instruments.ended(Ended::Accepted, 1),
                    Err(RefusedBy::QueueFull | RefusedBy::Unavailable(_)) => {
                        entry.again = true;
                        left.push((index, entry));
                    }
                    Err(refused) => {
                        let cause = Refusal::from(refused).detail();
                        letters.push(Letter::new(entry.event_id, &batch[index].message, &cause));
                    }
                }
            }
            if left.is_empty() {
                failures = 0;
                continue;
            }
            left.into_iter().rev().for_each(|entry| waiting.push_front(entry));
            self.pause(failures).await?;
            failures += 1;
        }
        Ok(())
    }

    async fn keep(&mut self, letters: Vec<Letter>) -> Result<(), Stopped> {
        let Some(first) = letters.first() else { return Ok(()) };
        let mut failures = 0;
        while let Err(error) = store::keep(&self.pool, &letters).await {
            warn!(error = %Chain(&error), "cannot keep dead letters: trying again");
            self.pause(failures).await?;
            failures += 1;
        }
        let topic = &first.message["topic"];
        warn!(letters = letters.len(), %topic, cause = first.cause, "messages became no events: they are dead letters");
        self.instruments.ended(Ended::Refused, letters.len() as u64);
        Ok(())
    }

    async fn pause(&self, failures: u32) -> Result<(), Stopped> {
        let wait = BACKOFF.delay(failures, rand::random());
        self.stop.run_until_cancelled(sleep(wait)).await.ok_or(Stopped)
    }
}

/// The first of those that wait, as many as a request to the outbox may have.
fn part(waiting: &mut VecDeque<(usize, Entry)>) -> Vec<(usize, Entry)> {
    let mut bytes = 0;
    let mut part = Vec::new();
    while let Some((_, entry)) = waiting.front() {
        bytes += entry.envelope.len();
        if bytes > PART_BYTES && !part.is_empty() {
            break;
        }
        part.extend(waiting.pop_front());
    }
    part
}
