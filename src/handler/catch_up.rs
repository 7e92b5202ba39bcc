//! Reads the event store for projections that are not fed by the group, and hands them over when they have caught up.
//!
//! One step is one transaction: some events of every shard above the projection's cursors, folded into the live rows or
//! beside them. The hand-over is one transaction too, with batches kept out: fold to the store's head, swap rows that
//! were built beside, record the head as `applied_through`, switch.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crds::registration::OnError;
use metrics::counter;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::history;
use super::notify::Changed;
use super::retry::DELAYS;
use super::store::{self, Progress};
use crate::bus::embedded::store::{self as event_store, Page};
use crate::bus::wake::Wake;
use crate::bus::{BusError, Wanted};
use crate::event::{SHARDS, Shard, StoredEvent};
use crate::projection::store::{self as rows, Target};
use crate::projection::{Subject, Working};
use crate::registry::{Catalog, LoadedProjection};
use crate::relay::maintenance::report_reader;

/// Events of one shard in one step: 64 shards make a transaction of up to 2048 events.
const PER_SHARD: i64 = 32;
/// A projection this near to the head is handed over.
const NEAR: i64 = 4096;
/// A step is quick; putting a large rebuild in the place of the live rows is not.
const DEADLINE: Duration = Duration::from_mins(30);
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
        Self { pool, ingestion, bus, catalog, wake, changed, attempts: HashMap::new() }
    }

    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        while !stop.is_cancelled() {
            let pause = match self.round(&stop).await {
                Ok(pause) => pause,
                Err(error) => {
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
    async fn round(&mut self, stop: &CancellationToken) -> Result<Option<Duration>, BusError> {
        let mut pause: Option<Duration> = None;
        let mut connection = self.pool.acquire().await?;
        let progress = store::progress(&mut connection).await?;
        drop(connection);
        let behind = progress.into_iter().filter(Progress::is_catching_up).map(|row| row.projection_type);
        let mut todo: Vec<Arc<LoadedProjection>> =
            behind.filter_map(|name| self.catalog.borrow().projections.get(&name).cloned()).collect();
        let mut sooner = |after: Duration| pause = Some(pause.map_or(after, |pause| pause.min(after)));
        while !todo.is_empty() && !stop.is_cancelled() {
            let mut more = Vec::new();
            for loaded in todo {
                let ended = timeout(DEADLINE, self.step(&loaded)).await;
                match ended.map_err(|_| sqlx::Error::PoolTimedOut)?? {
                    Step::More => more.push(loaded),
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
            tx.rollback().await?;
            return self.hand_over(loaded).await;
        }
        if behind == 0 {
            return Ok(if settled { Step::Done } else { Step::Again(IDLE) });
        }
        let page = self.read(loaded, &progress.cursors, PER_SHARD).await?;
        let lost = history::look(&self.ingestion, &mut progress, &heads).await?;
        if let Some(step) = self.fold(&mut tx, loaded, &progress, &page.events).await? {
            if step == Step::Done {
                tx.commit().await?;
            }
            return Ok(step);
        }
        advance(&mut progress.cursors, &page, &heads, PER_SHARD);
        progress.behind = self::behind(&heads, &progress.cursors);
        store::move_cursors(&mut tx, &progress).await?;
        tx.commit().await?;
        history::tell(&progress, lost);
        self.attempts.remove(&progress.projection_type);
        self.changed.add(&progress.projection_type);
        report_reader(&self.ingestion, &progress.reader_name(), &progress.cursors).await?;
        Ok(if progress.behind > 0 { Step::More } else { Step::Done })
    }

    async fn read(&self, loaded: &LoadedProjection, cursors: &[i64], per_shard: i64) -> Result<Page, sqlx::Error> {
        let above: Vec<(Shard, i64)> = (0..).zip(cursors.iter().copied()).collect();
        let source = loaded.program.source();
        let wanted = Wanted { event_types: source.event_types.clone(), prefixes: source.prefixes.clone() };
        event_store::read(&self.ingestion, &above, per_shard, &wanted).await
    }

    /// Folds events and writes the rows. `Some`: they were not, and what to do instead.
    async fn fold(
        &mut self,
        connection: &mut PgConnection,
        loaded: &Arc<LoadedProjection>,
        progress: &Progress,
        events: &[StoredEvent],
    ) -> Result<Option<Step>, BusError> {
        let target = if progress.beside { Target::Beside } else { Target::Live };
        let subjects = [Subject {
            projection_type: progress.projection_type.clone(),
            program: loaded.program.clone(),
            applied_through: progress.cursors.clone(),
        }];
        let mut working = Working::plan(&subjects, events);
        let loaded_rows = rows::load(connection, target, &subjects, &working.keys()).await?;
        working.fold(loaded_rows);
        if !working.failures.is_empty() {
            let attempts = self.attempts.entry(progress.projection_type.clone()).or_insert(0);
            if let Some(delay) = DELAYS.get(*attempts) {
                *attempts += 1;
                return Ok(Some(Step::Again(*delay)));
            }
            if let Some(step) = give_up(connection, loaded, &working, events).await? {
                return Ok(Some(step));
            }
        }
        rows::write(connection, target, &subjects, &working.changed()).await?;
        counter!("cornjacket_handler_caught_up_total").increment(events.len() as u64);
        Ok(None)
    }

    /// Folds to the store's head with batches kept out, and switches.
    async fn hand_over(&mut self, loaded: &Arc<LoadedProjection>) -> Result<Step, BusError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *tx).await?;
        store::lock_group(&mut tx).await?;
        let Some(mut progress) = lock(&mut tx, loaded).await? else { return Ok(Step::Done) };
        let heads = event_store::heads(&self.ingestion).await?;
        if behind(&heads, &progress.cursors) > 2 * NEAR {
            return Ok(Step::More);
        }
        let mut lost = false;
        while behind(&heads, &progress.cursors) > 0 {
            let page = self.read(loaded, &progress.cursors, PER_SHARD).await?;
            lost |= history::look(&self.ingestion, &mut progress, &heads).await?;
            if let Some(step) = self.fold(&mut tx, loaded, &progress, &page.events).await? {
                if step == Step::Done {
                    tx.commit().await?;
                }
                return Ok(step);
            }
            advance(&mut progress.cursors, &page, &heads, PER_SHARD);
        }
        self.switch(&mut tx, loaded, &mut progress).await?;
        tx.commit().await?;
        history::tell(&progress, lost);
        self.attempts.remove(&progress.projection_type);
        self.changed.add(&progress.projection_type);
        if !self.reads_on(loaded) {
            store::forget_reader(&self.ingestion, &progress.reader_name()).await?;
        }
        info!(projection = progress.projection_type, "projection caught up");
        Ok(Step::Done)
    }

    async fn switch(
        &self,
        connection: &mut PgConnection,
        loaded: &Arc<LoadedProjection>,
        progress: &mut Progress,
    ) -> Result<(), BusError> {
        if progress.beside {
            rows::swap(connection, &progress.projection_type).await?;
        }
        progress.beside = false;
        progress.behind = 0;
        progress.live_history_from = progress.history_from;
        progress.live_hash = Some(loaded.spec.definition_hash());
        progress.live_spec = Some(sqlx::types::Json(loaded.spec.clone()));
        progress.applied_through.clone_from(&progress.cursors);
        if self.reads_on(loaded) {
            progress.target_hash.clone_from(&progress.live_hash);
        } else {
            progress.target_hash = None;
            "live".clone_into(&mut progress.status);
        }
        Ok(store::save(connection, progress, None).await?)
    }
}

/// Locks a projection's progress, if it still catches up to this very definition and nobody else works on it.
async fn lock(connection: &mut PgConnection, loaded: &LoadedProjection) -> Result<Option<Progress>, sqlx::Error> {
    let progress = store::lock_catching_up(connection, &loaded.spec.projection_type).await?;
    Ok(progress.filter(|progress| progress.target_hash.as_ref() == Some(&loaded.spec.definition_hash())))
}

/// Events that failed for the last time: dead letters, or a halt (`Some`).
async fn give_up(
    connection: &mut PgConnection,
    loaded: &LoadedProjection,
    working: &Working<'_>,
    events: &[StoredEvent],
) -> Result<Option<Step>, BusError> {
    for failure in &working.failures {
        let event = &events[failure.event];
        let cause = failure.error.to_string();
        if loaded.spec.on_error == OnError::Halt {
            let message = format!("event {}: {cause}", event.event_id);
            error!(projection = loaded.spec.projection_type, message, "projection halted");
            store::halt(connection, &loaded.spec.projection_type, &message).await?;
            return Ok(Some(Step::Done));
        }
        warn!(event_id = %event.event_id, projection = loaded.spec.projection_type, cause, "event cannot be folded: it goes to the dead letters");
        counter!("cornjacket_handler_dead_letters_total").increment(1);
        let retries = i32::try_from(DELAYS.len()).unwrap_or(i32::MAX);
        store::dead_letter(connection, event, &loaded.spec.projection_type, &cause, retries).await?;
    }
    Ok(None)
}

/// Moves cursors past what was read. A shard of which less was read than was asked for has no more up to its head, which
/// was looked up before: what is missing was dropped with its partition. Of the shards that a page was cut before or in,
/// nothing is known but what it holds.
fn advance(cursors: &mut [i64], page: &Page, heads: &[i64], per_shard: i64) {
    let mut read = vec![0; cursors.len()];
    for event in &page.events {
        if let Some(at) = usize::try_from(event.shard).ok().filter(|at| *at < cursors.len()) {
            cursors[at] = event.position.max(cursors[at]);
            read[at] += 1;
        }
    }
    let cut = page.events.last().filter(|_| page.cut).and_then(|last| usize::try_from(last.shard).ok());
    let whole = cut.unwrap_or(cursors.len());
    for ((cursor, head), read) in cursors.iter_mut().zip(heads).zip(read).take(whole) {
        if read < per_shard {
            *cursor = (*cursor).max(*head);
        }
    }
}

fn behind(heads: &[i64], cursors: &[i64]) -> i64 {
    debug_assert_eq!(heads.len(), SHARDS);
    heads.iter().zip(cursors).map(|(head, cursor)| (head - cursor).max(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(shard: Shard, position: i64) -> StoredEvent {
        let (now, none) = (chrono::Utc::now(), serde_json::Value::Null);
        StoredEvent {
            shard,
            position,
            event_id: uuid::Uuid::now_v7(),
            event_type: "t".to_owned(),
            aggregate_id: "a".to_owned(),
            timestamp: now,
            payload: none.clone(),
            metadata: none,
            ingested_at: now,
        }
    }

    #[test]
    fn a_page_that_was_cut_moves_no_cursor_past_what_it_holds() {
        let heads = vec![10; SHARDS];
        let events = vec![event(0, 4), event(1, 3)];
        let after = |cut| {
            let mut cursors = vec![2; SHARDS];
            advance(&mut cursors, &Page { events: events.clone(), cut }, &heads, 32);
            (cursors[0], cursors[1], cursors[2])
        };
        assert_eq!(after(false), (10, 10, 10), "all there was");
        assert_eq!(after(true), (10, 3, 2));
    }

    #[test]
    fn behind_counts_what_is_above_the_cursors() {
        let mut heads = vec![0; SHARDS];
        let mut cursors = vec![0; SHARDS];
        (heads[3], cursors[3]) = (10, 4);
        (heads[5], cursors[5]) = (2, 7);
        assert_eq!(behind(&heads, &cursors), 6);
    }
}
