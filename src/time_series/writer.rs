//! The loop over one series' batches: claim, make rows, write, commit.

mod write;

use std::sync::Arc;
use std::time::Duration;

use crds::registration::StartFrom;
use metrics::{counter, histogram};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::layout::{Layout, Partitions};
use super::reader_name;
use super::store::{self, statement};
use crate::bus::embedded::EmbeddedReader;
use crate::bus::embedded::store::{Cursors, heads, report_reader};
use crate::bus::retry::Retry;
use crate::bus::wake::Wake;
use crate::bus::{BusError, Reader, Wanted};
use crate::database::within;
use crate::event::SHARDS;
use crate::registry::{Acks, LoadedSeries};

/// A batch that takes longer is undone and tried again.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for news before looking around.
const LOOK: Duration = Duration::from_secs(1);
/// While the table is not as declared, and while the series is halted, it is looked at again after this long.
const AGAIN: Duration = Duration::from_millis(500);
/// Pauses after the first, second, … failure in a row.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(250), Duration::from_millis(500)];

/// What a series' task works with.
pub(super) struct Tools {
    /// For what is done beside a batch: who holds a connection for a batch never waits for another of the same pool.
    pub pool: PgPool,
    /// For the transactions of batches.
    pub batches: PgPool,
    pub ingestion: PgPool,
    pub cursors: Cursors,
    pub poll: Duration,
    pub wake: Wake,
    pub acks: Acks,
}

/// Writes one series.
pub(super) struct Writer {
    tools: Tools,
    loaded: Arc<LoadedSeries>,
    wanted: Wanted,
    insert: String,
    reader: Reader,
    retry: Retry,
    /// `None` until the table is there as declared.
    partitions: Option<Partitions>,
    /// The database refused a row of the last batch: rows are written one by one, until it is known which.
    careful: bool,
    /// Nothing is claimed until the definition is another.
    halted: bool,
}

/// How a claim ended.
enum Ended {
    Committed,
    /// Events in some lanes failed: the claim is undone, and those lanes wait.
    Postponed,
    /// The series stops at an event; the claim is undone.
    Halt(String),
    /// It is halted already.
    Halted(String),
}

impl Writer {
    pub fn new(tools: Tools, loaded: Arc<LoadedSeries>) -> Self {
        let source = loaded.program.source();
        let wanted = Wanted { event_types: source.event_types.clone(), prefixes: source.prefixes.clone() };
        let (batches, ingestion) = (tools.batches.clone(), tools.ingestion.clone());
        let reader =
            Reader::Embedded(EmbeddedReader::new(tools.cursors, batches, ingestion, tools.wake.clone(), tools.poll));
        let insert = statement::insert(&loaded.series);
        Self {
            tools,
            loaded,
            wanted,
            insert,
            reader,
            retry: Retry::default(),
            partitions: None,
            careful: false,
            halted: false,
        }
    }

    fn name(&self) -> &str {
        &self.loaded.spec.projection_type
    }

    /// Runs until the token is cancelled; a batch under way is finished.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let pause = match self.step(&stop).await {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                Err(error) => {
                    self.reader.failed();
                    self.partitions = None;
                    if failures == 0 {
                        warn!(series = self.name(), %error, "rows of a time series could not be written: trying again until they can");
                    }
                    counter!("cornjacket_series_failures_total").increment(1);
                    failures += 1;
                    BACKOFF[(failures - 1).min(BACKOFF.len() - 1)]
                }
            };
            stop.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// One batch, at most. Returns how long to wait before the next.
    async fn step(&mut self, stop: &CancellationToken) -> Result<Duration, BusError> {
        if self.halted || self.partitions.is_none() && !within(DEADLINE, self.begin()).await? {
            return Ok(AGAIN);
        }
        let now = Instant::now();
        let until = self.retry.next(now).map_or(now + LOOK, |next| next.min(now + LOOK));
        let deferred = self.retry.deferred(now);
        tokio::select! {
            ready = self.reader.ready(until, &deferred) => ready?,
            () = stop.cancelled() => return Ok(Duration::ZERO),
        }
        let deferred = self.retry.deferred(Instant::now());
        let begun = Instant::now();
        let Some(claim) = within(DEADLINE, self.reader.claim(&self.wanted, &deferred)).await? else {
            return Ok(Duration::ZERO);
        };
        let ended = within(DEADLINE, self.handle(claim)).await?;
        histogram!("cornjacket_series_batch_seconds").record(begun.elapsed().as_secs_f64());
        self.settle(ended).await
    }

    async fn settle(&mut self, ended: Ended) -> Result<Duration, BusError> {
        match ended {
            Ended::Committed => self.reader.committed(),
            Ended::Postponed => self.reader.undone(),
            Ended::Halt(message) => {
                error!(series = self.name(), cause = message, "time series halted");
                store::halt(&self.tools.pool, self.name(), &self.loaded.hash, &message).await?;
                self.rest(&message);
            }
            Ended::Halted(message) => self.rest(&message),
        }
        Ok(Duration::ZERO)
    }

    /// Until the definition is another, which is another task's.
    fn rest(&mut self, message: &str) {
        self.tools.acks.report(&self.loaded.key, &self.loaded.hash, Err(format!("halted: {message}")));
        self.reader.undone();
        self.halted = true;
    }

    /// Looks whether the table is there as declared; then the series runs. `false`: the controllers have not made it so yet.
    async fn begin(&mut self) -> Result<bool, BusError> {
        let LoadedSeries { series, key, hash, spec, .. } = &*self.loaded;
        let Some(made) = store::made(&self.tools.pool, &series.table, &spec.projection_type).await? else {
            return Ok(false);
        };
        if !store::fits(&made, series) {
            return Ok(false);
        }
        let start = match spec.start_from {
            StartFrom::Earliest => vec![0; SHARDS],
            StartFrom::Latest => heads(&self.tools.ingestion).await?,
        };
        if self.tools.cursors.make(&self.tools.pool, &start).await? > 0 {
            info!(series = spec.projection_type, from = ?spec.start_from, "time series begun");
        }
        // What it has not read is kept from now on.
        let positions = self.tools.cursors.positions(&self.tools.pool).await?;
        report_reader(&self.tools.ingestion, &reader_name(&series.table), &positions).await?;
        store::begin(&self.tools.pool, &spec.projection_type, &series.table, hash).await?;
        self.partitions = Some(Partitions::new(self.tools.pool.clone(), series, Layout::named(&made.layout)));
        self.tools.acks.report(key, hash, Ok(()));
        Ok(true)
    }
}
