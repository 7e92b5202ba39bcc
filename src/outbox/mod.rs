//! The outbox: where an accepted event is durable. In: envelopes built by ingest. Out: rows of the table `outbox`,
//! and the shards that have news.
//!
//! Guarantees: an event is answered as accepted only after its row is committed; events of one shard (hence of one
//! aggregate) go through one writer in the order of their arrival; concurrent requests share one statement (group
//! commit), and a row that the database refuses never fails its neighbours; a key is accepted once. A write whose
//! commit is unknown is repeated under the same ids, so a row may return after a relay took it: the relay drops an
//! event that the event store has already.
//!
//! Never waits for a place in a queue: a full queue is said at once.

mod budget;
mod flush;
mod health;
mod idempotency;
mod instruments;
mod job;
mod settings;
mod store;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::event::{Shard, ShardSet};
use crate::lifecycle::{Lifecycle, Stage};
use crate::operate::Gate;

use budget::Budget;
use health::Health;
pub use idempotency::{IdempotencyKey, RequestHash};
use instruments::Instruments;
use job::Job;
pub use settings::Settings;
pub use store::write_one;
use writer::Writer;

/// Told after each commit which shards have news.
pub type OnCommit = Arc<dyn Fn(ShardSet) + Send + Sync>;

/// An event to be made durable.
#[derive(Clone, Debug)]
pub struct Entry {
    /// UUID v7, never given before.
    pub event_id: Uuid,
    pub shard: Shard,
    /// The event as JSON text ([`crate::event::Envelope`]).
    pub envelope: String,
    /// Under which it is accepted once.
    pub key: Option<IdempotencyKey>,
    /// An attempt before may have been committed.
    pub again: bool,
}

/// The event is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The event's id; the earlier one where the key was known.
    pub event_id: Uuid,
    /// The key was accepted before: nothing new was written.
    pub repeated: bool,
}

/// Why an entry is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedBy {
    /// The queue to the writers is full. Try again later.
    #[error("too many events are waiting to be stored")]
    QueueFull,
    /// The database is away, or did not answer in time: the event may be stored or not. Try again later.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// The database refuses this row. Trying again does not help.
    #[error("the database cannot store the event: {0}")]
    Data(String),
    /// The key was used for another request.
    #[error("the idempotency key '{0}' was used for another event")]
    KeyReused(String),
    /// Another entry of the same all-or-nothing batch was refused.
    #[error("another event of this all-or-nothing batch was refused")]
    WithBatch,
}

/// What became of one entry.
pub type Outcome = Result<Accepted, RefusedBy>;

/// Hands entries to the writers. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    lanes: Arc<[Lane]>,
    budget: Arc<Budget>,
    answer_deadline: Duration,
}

/// The way to one writer.
struct Lane {
    jobs: mpsc::Sender<Job>,
    health: Arc<Health>,
}

impl Outbox {
    /// Starts the writers as tasks of [`Stage::Store`]; `gate` opens when all are connected and the clocks agree.
    pub fn start(
        lifecycle: &Lifecycle,
        database: &PgConnectOptions,
        settings: &Settings,
        gate: Gate,
        on_commit: &OnCommit,
    ) -> Self {
        let instruments = Instruments::new();
        let budget =
            Arc::new(Budget::new(settings, instruments.queued_events.clone(), instruments.queued_bytes.clone()));
        let count = settings.writers.clamp(1, 64);
        let healths = Health::group(count, gate);
        let lanes = healths.into_iter().map(|health| {
            let health = Arc::new(health);
            let (jobs, queue) = mpsc::channel(settings.queue_events.max(1));
            let writer = Writer::new(
                queue,
                store::Connector::new(database.clone(), settings),
                settings.clone(),
                Arc::clone(&health),
                instruments.clone(),
                Arc::clone(on_commit),
            );
            lifecycle.spawn(Stage::Store, "outbox writer", writer.run(lifecycle.token(Stage::Store)));
            Lane { jobs, health }
        });
        Self { lanes: lanes.collect(), budget, answer_deadline: settings.answer_deadline }
    }

    /// Makes the entries durable, each for itself. The outcomes stand in the order of the entries.
    pub async fn accept(&self, entries: Vec<Entry>) -> Vec<Outcome> {
        let count = entries.len();
        let Some(reservation) = self.budget.reserve(&entries) else {
            return vec![Err(RefusedBy::QueueFull); count];
        };
        if let Some(lane) = self.only_lane(&entries) {
            return self.submit(lane, Job::new(entries, false, reservation)).await;
        }
        let mut parts: Vec<(Vec<usize>, Vec<Entry>)> = self.lanes.iter().map(|_| (Vec::new(), Vec::new())).collect();
        for (index, entry) in entries.into_iter().enumerate() {
            let (indices, part) = &mut parts[self.lane_of(entry.shard)];
            indices.push(index);
            part.push(entry);
        }
        let waits =
            parts.into_iter().enumerate().filter(|(_, (_, part))| !part.is_empty()).map(|(lane, (indices, part))| {
                let job = Job::new(part, false, Arc::clone(&reservation));
                async move { (indices, self.submit(lane, job).await) }
            });
        let mut outcomes = vec![Err(RefusedBy::QueueFull); count];
        for (indices, part) in join_all(waits).await {
            for (index, outcome) in indices.into_iter().zip(part) {
                outcomes[index] = outcome;
            }
        }
        outcomes
    }

    /// Makes all entries durable in one transaction, or none.
    pub async fn accept_all_or_nothing(&self, entries: Vec<Entry>) -> Vec<Outcome> {
        let Some(first) = entries.first() else { return Vec::new() };
        let lane = self.lane_of(first.shard);
        match self.budget.reserve(&entries) {
            Some(reservation) => self.submit(lane, Job::new(entries, true, reservation)).await,
            None => vec![Err(RefusedBy::QueueFull); entries.len()],
        }
    }

    /// Why entries would be refused at once, if they would.
    pub fn away(&self) -> Option<String> {
        self.lanes.iter().find_map(|lane| lane.health.refuses())
    }

    #[expect(clippy::cast_sign_loss, reason = "shards are 0 to 63")]
    fn lane_of(&self, shard: Shard) -> usize {
        shard as usize % self.lanes.len()
    }

    fn only_lane(&self, entries: &[Entry]) -> Option<usize> {
        let lane = self.lane_of(entries.first()?.shard);
        entries.iter().all(|e| self.lane_of(e.shard) == lane).then_some(lane)
    }

    async fn submit(&self, lane: usize, (job, answer): (Job, oneshot::Receiver<Vec<Outcome>>)) -> Vec<Outcome> {
        let count = job.entries.len();
        let lane = &self.lanes[lane];
        if let Some(reason) = lane.health.refuses() {
            return vec![Err(RefusedBy::Unavailable(reason)); count];
        }
        match lane.jobs.try_send(job) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return vec![Err(RefusedBy::QueueFull); count],
            Err(mpsc::error::TrySendError::Closed(_)) => return unavailable("the platform is stopping", count),
        }
        match tokio::time::timeout(self.answer_deadline, answer).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(_)) => unavailable("the platform is stopping", count),
            Err(_) => unavailable(&format!("no answer within {} s", self.answer_deadline.as_secs()), count),
        }
    }
}

fn unavailable(reason: &str, count: usize) -> Vec<Outcome> {
    vec![Err(RefusedBy::Unavailable(reason.to_owned())); count]
}
