//! The loop over the group's batches: claim, load, fold, write, commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crds::registration::OnError;
use metrics::{counter, histogram};
use sqlx::{Connection, PgPool};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::notify::Changed;
use super::store::{self, Progress};
use super::{letters, route};
use crate::bus::retry::{Retry, Verdict};
use crate::bus::{BusError, Claim, DEFAULT_TOPIC, EVENT_HANDLER, Reader, Wanted};
use crate::database::within;
use crate::dead_letters::{self, Known};
use crate::event::StoredEvent;
use crate::operate::Gate;
use crate::projection::store::{self as rows, Target};
use crate::projection::{Program, Subject, Working};
use crate::registry::Catalog;

/// A batch that takes longer is undone and tried again.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for news before looking around.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses after the first, second, … failure in a row.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(250), Duration::from_millis(500)];

/// Runs the group's batches.
pub(super) struct Batches {
    pool: PgPool,
    reader: Reader,
    catalog: watch::Receiver<Arc<Catalog>>,
    changed: Changed,
    /// Open while batches get through.
    gate: Gate,
    retry: Retry,
    programs: HashMap<String, Arc<Program>>,
    /// Kafka: it has been told once which topics to read.
    follows: bool,
}

/// How a claim ended.
enum Ended {
    Committed {
        events: usize,
        state_bytes: usize,
    },
    /// Events in some lanes failed: the claim is undone, and those lanes wait.
    Postponed,
    /// A projection stops at an event; the claim is undone.
    Halt {
        projection_type: String,
        message: String,
    },
}

/// A projection in a batch, and what an event that it cannot fold means.
struct Fed {
    subjects: Vec<Subject>,
    on_error: Vec<OnError>,
    /// Hashes of the definitions.
    hashes: Vec<String>,
    /// Those whose definition does not compile: they are to read the event store by the one that is registered, from where
    /// they are, and miss nothing.
    broken: Vec<String>,
}

impl Batches {
    pub fn new(
        pool: PgPool,
        reader: Reader,
        catalog: watch::Receiver<Arc<Catalog>>,
        changed: Changed,
        gate: Gate,
    ) -> Self {
        Self { pool, reader, catalog, changed, gate, retry: Retry::default(), programs: HashMap::new(), follows: false }
    }

    /// Runs until the token is cancelled; a batch under way is finished.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), BusError> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            match self.step(&stop).await {
                Ok(()) => {
                    failures = 0;
                    self.gate.open();
                }
                Err(e @ BusError::ConsumerEnded(_)) => return Err(e),
                Err(e) => {
                    self.reader.failed();
                    self.gate.close("batches do not get through");
                    if failures == 0 {
                        warn!(error = %e, "a batch could not be handled: trying again until it can");
                    }
                    counter!("cornjacket_handler_failures_total").increment(1);
                    tokio::select! {
                        () = sleep(BACKOFF[failures.min(BACKOFF.len() - 1)]) => {}
                        () = stop.cancelled() => {}
                    }
                    failures += 1;
                }
            }
        }
        self.reader.close().await;
        Ok(())
    }

    /// Kafka: reads the topics that are declared, and those that were.
    async fn follow(&mut self) -> Result<(), BusError> {
        if self.reader.is_kafka() && (self.catalog.has_changed().unwrap_or(false) || !self.follows) {
            let readable = self.routes().await?;
            let catalog = self.catalog.borrow_and_update().clone();
            let topics: BTreeSet<String> = catalog
                .topics
                .iter()
                .map(|topic| topic.topic_name.clone())
                .chain(catalog.event_types.values().map(|event_type| event_type.spec.topic.clone()))
                .chain([DEFAULT_TOPIC.to_owned()])
                .chain(readable)
                .collect();
            self.reader.follow(topics.into_iter().collect());
            self.follows = true;
        }
        Ok(())
    }

    /// Looks at what is registered about routes before anything is read by them; returns the topics that may hold events.
    async fn routes(&self) -> Result<Vec<String>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        if route::has_news(&mut connection).await? {
            let mut tx = connection.begin().await?;
            store::lock_group(&mut tx).await?;
            route::look(&mut tx).await?;
            tx.commit().await?;
        }
        route::readable(&mut connection, EVENT_HANDLER).await
    }

    async fn step(&mut self, stop: &CancellationToken) -> Result<(), BusError> {
        self.follow().await?;
        let now = Instant::now();
        let until = self.retry.next(now).map_or(now + LOOK, |next| next.min(now + LOOK));
        let deferred = self.retry.deferred(now);
        tokio::select! {
            ready = self.reader.ready(until, &deferred) => ready?,
            () = stop.cancelled() => return Ok(()),
        }
        let deferred = self.retry.deferred(Instant::now());
        let everything = Wanted { event_types: Vec::new(), prefixes: vec![String::new()] };
        let begun = Instant::now();
        let Some(claim) = within(DEADLINE, self.reader.claim(&everything, &deferred)).await? else {
            return Ok(());
        };
        let ended = within(DEADLINE, self.handle(claim)).await?;
        histogram!("cornjacket_handler_batch_seconds").record(begun.elapsed().as_secs_f64());
        match ended {
            Ended::Committed { events, state_bytes } => {
                self.reader.committed();
                self.reader.weighed(events, state_bytes);
            }
            Ended::Postponed => self.reader.undone(),
            Ended::Halt { projection_type, message } => {
                self.reader.undone();
                self.halt(&projection_type, &message).await?;
            }
        }
        Ok(())
    }

    async fn handle(&mut self, mut claim: Claim) -> Result<Ended, BusError> {
        if claim.gap {
            let detached = store::detach(&mut claim.tx, None, 0.0).await?;
            info!(
                projections = detached,
                "the bus has a gap, or a partition that is new here: projections look into the event store"
            );
        }
        route::follow(&mut claim).await?;
        let fed = self.fed(store::progress(&mut claim.tx).await?);
        if !fed.broken.is_empty() {
            let broken: Vec<&str> = fed.broken.iter().map(String::as_str).collect();
            store::detach(&mut claim.tx, Some(&broken), 0.0).await?;
        }
        self.keep_late(&mut claim, &fed).await?;
        let events = std::mem::take(&mut claim.events);
        let mut working = Working::plan(&fed.subjects, &events);
        let loaded = rows::load(&mut claim.tx, Target::Live, &fed.subjects, &working.keys()).await?;
        let state_bytes = loaded.state_bytes;
        working.fold(loaded.rows);
        if let Some(ended) = self.judge(&mut claim, &working, &events, &fed).await? {
            // Undone at once: a transaction that is only dropped holds its locks a little longer.
            claim.tx.rollback().await?;
            return Ok(ended);
        }
        let changed = working.changed();
        rows::write(&mut claim.tx, Target::Live, &fed.subjects, &changed).await?;
        claim.tx.commit().await?;
        self.retry.settled(&claim.lanes);
        for number in changed.iter().map(|(key, _)| key.0).collect::<BTreeSet<_>>() {
            self.changed.add(&fed.subjects[number].projection_type);
        }
        record(&working, &events);
        Ok(Ended::Committed { events: events.len(), state_bytes })
    }

    /// The projections that the group feeds, compiled.
    fn fed(&mut self, progress: Vec<Progress>) -> Fed {
        let mut fed = Fed { subjects: Vec::new(), on_error: Vec::new(), hashes: Vec::new(), broken: Vec::new() };
        let mut used = HashMap::new();
        for row in progress.into_iter().filter(Progress::is_fed) {
            let (Some(hash), Some(spec)) = (row.live_hash, row.live_spec) else { continue };
            let program = match self.programs.get(&hash) {
                Some(program) => program.clone(),
                None => match Program::compile(&spec) {
                    Ok(program) => Arc::new(program),
                    Err(cause) => {
                        error!(projection = row.projection_type, cause, "the definition served no longer compiles");
                        fed.broken.push(row.projection_type);
                        continue;
                    }
                },
            };
            used.insert(hash.clone(), program.clone());
            fed.hashes.push(hash);
            fed.on_error.push(spec.on_error);
            fed.subjects.push(Subject {
                projection_type: row.projection_type,
                program,
                applied_through: row.applied_through,
            });
        }
        self.programs = used;
        fed
    }

    /// Decides what the failures of a batch mean; `None`: it may be written.
    async fn judge(
        &mut self,
        claim: &mut Claim,
        working: &Working<'_>,
        events: &[StoredEvent],
        fed: &Fed,
    ) -> Result<Option<Ended>, BusError> {
        if working.failures.is_empty() {
            return Ok(None);
        }
        let now = Instant::now();
        let mut failing: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for failure in &working.failures {
            failing.entry(claim.lanes[failure.event]).or_default().insert(events[failure.event].event_id);
        }
        let verdicts: Vec<_> = failing.iter().map(|(lane, failing)| self.retry.failed(*lane, failing, now)).collect();
        if verdicts.contains(&Verdict::Again) {
            counter!("cornjacket_handler_retries_total").increment(1);
            return Ok(Some(Ended::Postponed));
        }
        let mut letters = Vec::new();
        for failure in &working.failures {
            let (event, subject) = (&events[failure.event], &fed.subjects[failure.subject]);
            if fed.on_error[failure.subject] == OnError::Halt {
                let message = format!("event {}: {}", event.event_id, failure.error);
                return Ok(Some(Ended::Halt { projection_type: subject.projection_type.clone(), message }));
            }
            warn!(
                event_id = %event.event_id, projection = subject.projection_type, error = %failure.error,
                "event cannot be folded: it goes to the dead letters"
            );
            counter!("cornjacket_handler_dead_letters_total").increment(1);
            let tried = self.retry.tried(claim.lanes[failure.event], event.event_id);
            let retries = i32::try_from(tried).unwrap_or(i32::MAX);
            let cause = failure.error.to_string();
            let definition = &fed.hashes[failure.subject];
            letters.push(letters::of(event, &subject.projection_type, definition, &cause, retries));
        }
        dead_letters::store::write(&mut claim.tx, &letters, Known::Stays).await?;
        Ok(None)
    }

    /// Events that came late cannot be folded last: their projections get letters, of which the replay is asked for at once.
    async fn keep_late(&self, claim: &mut Claim, fed: &Fed) -> Result<(), sqlx::Error> {
        let late = std::mem::take(&mut claim.late);
        let reads = |event: &StoredEvent| {
            let readers = fed.subjects.iter().zip(&fed.hashes);
            let event = event.clone();
            readers.filter(move |(subject, _)| subject.program.reads(&event.event_type))
        };
        let cause = "it came late: the bus had refused it";
        let letters: Vec<_> = late
            .iter()
            .flat_map(|event| reads(event).map(|(s, hash)| letters::of(event, &s.projection_type, hash, cause, 0)))
            .collect();
        dead_letters::store::write(&mut claim.tx, &letters, Known::Stays).await?;
        dead_letters::store::request(&mut claim.tx, &letters).await
    }

    async fn halt(&self, projection_type: &str, message: &str) -> Result<(), sqlx::Error> {
        error!(projection = projection_type, cause = message, "projection halted");
        let mut tx = self.pool.begin().await?;
        store::lock_group(&mut tx).await?;
        store::halt_fed(&mut tx, projection_type, message).await?;
        tx.commit().await
    }
}

fn record(working: &Working<'_>, events: &[StoredEvent]) {
    let tally = working.tally;
    counter!("cornjacket_handler_events_total").increment(events.len() as u64);
    counter!("cornjacket_handler_folds_total", "outcome" => "applied").increment(tally.applied);
    counter!("cornjacket_handler_folds_total", "outcome" => "filtered").increment(tally.filtered);
    counter!("cornjacket_handler_folds_total", "outcome" => "seen").increment(tally.seen);
    counter!("cornjacket_handler_folds_total", "outcome" => "stale").increment(tally.stale);
    let now = chrono::Utc::now();
    let end_to_end = histogram!("cornjacket_end_to_end_seconds");
    for event in events {
        end_to_end.record((now - event.ingested_at).as_seconds_f64().max(0.0));
    }
}
