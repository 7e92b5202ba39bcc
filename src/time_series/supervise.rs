//! Starts and ends the tasks of series as they are registered, wakes them, and says how far each is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::gauge;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::writer::{Tools, Writer};
use super::{TimeSeries, reader_name, store};
use crate::bus::BusError;
use crate::bus::embedded::store::{Cursors, heads, report_reader};
use crate::bus::wake::Wake;
use crate::database::{self, within};
use crate::event::ShardSet;
use crate::operate::Gate;
use crate::registry::{Acks, Catalog, LoadedSeries};

/// Between two reports of how far series are.
const EVERY: Duration = Duration::from_secs(2);
/// Of a report.
const DEADLINE: Duration = Duration::from_secs(30);
/// Connections to each database that the tasks share for their batches.
const CONNECTIONS: u32 = 6;

/// A series whose task runs.
struct Running {
    hash: String,
    table: String,
    wake: Wake,
    stop: CancellationToken,
}

pub(super) struct Supervisor {
    pool: PgPool,
    /// The tasks' own: they are busy all the time.
    busy: (PgPool, PgPool),
    ingestion: PgPool,
    poll: Duration,
    catalog: watch::Receiver<Arc<Catalog>>,
    acks: Acks,
    gate: Gate,
    news: Wake,
    running: BTreeMap<String, Running>,
    /// What was reported last of each reader.
    reported: BTreeMap<String, Vec<i64>>,
    tasks: JoinSet<()>,
}

impl Supervisor {
    pub fn new(of: TimeSeries) -> Self {
        let TimeSeries { pool, ingestion, event_store: news, poll, catalog, acks, gate, .. } = of;
        let busy = (database::own(&pool, CONNECTIONS), database::own(&ingestion, CONNECTIONS));
        let (running, reported, tasks) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        Self { pool, busy, ingestion, poll, catalog, acks, gate, news, running, reported, tasks }
    }

    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let (mut failing, mut next) = (false, Instant::now());
        // Before the first load the catalog is empty, which must not be taken for "nothing is registered".
        let _ = stop.run_until_cancelled(self.catalog.wait_for(|catalog| catalog.loaded)).await;
        while !stop.is_cancelled() {
            self.follow(&stop);
            if Instant::now() >= next {
                let Some(ended) = stop.run_until_cancelled(within(DEADLINE, self.report())).await else { break };
                self.judge(&ended, &mut failing);
                next = Instant::now() + EVERY;
            }
            tokio::select! {
                shards = self.news.take() => self.running.values().for_each(|series| series.wake.hear(shards)),
                changed = self.catalog.changed() => if changed.is_err() { sleep(EVERY).await },
                Some(ended) = self.tasks.join_next() => self.ended(&ended),
                () = sleep_until(next) => {}
                () = stop.cancelled() => {}
            }
        }
        // Each finishes its batch.
        while self.tasks.join_next().await.is_some() {}
        Ok(())
    }

    fn judge(&self, ended: &Result<(), BusError>, failing: &mut bool) {
        match ended {
            Ok(()) => {
                *failing = false;
                self.gate.open();
            }
            Err(error) => {
                if !std::mem::replace(failing, true) {
                    warn!(%error, "cannot look after time series: trying again until it can");
                }
                self.gate.close("the database of the time series is away");
            }
        }
    }

    /// A task that died is started anew with the next look.
    fn ended(&mut self, ended: &Result<(), tokio::task::JoinError>) {
        if let Err(died) = ended {
            error!(%died, "the task of a time series died: all are started anew");
            self.running.values().for_each(|series| series.stop.cancel());
            self.running.clear();
        }
    }

    /// One task for each series that is registered. Of a changed one the old task ends beside the new: locks keep them apart.
    fn follow(&mut self, stop: &CancellationToken) {
        let catalog = self.catalog.borrow_and_update().clone();
        self.running.retain(|name, running| {
            let stays = catalog.series.get(name).is_some_and(|loaded| loaded.hash == running.hash);
            if !stays {
                running.stop.cancel();
            }
            stays
        });
        for (name, loaded) in &catalog.series {
            if !self.running.contains_key(name) {
                let running = self.start(loaded, stop);
                self.running.insert(name.clone(), running);
            }
        }
    }

    fn start(&mut self, loaded: &Arc<LoadedSeries>, stop: &CancellationToken) -> Running {
        let (wake, stop) = (Wake::default(), stop.child_token());
        wake.hear(ShardSet::ALL);
        let tools = Tools {
            pool: self.pool.clone(),
            batches: self.busy.0.clone(),
            ingestion: self.busy.1.clone(),
            cursors: cursors(&loaded.series.table),
            poll: self.poll,
            wake: wake.clone(),
            acks: self.acks.clone(),
        };
        self.tasks.spawn(Writer::new(tools, loaded.clone()).run(stop.clone()));
        Running { hash: loaded.hash.clone(), table: loaded.series.table.clone(), wake, stop }
    }

    /// How far each series is: for people, for metrics, and so that nothing unread is dropped from the event store.
    async fn report(&mut self) -> Result<(), BusError> {
        let names: Vec<String> = self.running.keys().cloned().collect();
        store::retire_but(&self.pool, &names).await?;
        let readers: Vec<String> = self.running.values().map(|series| reader_name(&series.table)).collect();
        store::forget_readers_but(&self.ingestion, &readers).await?;
        if names.is_empty() {
            return Ok(());
        }
        let heads = heads(&self.ingestion).await?;
        let mut progress = Vec::with_capacity(names.len());
        for (name, series) in &self.running {
            let positions = cursors(&series.table).positions(&self.pool).await?;
            let reader = reader_name(&series.table);
            if self.reported.get(&reader) != Some(&positions) {
                report_reader(&self.ingestion, &reader, &positions).await?;
                self.reported.insert(reader, positions.clone());
            }
            let behind: i64 = heads.iter().zip(&positions).map(|(head, at)| (head - at).max(0)).sum();
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            gauge!("cornjacket_series_behind", "series" => name.clone()).set(behind as f64);
            progress.push((name.clone(), positions.iter().sum(), behind));
        }
        Ok(store::report(&self.pool, &progress).await?)
    }
}

/// The cursors of a series. A group is named once, for the life of the process: there are as many as tables.
fn cursors(table: &str) -> Cursors {
    static GROUPS: Mutex<BTreeMap<String, &'static str>> = Mutex::new(BTreeMap::new());
    let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    let group = groups.entry(table.to_owned()).or_insert_with(|| super::group(table).leak());
    Cursors::of(group, "series_cursor")
}
