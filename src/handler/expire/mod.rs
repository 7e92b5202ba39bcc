//! Deletes rows that nothing has updated for their projection's `retention`.
//!
//! An index on `updated_at` would cost every update its heap-only tuple. Instead all rows of a projection are looked at in
//! the order of their keys, a bounded page at a time with pauses, and seldom: every tenth of the retention. So a row stays
//! for up to a tenth longer (from 10 s to an hour). A projection that has events yet to read is left alone: they may be
//! of these rows.

mod store;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::database::within;
use crate::registry::Catalog;

pub(super) use self::store::{date, drop_rebuilt};

/// How often it is asked whether a projection is due.
const EVERY: Duration = Duration::from_secs(10);
/// Longest time between two passes over a projection.
const SELDOM: Duration = Duration::from_hours(1);
/// Rows in one statement, and the pause after it.
const PAGE: i64 = 2000;
const PAUSE: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) struct Expiry {
    pub pool: PgPool,
    pub catalog: watch::Receiver<Arc<Catalog>>,
}

impl Expiry {
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut due: HashMap<String, Instant> = HashMap::new();
        let mut failing = false;
        while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
            let now = Instant::now();
            let retained = self.retained();
            due.retain(|name, _| retained.iter().any(|(kept, _)| kept == name));
            let mut failed = None;
            for (name, seconds) in retained {
                if due.get(&name).is_some_and(|at| *at > now) {
                    continue;
                }
                let Some(ended) = stop.run_until_cancelled(self.pass(&name, seconds)).await else { return Ok(()) };
                match ended {
                    Ok(()) => drop(due.insert(name, now + pause_between_passes(seconds))),
                    Err(error) => failed = Some((name, error)),
                }
            }
            if let Some((projection, error)) = failed.as_ref().filter(|_| !failing) {
                warn!(%error, projection, "cannot delete rows past the projection's retention: trying again until it can");
            }
            failing = failed.is_some();
        }
        Ok(())
    }

    fn retained(&self) -> Vec<(String, i64)> {
        let catalog = self.catalog.borrow();
        let retained = catalog.projections.iter();
        retained.filter_map(|(name, loaded)| Some((name.clone(), loaded.spec.retention_seconds?))).collect()
    }

    /// Looks at every row of a projection once.
    async fn pass(&self, projection: &str, seconds: i64) -> Result<(), sqlx::Error> {
        let mut after = String::new();
        let mut expired = 0;
        loop {
            let page = within(DEADLINE, store::expire(&self.pool, projection, seconds, &after, PAGE)).await?;
            expired += page.expired;
            match page.last {
                Some(last) => after = last,
                None => break,
            }
            sleep(PAUSE).await;
        }
        if expired > 0 {
            info!(projection, expired, "deleted rows past the projection's retention");
        }
        Ok(())
    }
}

fn pause_between_passes(retention_seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(retention_seconds / 10).unwrap_or(0)).clamp(EVERY, SELDOM)
}
