//! What happens to deliveries as time passes: claims of the dead are freed, what waits too long expires, what is old is
//! forgotten; and the event store is told what has been read.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::endpoint::Endpoints;
use super::intake::CURSORS;
use super::store::endpoints as remembered;
use super::store::upkeep::{self as store, Bounds};
use crate::bus::embedded::store as event_store;
use crate::database::within;

const EVERY: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(30);
/// Pages of one kind in a round: far more than come between two rounds.
const PAGES: usize = 100;

/// Rounds in which several processes deliver before that is said: for a while they do at every rollout.
const SEVERAL: u32 = 60;

/// What one round remembers for the next.
#[derive(Default)]
struct Notes {
    /// Positions that the event store was told last.
    reported: Vec<i64>,
    /// Rounds in a row in which several processes delivered.
    together: u32,
    warned: bool,
    /// Actions that have gauges.
    measured: BTreeSet<String>,
}

pub(super) struct Upkeep {
    pub pool: PgPool,
    pub ingestion: PgPool,
    pub endpoints: watch::Receiver<Arc<Endpoints>>,
    pub namespace: String,
    pub instance: Uuid,
    /// How long deliveries that ended are kept.
    pub keep: Duration,
    /// Whether this process has its state for itself.
    pub alone: bool,
}

impl Upkeep {
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let (mut failing, mut notes) = (false, Notes::default());
        while !stop.is_cancelled() {
            let Some(ended) =
                stop.run_until_cancelled(within::<_, sqlx::Error>(DEADLINE, self.round(&mut notes))).await
            else {
                break;
            };
            match ended {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(%error, "deliveries cannot be looked after: trying again until they can");
                    }
                }
            }
            stop.run_until_cancelled(sleep(EVERY)).await;
        }
        Ok(())
    }

    async fn round(&self, notes: &mut Notes) -> Result<(), sqlx::Error> {
        if self.alone && !notes.warned {
            notes.together = if store::processes(&self.pool).await? > 1 { notes.together + 1 } else { 0 };
            if notes.together > SEVERAL {
                notes.warned = true;
                warn!(
                    "several processes deliver, each with limits, breakers and keys of its own: give all of them one \
                     Redis (--redis-url, REDIS_URL)"
                );
            }
        }
        let freed = store::free_lost(&self.pool, self.instance).await?;
        if freed > 0 {
            info!(freed, "deliveries that a lost process had under way are attempted again");
            counter!("cornjacket_deliveries_freed_total").increment(freed);
        }
        let endpoints = self.endpoints.borrow().clone();
        self.expire(&endpoints).await?;
        self.cancel().await?;
        let seconds = i64::try_from(self.keep.as_secs()).unwrap_or(i64::MAX);
        for _ in 0..PAGES {
            let forgotten = store::forget(&self.pool, seconds).await?;
            counter!("cornjacket_deliveries_forgotten_total").increment(forgotten);
            if forgotten < store::ROWS.unsigned_abs() {
                break;
            }
        }
        // Another process may have forgotten one that was removed and made again in one go.
        let names: Vec<&str> = endpoints.matchers.keys().map(String::as_str).collect();
        remembered::since(&self.pool, &names).await?;
        self.measure(&endpoints, &mut notes.measured).await?;
        let positions = CURSORS.positions(&self.pool).await?;
        if notes.reported != positions {
            event_store::report_reader(&self.ingestion, CURSORS.group(), &positions).await?;
            notes.reported = positions;
        }
        Ok(())
    }

    async fn expire(&self, endpoints: &Endpoints) -> Result<(), sqlx::Error> {
        let bounds = |endpoint: &Arc<super::endpoint::Endpoint>| {
            let limit = &endpoint.spec.rate_limit;
            (endpoint.key.name.clone(), i64::from(limit.max_waiting), limit.max_wait_ms)
        };
        let bounds: Vec<_> = endpoints.by_name.values().map(bounds).collect();
        let bounds: Vec<Bounds<'_>> =
            bounds.iter().map(|(action, most, longest)| Bounds { action, most: *most, longest_ms: *longest }).collect();
        let mut all: BTreeMap<String, i64> = BTreeMap::new();
        for _ in 0..PAGES {
            let expired = store::expire(&self.pool, &bounds).await?;
            let full = expired.iter().any(|(_, count)| *count >= store::ROWS);
            for (action, count) in expired {
                *all.entry(action).or_default() += count;
            }
            if !full {
                break;
            }
        }
        for (action, expired) in all {
            warn!(action, expired, "deliveries expired: they waited too long, or too many waited");
            counter!("cornjacket_deliveries_total", "outcome" => "expired").increment(expired.unsigned_abs());
        }
        Ok(())
    }

    async fn cancel(&self) -> Result<(), sqlx::Error> {
        let mut cancelled = 0;
        for _ in 0..PAGES {
            let some = store::cancel_removed(&self.pool, &self.namespace).await?;
            cancelled += some;
            if some < store::ROWS.unsigned_abs() {
                break;
            }
        }
        if cancelled > 0 {
            info!(cancelled, "deliveries cancelled: their action was removed");
            counter!("cornjacket_deliveries_total", "outcome" => "cancelled").increment(cancelled);
        }
        Ok(())
    }

    /// Of actions that are gone, nothing waits.
    async fn measure(&self, endpoints: &Endpoints, measured: &mut BTreeSet<String>) -> Result<(), sqlx::Error> {
        let actions: Vec<&str> = endpoints.by_name.keys().map(String::as_str).collect();
        for gone in measured.iter().filter(|action| !endpoints.by_name.contains_key(*action)) {
            gauges(gone, 0, 0.0);
            gauge!("cornjacket_breaker_open", "action" => gone.clone()).set(0.0);
        }
        for (action, waiting, oldest) in store::waiting(&self.pool, &actions).await? {
            gauges(&action, waiting, oldest);
        }
        *measured = endpoints.by_name.keys().cloned().collect();
        Ok(())
    }
}

fn gauges(action: &str, waiting: i64, oldest: f64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    gauge!("cornjacket_deliveries_waiting", "action" => action.to_owned()).set(waiting as f64);
    gauge!("cornjacket_deliveries_oldest_seconds", "action" => action.to_owned()).set(oldest);
}
