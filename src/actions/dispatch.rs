//! Deliveries that are due are claimed and attempted: many at a time, each endpoint within its own bounds.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use metrics::{counter, gauge};
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::attempt::{Attempt, Delivery, Sender};
use super::endpoint::{Endpoint, Endpoints};
use super::lanes::{Bounds, Lanes};
use super::settle::Settled;
use super::state::{Ask, Grant, State, StateError};
use super::store::attempts::{self as store, Share};
use super::wake::Made;
use crate::database::within;
use crate::operate::Gate;

/// How much longer than its attempt a claim holds.
const LEASE: Duration = Duration::from_secs(30);
/// A claim of which the attempt has not begun by then is given back: a process that says nothing for 15 s is taken for dead, and
/// what it has is somebody else's.
const STALE: Duration = Duration::from_secs(8);
/// Longest wait before looking around: other processes make deliveries too.
const LOOK: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);
/// Longest wait before the state is asked again: another process may have changed it.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// At shutdown, how long attempts under way may take to end; what is left is attempted again by others.
const GRACE: Duration = Duration::from_secs(10);

/// An attempt that ended, and whose it was.
pub(super) struct Done {
    pub endpoint: Arc<Endpoint>,
    pub delivery: Delivery,
    /// `None`: too late to be made, the claim may be somebody else's.
    pub attempt: Option<Attempt>,
}

#[derive(Debug, thiserror::Error)]
enum DispatchError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

pub(super) struct Dispatcher {
    pub pool: PgPool,
    pub instance: Uuid,
    pub endpoints: watch::Receiver<Arc<Endpoints>>,
    pub state: State,
    pub sender: Sender,
    pub made: Made,
    pub done: mpsc::Sender<Done>,
    pub settled: mpsc::Receiver<Settled>,
    pub gate: Gate,
    pub bounds: Bounds,
}

impl Dispatcher {
    /// Runs until stopped; then waits a little for what is under way.
    ///
    /// # Errors
    /// An attempt died, or who keeps its results did.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        let mut lanes = Lanes::new(self.bounds);
        let mut attempts = JoinSet::new();
        let mut looked = Instant::now();
        let mut failing = false;
        while !stop.is_cancelled() {
            let endpoints = self.endpoints.borrow_and_update().clone();
            lanes.keep(endpoints.by_name.keys());
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                lanes.look_around();
            }
            match self.round(&endpoints, &mut lanes, &mut attempts).await {
                Ok(()) => {
                    failing = false;
                    self.gate.open();
                }
                Err(error) => {
                    self.gate.close("deliveries cannot be claimed");
                    if !std::mem::replace(&mut failing, true) {
                        warn!(%error, "deliveries cannot be claimed: trying again until they can");
                    }
                    counter!("cornjacket_actions_claim_failures_total").increment(1);
                    stop.run_until_cancelled(sleep(AGAIN)).await;
                }
            }
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            gauge!("cornjacket_deliveries_under_way").set(lanes.under_way() as f64);
            let next = lanes.next(Instant::now(), LOOK);
            tokio::select! {
                actions = self.made.take() => actions.iter().for_each(|action| lanes.is_hungry(action)),
                Some(ended) = attempts.join_next(), if !attempts.is_empty() => self.hand_on(ended).await?,
                settled = self.settled.recv() => take(&mut lanes, settled.ok_or("settling ended")?),
                _ = self.endpoints.changed() => {}
                () = sleep_until(next) => {}
                () = stop.cancelled() => {}
            }
            while let Some(ended) = attempts.try_join_next() {
                self.hand_on(ended).await?;
            }
            while let Ok(settled) = self.settled.try_recv() {
                take(&mut lanes, settled);
            }
        }
        self.finish(attempts).await
    }

    async fn round(
        &mut self,
        endpoints: &Endpoints,
        lanes: &mut Lanes,
        attempts: &mut JoinSet<Done>,
    ) -> Result<(), DispatchError> {
        let now = Instant::now();
        let wanted = lanes.wanted(now);
        if wanted.is_empty() {
            return Ok(());
        }
        let asks: Vec<(Arc<Endpoint>, Ask)> =
            wanted.iter().filter_map(|(name, count)| Some(ask(endpoints.by_name.get(name)?, *count))).collect();
        let questions: Vec<Ask> = asks.iter().map(|(_, ask)| ask.clone()).collect();
        let clock = Utc::now().timestamp_millis();
        let grants = self.state.admit(&questions, clock).await?;
        let granted: Vec<(&Arc<Endpoint>, &Ask, Grant)> =
            asks.iter().zip(grants).map(|((endpoint, ask), grant)| (endpoint, ask, grant)).collect();
        let shares: Vec<Share<'_>> = granted
            .iter()
            .filter(|(.., grant)| grant.count > 0)
            .map(|(endpoint, _, grant)| share(endpoint, grant))
            .collect();
        let claimed = if shares.is_empty() {
            Vec::new()
        } else {
            match within(DEADLINE, store::claim(&self.pool, (self.instance, Uuid::now_v7()), &shares)).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    for (endpoint, _, grant) in granted.iter().filter(|(.., grant)| grant.count > 0) {
                        self.give_back(endpoint.name(), grant.count, grant.probe).await;
                    }
                    return Err(error.into());
                }
            }
        };
        for (endpoint, ask, grant) in granted {
            let mine = claimed.iter().filter(|delivery| delivery.action == endpoint.name()).count();
            let unused = grant.count - i64::try_from(mine).unwrap_or(grant.count);
            if unused > 0 {
                self.give_back(endpoint.name(), unused, grant.probe && mine == 0).await;
            }
            if grant.count > 0 {
                lanes.begun(endpoint.name(), mine, usize::try_from(grant.count).unwrap_or(1));
            }
            // All that were granted are used, and more are wanted.
            let refused = grant.again_at.filter(|_| unused <= 0 && grant.count < ask.wanted);
            lanes.not_before(endpoint.name(), refused.map(|at| now + millis(at - clock).min(ASK_AGAIN)));
        }
        for delivery in claimed {
            if let Some(endpoint) = endpoints.by_name.get(&delivery.action) {
                attempts.spawn(attempt(self.sender.clone(), endpoint.clone(), delivery, now));
            }
        }
        Ok(())
    }

    /// What cannot be given back is lost until the window ends, or the probe is taken for lost: nothing waits for it.
    async fn give_back(&self, action: &str, unused: i64, probe: bool) {
        if let Err(error) = self.state.give_back(action, unused, probe).await {
            debug!(action, %error, "permits could not be given back");
        }
    }

    async fn hand_on(&self, ended: Result<Done, tokio::task::JoinError>) -> Result<(), String> {
        let done = ended.map_err(|panic| format!("an attempt died: {panic}"))?;
        self.done.send(done).await.map_err(|_| "settling ended".to_owned())
    }

    /// What does not end in time is given up here; its claims run out, or are freed once this process is gone.
    async fn finish(self, mut attempts: JoinSet<Done>) -> Result<(), String> {
        let ended = timeout(GRACE, async {
            while let Some(ended) = attempts.join_next().await {
                self.hand_on(ended).await?;
            }
            Ok(())
        });
        ended.await.unwrap_or(Ok(()))
    }
}

fn ask(endpoint: &Arc<Endpoint>, count: usize) -> (Arc<Endpoint>, Ask) {
    let ask = Ask {
        action: endpoint.name().to_owned(),
        wanted: i64::try_from(count).unwrap_or(i64::MAX),
        limit: endpoint.limit(),
        probe_ms: endpoint.spec.timeout_ms + 5_000,
    };
    (endpoint.clone(), ask)
}

fn share<'a>(endpoint: &'a Endpoint, grant: &Grant) -> Share<'a> {
    Share {
        action: endpoint.name(),
        most: grant.count,
        ordered: endpoint.spec.ordering == crds::webhook_action::Ordering::PerAggregate,
        lease_ms: endpoint.spec.timeout_ms + i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX),
    }
}

/// A process that was frozen finds its claims too old: they may be somebody else's by now.
async fn attempt(sender: Sender, endpoint: Arc<Endpoint>, delivery: Delivery, claimed: Instant) -> Done {
    let attempt = if claimed.elapsed() < STALE { Some(sender.attempt(&endpoint, &delivery).await) } else { None };
    Done { endpoint, delivery, attempt }
}

fn take(lanes: &mut Lanes, settled: Settled) {
    let now = Instant::now();
    for (action, count, due_ms) in settled.actions {
        lanes.ended(&action, count, due_ms.into_iter().map(|ms| now + millis(ms)));
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
