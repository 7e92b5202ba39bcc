//! Events become deliveries: read from the event store by cursors of our own, on either bus, and written in the transaction
//! that moves the cursors. So a delivery is durable before its event counts as read.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::endpoint::Endpoints;
use super::plan::{self, Plan};
use super::state::{Seen, State, StateError};
use super::store::intake::{self as store, New};
use super::wake::Made;
use crate::bus::embedded::store::Cursors;
use crate::bus::retry::{Retry, Verdict};
use crate::bus::{BusError, Claim, Reader};
use crate::database::within;
use crate::dead_letters::{self, Known, NewLetter};
use crate::operate::Gate;

/// The consumer group, and its cursors in the actions database.
pub const CURSORS: Cursors = Cursors::of("actions", "action_cursor");

const DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for news before looking around.
const LOOK: Duration = Duration::from_secs(1);
const BACKOFF: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

pub(super) struct Intake {
    pub reader: Reader,
    pub endpoints: watch::Receiver<Arc<Endpoints>>,
    pub state: State,
    pub made: Made,
    pub gate: Gate,
    pub retry: Retry,
}

impl Intake {
    /// Runs until the token is cancelled; a batch under way is finished.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut failures = 0_usize;
        // Nothing is known before of what is to be delivered.
        if stop.run_until_cancelled(self.endpoints.wait_for(|endpoints| endpoints.loaded)).await.is_none() {
            return Ok(());
        }
        while !stop.is_cancelled() {
            match self.step(&stop).await {
                Ok(()) => {
                    failures = 0;
                    self.gate.open();
                }
                Err(error) => {
                    self.reader.failed();
                    self.gate.close("events cannot be read, or deliveries cannot be written");
                    if failures == 0 {
                        warn!(%error, "events could not be made into deliveries: trying again until they can");
                    }
                    counter!("cornjacket_actions_intake_failures_total").increment(1);
                    let wait = sleep(BACKOFF[failures.min(BACKOFF.len() - 1)]);
                    stop.run_until_cancelled(wait).await;
                    failures += 1;
                }
            }
        }
        Ok(())
    }

    async fn step(&mut self, stop: &CancellationToken) -> Result<(), IntakeError> {
        let now = Instant::now();
        let until = self.retry.next(now).map_or(now + LOOK, |next| next.min(now + LOOK));
        let deferred = self.retry.deferred(now);
        tokio::select! {
            ready = self.reader.ready(until, &deferred) => ready?,
            () = stop.cancelled() => return Ok(()),
        }
        let deferred = self.retry.deferred(Instant::now());
        let endpoints = self.endpoints.borrow_and_update().clone();
        let wanted = plan::wanted(&endpoints);
        let Some(claim) = within(DEADLINE, self.reader.claim(&wanted, &deferred)).await? else { return Ok(()) };
        match within(DEADLINE, self.take(claim, &endpoints)).await? {
            Some((events, bytes)) => {
                self.reader.committed();
                self.reader.weighed(events, bytes);
            }
            None => self.reader.undone(),
        }
        Ok(())
    }

    /// Makes deliveries of a claim's events; returns how many events that were, and how many bytes of bodies. `None` where
    /// they are to be tried again later.
    async fn take(&mut self, mut claim: Claim, endpoints: &Endpoints) -> Result<Option<(usize, usize)>, IntakeError> {
        let plan = plan::plan(&claim.events, endpoints);
        if !self.judge(&mut claim, &plan).await? {
            claim.tx.rollback().await?;
            return Ok(None);
        }
        let duplicates = self.duplicates(&claim, &plan).await?;
        let mut new = Vec::with_capacity(plan.planned.len());
        for (number, planned) in plan.planned.iter().enumerate() {
            new.push(New {
                delivery_id: Uuid::now_v7(),
                action: &planned.matcher.action,
                event: &claim.events[planned.event],
                body: (!duplicates.contains(&number)).then(|| planned.content.body.clone()),
            });
        }
        if !new.is_empty() {
            store::insert(&mut claim.tx, &new).await?;
            store::be_durable(&mut claim.tx).await?;
        }
        claim.tx.commit().await?;
        self.retry.settled(&claim.lanes);
        self.made.add(new.iter().map(|new| new.action));
        counter!("cornjacket_actions_events_total").increment(claim.events.len() as u64);
        counter!("cornjacket_deliveries_total", "outcome" => "suppressed").increment(duplicates.len() as u64);
        counter!("cornjacket_deliveries_made_total").increment((new.len() - duplicates.len()) as u64);
        Ok(Some((claim.events.len(), plan.planned.iter().map(|planned| planned.content.body.len()).sum())))
    }

    /// Decides what failures mean: false, all is tried again; else they go to the dead letters and the rest goes on.
    async fn judge(&mut self, claim: &mut Claim, plan: &Plan) -> Result<bool, sqlx::Error> {
        let now = Instant::now();
        let mut failing: BTreeMap<_, BTreeSet<Uuid>> = BTreeMap::new();
        for failure in &plan.failures {
            failing.entry(claim.lanes[failure.event]).or_default().insert(claim.events[failure.event].event_id);
        }
        let verdicts: Vec<_> = failing.iter().map(|(lane, events)| self.retry.failed(*lane, events, now)).collect();
        if verdicts.contains(&Verdict::Again) {
            return Ok(false);
        }
        let mut letters = Vec::with_capacity(plan.failures.len());
        for failure in &plan.failures {
            let event = &claim.events[failure.event];
            warn!(
                event_id = %event.event_id, action = failure.action, error = %failure.error,
                "event cannot be evaluated: it goes to the dead letters"
            );
            counter!("cornjacket_actions_dead_letters_total").increment(1);
            let tried = self.retry.tried(claim.lanes[failure.event], event.event_id);
            let retries = i32::try_from(tried).unwrap_or(i32::MAX);
            letters.push(NewLetter {
                consumer: dead_letters::ACTIONS,
                subject: Some(&failure.action),
                event_id: Some(event.event_id),
                event_payload: event.envelope(),
                cause: format!("action {}: {}", failure.action, failure.error).replace('\0', "\u{fffd}"),
                retries,
                place: Some((event.shard, event.position)),
                definition: None,
            });
        }
        dead_letters::store::write(&mut claim.tx, &letters, Known::Stays).await?;
        Ok(true)
    }

    /// Which of the planned deliveries are duplicates, by their numbers.
    async fn duplicates(&self, claim: &Claim, plan: &Plan) -> Result<BTreeSet<usize>, StateError> {
        let mut by_action: BTreeMap<&str, (i64, Vec<usize>)> = BTreeMap::new();
        for (number, planned) in plan.planned.iter().enumerate() {
            let window_ms = planned.matcher.window_ms;
            if window_ms > 0 {
                by_action.entry(&planned.matcher.action).or_insert((window_ms, Vec::new())).1.push(number);
            }
        }
        let mut duplicates = BTreeSet::new();
        for (action, (window_ms, numbers)) in by_action {
            let seen = |number: &usize| {
                let planned = &plan.planned[*number];
                let event = &claim.events[planned.event];
                let at = event.ingested_at.timestamp_millis();
                Seen { key: planned.content.key.clone(), event_id: event.event_id, at }
            };
            let seen: Vec<Seen> = numbers.iter().map(seen).collect();
            let found = self.state.duplicates(action, window_ms, &seen).await?;
            duplicates.extend(numbers.into_iter().zip(found).filter(|(_, duplicate)| *duplicate).map(|(n, _)| n));
        }
        Ok(duplicates)
    }
}
