//! Reconciles what is registered with where each projection is, and acknowledges what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::plan::{Change, Wanted, decide};
use super::store::{self, Progress};
use crate::bus::embedded::store as cursors;
use crate::bus::wake::Wake;
use crate::bus::{BusError, EVENT_HANDLER};
use crate::database::within;
use crate::event::{SHARDS, ShardSet};
use crate::operate::Gate;
use crate::projection::store::{self as rows, Target};
use crate::registry::{Acks, Catalog, LoadedProjection};

/// How often everything is looked at, changed or not.
const EVERY: Duration = Duration::from_secs(1);
/// How often the group's positions are reported, in rounds.
const REPORT_EVERY: u32 = 10;
/// How long streams can learn from the log of changes what they missed, in seconds; later they look at all rows.
const CHANGES_KEPT: i64 = 300;
const DEADLINE: Duration = Duration::from_mins(30);

pub(super) struct Supervisor {
    pub pool: PgPool,
    pub ingestion: PgPool,
    pub bus: &'static str,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub acks: Acks,
    pub gate: Gate,
    pub catching_up: Wake,
}

impl Supervisor {
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut failing = false;
        let mut begun = false;
        let mut rounds: u32 = 0;
        let mut reported = Vec::new();
        // Before the first load the catalog is empty, which must not be taken for "nothing is registered".
        if stop.run_until_cancelled(self.catalog.changed()).await.is_none() {
            return Ok(());
        }
        while !stop.is_cancelled() {
            let catalog = self.catalog.borrow_and_update().clone();
            let round = async {
                if !begun {
                    self.begin().await?;
                }
                self.round(&catalog).await?;
                if rounds.is_multiple_of(REPORT_EVERY) {
                    self.report(&mut reported).await?;
                    rows::forget_changes(&mut *self.pool.acquire().await?, CHANGES_KEPT).await?;
                }
                Ok(())
            };
            // Each part is a transaction: one that is cut short is done again by whoever comes next.
            let Some(ended) = stop.run_until_cancelled(within::<_, BusError>(DEADLINE, round)).await else { break };
            match ended {
                Ok(()) => {
                    begun = true;
                    failing = false;
                    self.gate.open();
                }
                Err(error) => {
                    if !failing {
                        warn!(%error, "cannot reconcile projections: trying again until it can");
                    }
                    failing = true;
                    self.gate.close("the database of the projections is away");
                }
            }
            rounds = rounds.wrapping_add(1);
            tokio::select! {
                changed = self.catalog.changed() => if changed.is_err() { sleep(EVERY).await; },
                () = sleep(EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Makes the group's cursors, and sends everything through the event store once if the bus is another than before.
    async fn begin(&self) -> Result<(), BusError> {
        cursors::EVENT_HANDLER.make(&self.pool, &[0; SHARDS]).await?;
        let mut tx = self.pool.begin().await?;
        store::lock_group(&mut tx).await?;
        let before = store::choose_bus(&mut tx, EVENT_HANDLER, self.bus).await?;
        if let Some(before) = before.filter(|before| before != self.bus) {
            info!(before, now = self.bus, "the bus changed: projections catch up from the event store");
            store::detach(&mut tx, None, 0.0).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn round(&self, catalog: &Catalog) -> Result<(), BusError> {
        let progress = self.reconcile(catalog).await?;
        if progress.iter().any(Progress::is_catching_up) {
            self.catching_up.hear(ShardSet::ALL);
        }
        for row in &progress {
            if let Some(loaded) = catalog.projections.get(&row.projection_type) {
                acknowledge(&self.acks, loaded, row);
            }
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            gauge!("cornjacket_projection_behind", "projection" => row.projection_type.clone()).set(row.behind as f64);
        }
        Ok(())
    }

    /// Says how far the group has come in the event store, so that nothing unread is dropped. On Kafka it is not its reader.
    async fn report(&self, reported: &mut Vec<i64>) -> Result<(), BusError> {
        let progress = store::progress(&mut *self.pool.acquire().await?).await?;
        let unread = |row: &&Progress| row.is_catching_up() || row.status == "halted";
        let readers: Vec<(String, Vec<i64>)> =
            progress.iter().filter(unread).map(|row| (row.reader_name(), row.cursors.clone())).collect();
        for (reader, cursors) in &readers {
            cursors::report_reader(&self.ingestion, reader, cursors).await?;
        }
        store::forget_readers_but(&self.ingestion, readers.into_iter().map(|(reader, _)| reader).collect()).await?;
        if self.bus != "embedded" {
            return Ok(store::forget_reader(&self.ingestion, EVENT_HANDLER).await?);
        }
        let positions = cursors::EVENT_HANDLER.positions(&self.pool).await?;
        if *reported != positions {
            cursors::report_reader(&self.ingestion, EVENT_HANDLER, &positions).await?;
            *reported = positions;
        }
        Ok(())
    }

    /// Applies what [`decide`] says, under the group's lock, if anything is to be changed. While rows are being replaced, which
    /// may take long, it is left for a later round: waiting for them, it would hold up every batch.
    async fn reconcile(&self, catalog: &Catalog) -> Result<Vec<Progress>, BusError> {
        let wanted = wanted(catalog);
        let mut connection = self.pool.acquire().await?;
        let progress = store::progress(&mut connection).await?;
        drop(connection);
        if changes(&wanted, &progress, &[], self.bus == "kafka").is_empty() {
            return Ok(progress);
        }
        let mut tx = self.pool.begin().await?;
        if !store::keep_from_replacing(&mut tx).await? {
            return Ok(progress);
        }
        // Deleting the rows of a large projection may take long.
        store::take_long(&mut tx).await?;
        store::lock_group(&mut tx).await?;
        let heads = cursors::heads(&self.ingestion).await?;
        let progress = store::lock_progress(&mut tx).await?;
        for change in changes(&wanted, &progress, &heads, self.bus == "kafka") {
            apply(&mut tx, &change).await?;
        }
        let progress = store::progress(&mut tx).await?;
        tx.commit().await?;
        Ok(progress)
    }
}

async fn apply(connection: &mut PgConnection, change: &Change) -> Result<(), sqlx::Error> {
    let projection = &change.to.projection_type;
    info!(projection, "projection {}", change.what);
    for (clear, target) in [(change.clear_live, Target::Live), (change.clear_beside, Target::Beside)] {
        if clear {
            rows::clear(connection, target, projection).await?;
        }
    }
    store::save(connection, &change.to, None).await
}

fn wanted(catalog: &Catalog) -> BTreeMap<String, Wanted> {
    let entry = |(name, loaded): (&String, &Arc<LoadedProjection>)| {
        (name.clone(), Wanted { spec: loaded.spec.clone(), hash: loaded.spec.definition_hash() })
    };
    catalog.projections.iter().map(entry).collect()
}

fn changes(wanted: &BTreeMap<String, Wanted>, progress: &[Progress], heads: &[i64], kafka: bool) -> Vec<Change> {
    let is: BTreeMap<&str, &Progress> = progress.iter().map(|row| (row.projection_type.as_str(), row)).collect();
    let names: BTreeSet<&str> = wanted.keys().map(String::as_str).chain(is.keys().copied()).collect();
    names.into_iter().filter_map(|name| decide(wanted.get(name), is.get(name).copied(), heads, kafka)).collect()
}

/// A projection runs when its rows are those of the registered definition, and kept up to date.
fn acknowledge(acks: &Acks, loaded: &LoadedProjection, row: &Progress) {
    let served = row.live_hash.as_ref() == Some(&loaded.spec.definition_hash());
    if row.status == "halted" {
        acks.report(&loaded.key, &loaded.hash, Err("halted: see its message in projection_progress".to_owned()));
    } else if served {
        acks.report(&loaded.key, &loaded.hash, Ok(()));
    }
}
