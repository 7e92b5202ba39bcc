//! Reads the event store for projections that are not fed by the group, and hands them over when they have caught up.
//!
//! One step is one transaction: some events of every shard above the projection's cursors, folded into the live rows or
//! beside them. Rows that were built beside are put in the place of those served in one transaction, which may take long:
//! the group's batches go on meanwhile, with the other projections. The hand-over is one transaction too, a short one with
//! batches kept out: fold to the store's head, record it as `applied_through`, switch.

mod cursors;
mod fold;
mod hand_over;
mod replace;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(super) use self::cursors::advance;
use self::cursors::behind;
use super::history;
use super::notify::Changed;
use super::store::{self, Progress};
use crate::bus::embedded::store::{self as event_store, Page};
use crate::bus::wake::Wake;
use crate::bus::{BusError, Wanted};
use crate::database::within;
use crate::event::{SHARDS, Shard};
use crate::pace::Pace;
use crate::registry::{Catalog, LoadedProjection};

/// Most events in one step, of all shards together.
const EVENTS: i64 = 2048;
/// A projection this near to the head is handed over.
const NEAR: i64 = 4096;
/// Of a step, and of a hand-over.
const DEADLINE: Duration = Duration::from_mins(1);
/// Putting a large rebuild in the place of the rows served is not quick.
const LONG: Duration = Duration::from_mins(30);
/// Pause when there is nothing to read for a projection that reads the event store for good.
const IDLE: Duration = Duration::from_millis(100);
const BACKOFF: Duration = Duration::from_millis(500);

pub(super) struct CatchUp {
    pool: PgPool,
    ingestion: PgPool,
    bus: &'static str,
    catalog: watch::Receiver<Arc<Catalog>>,
    wake: Wake,
    changed: Changed,
    pace: Pace,
    /// How often each projection's next events failed to fold.
    attempts: HashMap<String, usize>,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is more to read.
    More,
    /// Nothing is left to do for this projection now.
    Done,
    /// Near to the head: it is to be handed over, or first to replace the rows served.
    Near { beside: bool },
    /// Events could not be folded: try the same again after this long.
    Again(Duration),
}

impl CatchUp {
    pub fn new(
        pool: PgPool,
        ingestion: PgPool,
        bus: &'static str,
        catalog: watch::Receiver<Arc<Catalog>>,
        wake: Wake,
        changed: Changed,
    ) -> Self {
        Self { pool, ingestion, bus, catalog, wake, changed, pace: Pace::new(EVENTS), attempts: HashMap::new() }
    }

    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        while !stop.is_cancelled() {
            // Each step is a transaction: one that is cut short is done again.
            let Some(ended) = stop.run_until_cancelled(Box::pin(self.round())).await else { break };
            let pause = match ended {
                Ok(pause) => pause,
                Err(error) => {
                    self.pace.failed();
                    warn!(%error, "catching up failed: trying again until it can");
                    Some(BACKOFF)
                }
            };
            tokio::select! {
                () = async { match pause { Some(pause) => sleep(pause).await, None => std::future::pending().await } } => {}
                _ = self.wake.take() => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Steps through every projection that is catching up, one step each in turn, until none has more. Returns when to look
    /// again, if not only when woken.
    async fn round(&mut self) -> Result<Option<Duration>, BusError> {
        let mut pause: Option<Duration> = None;
        let mut connection = self.pool.acquire().await?;
        let progress = store::progress(&mut connection).await?;
        drop(connection);
        let behind = progress.into_iter().filter(Progress::is_catching_up).map(|row| row.projection_type);
        let mut todo: Vec<Arc<LoadedProjection>> =
            behind.filter_map(|name| self.catalog.borrow().projections.get(&name).cloned()).collect();
        let mut sooner = |after: Duration| pause = Some(pause.map_or(after, |pause| pause.min(after)));
        while !todo.is_empty() {
            let mut more = Vec::new();
            for loaded in todo {
                let ended = match within(DEADLINE, self.step(&loaded)).await? {
                    Step::Near { beside: true } => within(LONG, self.replace(&loaded)).await?,
                    Step::Near { beside: false } => within(DEADLINE, self.hand_over(&loaded)).await?,
                    ended => ended,
                };
                match ended {
                    Step::More | Step::Near { .. } => more.push(loaded),
                    Step::Done if self.reads_on(&loaded) => sooner(IDLE),
                    Step::Done => {}
                    Step::Again(after) => sooner(after),
                }
            }
            todo = more;
        }
        Ok(pause)
    }

    /// Whether a projection stays with the event store: on Kafka, where the order of its sources matters and no topic
    /// holds them all.
    fn reads_on(&self, loaded: &LoadedProjection) -> bool {
        loaded.spec.reads_event_store && self.bus == "kafka"
    }

    async fn step(&mut self, loaded: &Arc<LoadedProjection>) -> Result<Step, BusError> {
        let mut tx = self.pool.begin().await?;
        let Some(mut progress) = lock(&mut tx, loaded).await? else { return Ok(Step::Done) };
        let heads = event_store::heads(&self.ingestion).await?;
        let behind = behind(&heads, &progress.cursors);
        let settled = progress.settles_in <= 0.0;
        if behind <= NEAR && settled && !(self.reads_on(loaded) && progress.live_hash == progress.target_hash) {
            return Ok(Step::Near { beside: progress.beside });
        }
        if behind == 0 {
            return Ok(if settled { Step::Done } else { Step::Again(IDLE) });
        }
        let per_shard = self.per_shard();
        let page = self.read(loaded, &progress.cursors, per_shard).await?;
        let lost = history::look(&self.ingestion, &mut progress, &heads).await?;
        if let Some(step) = self.fold(&mut tx, loaded, &progress, &page.events).await? {
            return end(tx, step).await;
        }
        advance(&mut progress.cursors, &page, &heads, per_shard);
        progress.behind = cursors::behind(&heads, &progress.cursors);
        store::move_cursors(&mut tx, &progress).await?;
        tx.commit().await?;
        history::tell(&progress, lost);
        self.attempts.remove(&progress.projection_type);
        self.changed.add(&progress.projection_type);
        event_store::report_reader(&self.ingestion, &progress.reader_name(), &progress.cursors).await?;
        Ok(if progress.behind > 0 { Step::More } else { Step::Done })
    }

    /// Events of one shard in the next step.
    fn per_shard(&self) -> i64 {
        (self.pace.events() / i64::try_from(SHARDS).unwrap_or(1)).max(1)
    }

    async fn read(&self, loaded: &LoadedProjection, cursors: &[i64], per_shard: i64) -> Result<Page, sqlx::Error> {
        let above: Vec<(Shard, i64)> = (0..).zip(cursors.iter().copied()).collect();
        let source = loaded.program.source();
        let wanted = Wanted { event_types: source.event_types.clone(), prefixes: source.prefixes.clone() };
        event_store::read(&self.ingestion, &above, per_shard, &wanted).await
    }
}

/// Ends a transaction in which events could not be folded: what it did is kept where nothing is tried again.
async fn end(tx: Transaction<'_, Postgres>, step: Step) -> Result<Step, BusError> {
    if step == Step::Done {
        tx.commit().await?;
    }
    Ok(step)
}

/// Locks a projection's progress, if it still catches up to this very definition and nobody else works on it.
async fn lock(connection: &mut PgConnection, loaded: &LoadedProjection) -> Result<Option<Progress>, sqlx::Error> {
    let progress = store::lock_catching_up(connection, &loaded.spec.projection_type).await?;
    Ok(progress.filter(|progress| progress.target_hash.as_ref() == Some(&loaded.spec.definition_hash())))
}
