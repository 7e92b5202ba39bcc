//! What came of attempts is kept: many at a time, in one statement, for as long as it takes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use metrics::{counter, gauge, histogram};
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::dispatch::Done;
use super::endpoint::{Endpoint, Endpoints};
use super::state::breaker::{Change, Report};
use super::state::{State, StateError};
use super::store::attempts::{self as store, Ended};
use super::store::endpoints::{tell_failing, tell_healthy, tell_trouble};
use super::verdict::{self, Verdict};
use crate::database::{is_bad_data, within};
use crate::operate::Gate;

/// Attempts that are kept by one statement at most.
const AT_ONCE: usize = 512;
const DEADLINE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(500);

/// By action: how many attempts are settled, and after how many milliseconds deliveries become due again.
pub(super) struct Settled {
    pub actions: Vec<(String, usize, Vec<i64>)>,
}

#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

pub(super) struct Settler {
    pub pool: PgPool,
    pub endpoints: watch::Receiver<Arc<Endpoints>>,
    pub state: State,
    /// Open while what came of attempts is kept.
    pub gate: Gate,
    pub done: mpsc::Receiver<Done>,
    pub settled: mpsc::Sender<Settled>,
}

impl Settler {
    /// Runs until nothing comes any more.
    pub async fn run(mut self) -> Result<(), Infallible> {
        let mut batch = Vec::with_capacity(AT_ONCE);
        self.gate.open();
        while self.done.recv_many(&mut batch, AT_ONCE).await > 0 {
            let (made, late): (Vec<Done>, Vec<Done>) = batch.drain(..).partition(|done| done.attempt.is_some());
            let mut counts: BTreeMap<String, (usize, Vec<i64>)> = BTreeMap::new();
            for done in &late {
                counts.entry(done.delivery.action.clone()).or_default().0 += 1;
            }
            let ended: Vec<(Arc<Endpoint>, Ended)> = made.into_iter().filter_map(judge).collect();
            self.keep(&ended, &late).await;
            self.tell(&ended).await;
            for (_, ended) in &ended {
                let entry = counts.entry(ended.delivery.action.clone()).or_default();
                entry.0 += 1;
                if let Verdict::Again { after_ms, .. } = ended.verdict {
                    entry.1.push(after_ms);
                }
            }
            let actions = counts.into_iter().map(|(action, (count, due))| (action, count, due)).collect();
            // Nobody listens any more while it stops.
            let _ = self.settled.send(Settled { actions }).await;
        }
        Ok(())
    }

    /// Until it is kept: what was sent is not forgotten because the database is away.
    async fn keep(&self, ended: &[(Arc<Endpoint>, Ended)], late: &[Done]) {
        let rows: Vec<Ended> = ended.iter().map(|(_, ended)| ended.clone()).collect();
        let late: Vec<_> = late.iter().map(|done| (done.delivery.delivery_id, done.delivery.claim_id)).collect();
        let mut failing = false;
        loop {
            let kept = within::<_, sqlx::Error>(DEADLINE, async {
                if !late.is_empty() {
                    store::give_back(&self.pool, &late).await?;
                }
                if rows.is_empty() { Ok(()) } else { store::settle(&self.pool, &rows).await }
            });
            match kept.await {
                Ok(()) => break,
                Err(error) if is_bad_data(&error) && rows.len() > 1 => {
                    self.keep_each(&rows).await;
                    break;
                }
                Err(error) if is_bad_data(&error) => {
                    error!(%error, "what came of an attempt cannot be kept: the claim runs out, and it is made again");
                    break;
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(%error, "what came of attempts cannot be kept: trying again until it can");
                    }
                    self.gate.close("what came of attempts cannot be kept");
                    counter!("cornjacket_actions_settle_failures_total").increment(1);
                    sleep(AGAIN).await;
                }
            }
        }
        self.gate.open();
        rows.iter().for_each(record);
    }

    /// The database refuses something about one of them: the others are kept.
    async fn keep_each(&self, rows: &[Ended]) {
        for row in rows {
            let kept = within::<_, sqlx::Error>(DEADLINE, store::settle(&self.pool, std::slice::from_ref(row)));
            if let Err(error) = kept.await {
                let delivery_id = row.delivery.delivery_id;
                error!(%delivery_id, %error, "what came of an attempt cannot be kept: the claim runs out, and it is made again");
            }
        }
    }

    /// Tells the breakers, and what they make of it. What cannot be told is no reason to stop: it shows again.
    async fn tell(&self, ended: &[(Arc<Endpoint>, Ended)]) {
        let mut by_action: BTreeMap<&str, (&Arc<Endpoint>, Vec<&Ended>)> = BTreeMap::new();
        for (endpoint, ended) in ended {
            by_action.entry(endpoint.name()).or_insert((endpoint, Vec::new())).1.push(ended);
        }
        let mut healthy = Vec::new();
        for (action, (endpoint, ended)) in by_action {
            match self.tell_one(action, endpoint, &ended).await {
                Ok(true) => healthy.push(action),
                Ok(false) => {}
                Err(error) => warn!(action, %error, "the breaker could not be told how attempts ended"),
            }
        }
        if !healthy.is_empty()
            && let Err(error) = within(DEADLINE, tell_healthy(&self.pool, &healthy)).await
        {
            warn!(%error, "it could not be noted that endpoints take deliveries");
        }
    }

    /// True where the endpoint takes deliveries.
    async fn tell_one(&self, action: &str, endpoint: &Endpoint, ended: &[&Ended]) -> Result<bool, SettleError> {
        // What an endpoint of before answered says nothing of the one there is now.
        if self.endpoints.borrow().by_name.get(action).is_none_or(|current| current.url != endpoint.url) {
            return Ok(false);
        }
        let now = Utc::now();
        let reports: Vec<Report> = ended.iter().map(|ended| verdict::report(&ended.attempt.answer)).collect();
        let change = self.state.report(action, endpoint.threshold(), &reports, now.timestamp_millis()).await?;
        if let Change::Opened { until } = change {
            let why = ended.iter().rev().find_map(|ended| ended.why()).unwrap_or_default();
            let cooldown = (until - now.timestamp_millis()) / 1_000;
            warn!(
                action,
                why,
                cooldown_seconds = cooldown,
                "too many failures in a row: the breaker is open, deliveries wait"
            );
            counter!("cornjacket_breaker_opened_total", "action" => action.to_owned()).increment(1);
            gauge!("cornjacket_breaker_open", "action" => action.to_owned()).set(1.0);
            let message = format!("too many failures in a row, one attempt is made every {cooldown} s: {why}");
            within(DEADLINE, tell_trouble(&self.pool, action, &message)).await?;
            return Ok(false);
        }
        if change == Change::Closed {
            info!(action, "the endpoint takes deliveries again: the breaker is closed");
        }
        let healthy = reports.contains(&Report::Succeeded);
        if healthy {
            gauge!("cornjacket_breaker_open", "action" => action.to_owned()).set(0.0);
        } else if let Some(why) = ended.iter().rev().find_map(|ended| ended.why()) {
            within(DEADLINE, tell_failing(&self.pool, action, &format!("the last attempt failed: {why}"))).await?;
        }
        Ok(healthy)
    }
}

/// What is done about a delivery after its attempt.
fn judge(done: Done) -> Option<(Arc<Endpoint>, Ended)> {
    let Done { endpoint, delivery, attempt } = done;
    let attempt = attempt?;
    let retry = &endpoint.spec.retry;
    let most = delivery.max_attempts.unwrap_or(retry.max_attempts);
    let verdict = verdict::verdict(&attempt.answer, delivery.attempts + 1, most, retry, rand::random());
    let url = endpoint.url.as_str().to_owned();
    Some((endpoint, Ended { delivery, attempt, verdict, url }))
}

fn record(ended: &Ended) {
    let outcome = match &ended.verdict {
        Verdict::Delivered => "delivered",
        Verdict::Again { .. } => "again",
        Verdict::Failed { .. } => "failed",
        Verdict::Gone { .. } => "gone",
    };
    let action = ended.delivery.action.clone();
    counter!("cornjacket_delivery_attempts_total", "action" => action.clone(), "outcome" => outcome).increment(1);
    histogram!("cornjacket_delivery_attempt_seconds").record(ended.attempt.duration.as_secs_f64());
    match &ended.verdict {
        Verdict::Delivered => {
            counter!("cornjacket_deliveries_total", "outcome" => "delivered").increment(1);
            let whole = (Utc::now() - ended.delivery.created_at).as_seconds_f64().max(0.0);
            histogram!("cornjacket_delivery_seconds").record(whole);
        }
        Verdict::Again { .. } => {}
        Verdict::Failed { why } | Verdict::Gone { why } => {
            if matches!(ended.verdict, Verdict::Gone { .. }) {
                warn!(action, "the endpoint is disabled: it answered 410");
            }
            warn!(action, delivery_id = %ended.delivery.delivery_id, why, "delivery failed");
            counter!("cornjacket_deliveries_total", "outcome" => "failed").increment(1);
        }
    }
}
