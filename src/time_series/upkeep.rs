//! Upkeep of the tables: partitions ahead, and those past their retention. Every instance tries; one does it at a time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use metrics::counter;
use rand::RngExt;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::layout::{Layout, Partitions};
use super::{partitions, store};
use crate::database::is_outage;
use crate::registry::{Catalog, LoadedSeries};

/// How often; each instance waits up to a quarter longer, by chance.
const EVERY: Duration = Duration::from_mins(1);
/// While a series has been registered of late, its table may come any moment.
const SOON: Duration = Duration::from_secs(2);

/// Keeps the tables in order until stopped.
pub(super) struct Upkeep {
    pub pool: PgPool,
    pub catalog: watch::Receiver<Arc<Catalog>>,
}

impl Upkeep {
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        while !stop.is_cancelled() {
            let catalog = self.catalog.borrow_and_update().clone();
            let round = self.round(&catalog, Utc::now());
            let pause = match stop.run_until_cancelled(Box::pin(round)).await {
                Some(Ok(true)) => EVERY + Duration::from_millis(rand::rng().random_range(0..15_000)),
                Some(Ok(false)) => SOON,
                Some(Err(error)) => {
                    warn!(%error, "upkeep of time series failed: trying again soon");
                    EVERY / 4
                }
                None => break,
            };
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.catalog.changed() => if changed.is_err() { sleep(EVERY).await },
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// One round, if no other instance is at it. False: some table is not there yet.
    async fn round(&self, catalog: &Catalog, now: DateTime<Utc>) -> Result<bool, sqlx::Error> {
        if catalog.series.is_empty() {
            return Ok(true);
        }
        let mut lock = self.pool.begin_with("BEGIN; SET LOCAL idle_in_transaction_session_timeout = '15min'").await?;
        let mut all = true;
        if store::lock_upkeep(&mut lock).await? {
            for loaded in catalog.series.values() {
                // One whose table is locked by somebody holds up no other.
                all &= match self.look_after(loaded, now).await {
                    Ok(is_there) => is_there,
                    Err(error) if is_outage(&error) && !is_locked(&error) => return Err(error),
                    Err(error) => {
                        warn!(series = loaded.spec.projection_type, %error, "the partitions of a time series could not be looked after");
                        false
                    }
                };
            }
        }
        lock.commit().await?;
        Ok(all)
    }

    async fn look_after(&self, loaded: &LoadedSeries, now: DateTime<Utc>) -> Result<bool, sqlx::Error> {
        let (series, name) = (&loaded.series, &loaded.spec.projection_type);
        let Some(made) = store::made(&self.pool, &series.table, name).await? else { return Ok(false) };
        let mut there = Partitions::new(self.pool.clone(), series, Layout::named(&made.layout));
        let ahead = there.ensure(&partitions::ahead(now, TimeDelta::seconds(series.chunk_seconds))).await?;
        if ahead > 0 {
            info!(series = name, made = ahead, "made partition(s) of a time series ahead");
        }
        let Some(oldest) = now.checked_sub_signed(TimeDelta::seconds(series.retention_seconds)) else {
            return Ok(true);
        };
        let dropped = there.drop_before(oldest).await?;
        if dropped > 0 {
            counter!("cornjacket_series_partitions_dropped_total").increment(dropped as u64);
            info!(series = name, dropped, "dropped partition(s) of a time series past their retention");
        }
        Ok(true)
    }
}

/// Somebody else holds a lock that is waited for.
fn is_locked(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.code().as_deref() == Some("55P03"))
}
