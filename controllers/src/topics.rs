//! Keeps topics on a Kafka broker as they are described: makes those that are missing, adds partitions, changes
//! configuration, and puts back what somebody else changed. A broker that does not answer is asked again with backoff, and
//! nothing else waits for it.
//!
//! A look is three calls, however many topics there are; what is to be changed about them is one call a sort of change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::cause::Chain;
use crds::reason::Reason;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::effects::kafka::Outcomes;
use crate::effects::postgres::DatabaseError;
use crate::effects::rule::{Rule, RuleError};
use crate::topic::differences::words;
use crate::topic::plan::{Alteration, Blocked, Broker, Plan, plan};
use crate::topic::settle::Unsettled;
use crate::topic::status::{self, Bus, Seen};
use crate::topic::wanted::Wanted;
use crate::{backoff, crash};

/// When topics that were made are looked at again: by then the broker tells their ids.
const MADE: Duration = Duration::from_secs(2);
/// Differences that a log line names.
const NAMED: usize = 32;

#[derive(Default)]
struct Keeper {
    unsettled: Unsettled,
    /// Topics that were made by this process.
    created: BTreeSet<String>,
    /// By topic, what it was made to agree with: when it differs from that later, somebody else changed it.
    agreed: BTreeMap<String, Wanted>,
    /// Failed looks in a row.
    failures: u32,
    /// The last look made topics.
    made: bool,
}

/// A topic to be deleted; answered when it is.
pub struct Delete {
    pub topic: String,
    pub done: oneshot::Sender<Result<(), String>>,
}

/// When the broker is looked at again.
pub struct Pace {
    /// Between two looks at a broker that has everything.
    pub drift: Duration,
    /// Told when somebody asks for a look now.
    pub asked: Arc<Notify>,
}

/// Runs for ever; drop it to stop.
pub async fn keep(
    mut rule: Rule,
    pace: Pace,
    mut wanted: watch::Receiver<Vec<Wanted>>,
    bus: watch::Sender<Bus>,
    mut deletes: mpsc::Receiver<Delete>,
) {
    let mut keeper = Keeper::default();
    loop {
        let topics = wanted.borrow_and_update().clone();
        let wait = match keeper.look(&mut rule, &topics).await {
            Ok(seen) => {
                let unfinished = seen.topics.values().any(Seen::is_unfinished);
                publish(&bus, Bus::Kafka(seen));
                keeper.failures = if unfinished { keeper.failures + 1 } else { 0 };
                if unfinished { backoff::delay(keeper.failures, rand::random()) } else { keeper.rest(pace.drift) }
            }
            Err(RuleError::Seat(error)) => keeper.held_back(&error),
            Err(RuleError::Broker(error)) => {
                let error = Chain(&error).to_string();
                publish(&bus, Bus::Unreachable(error.clone()));
                keeper.failed(&error)
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = pace.asked.notified() => {}
            changed = wanted.changed() => if changed.is_err() { return },
            Some(delete) = deletes.recv() => keeper.delete(&mut rule, delete).await,
        }
    }
}

fn publish(bus: &watch::Sender<Bus>, now: Bus) {
    bus.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}

/// What one look found and did.
struct Round<'a> {
    broker: Broker,
    plans: Vec<(&'a Wanted, Plan)>,
    refused: BTreeMap<String, Blocked>,
}

impl Keeper {
    /// The broker does not answer: how long to wait.
    fn failed(&mut self, error: &str) -> Duration {
        let wait = backoff::delay(self.failures, rand::random());
        warn!(error, retry_in_ms = wait.as_millis(), "broker not reachable");
        metrics::counter!("cornjacket_controllers_broker_failures_total").increment(1);
        self.failures += 1;
        wait
    }

    /// Another may rule, and then this ends soon: how long to wait.
    fn held_back(&mut self, error: &DatabaseError) -> Duration {
        let wait = backoff::delay(self.failures, rand::random());
        warn!(error = %Chain(error), retry_in_ms = wait.as_millis(), "changing nothing at the broker");
        self.failures += 1;
        wait
    }

    /// By this task, which makes topics: none is made while it is deleted.
    async fn delete(&mut self, rule: &mut Rule, Delete { topic, done }: Delete) {
        let result = rule.delete(&topic).await.map_err(|error| Chain(&error).to_string());
        if result.is_ok() {
            info!(topic, "topic deleted");
            self.created.remove(&topic);
            self.unsettled.forget(&topic);
            crash::point("topic deleted");
        }
        // Who asked may have given up.
        let _ = done.send(result);
    }

    /// How long to wait after a look that finished everything.
    fn rest(&self, drift: Duration) -> Duration {
        if self.made { drift.min(MADE) } else { drift }
    }

    async fn look(&mut self, rule: &mut Rule, wanted: &[Wanted]) -> Result<status::Kafka, RuleError> {
        let mut broker = rule.describe(wanted.iter().map(|wanted| wanted.spec.topic_name.as_str())).await?;
        self.unsettled.overlay(&mut broker, Instant::now());
        let planned = |wanted| (wanted, plan_for(wanted, &broker));
        let plans = wanted.iter().map(planned).collect();
        let mut round = Round { broker, plans, refused: BTreeMap::new() };
        self.create(rule, &mut round).await?;
        self.grow(rule, &mut round).await?;
        self.alter(rule, &mut round).await?;
        let topics: BTreeMap<String, Seen> =
            wanted.iter().map(|wanted| (wanted.spec.topic_name.clone(), self.judge(wanted, &round))).collect();
        let agrees = |seen: &&Seen| seen.standing == status::Standing::Applied;
        self.agreed = topics.iter().filter(|(_, s)| agrees(s)).map(|(n, s)| (n.clone(), s.wanted.clone())).collect();
        Ok(status::Kafka { topics })
    }

    async fn create(&mut self, rule: &mut Rule, round: &mut Round<'_>) -> Result<(), RuleError> {
        let missing: Vec<&Wanted> = round.plans.iter().filter(|(_, plan)| plan.create).map(|(w, _)| *w).collect();
        self.made = !missing.is_empty();
        let outcomes = rule.create(&missing).await?;
        for wanted in missing {
            let name = &wanted.spec.topic_name;
            if round.succeeded(name, "topic not made", &outcomes) {
                info!(topic = name, partitions = wanted.spec.partitions, "topic made");
                self.created.insert(name.clone());
                round.broker.insert(name.clone(), self.unsettled.made(wanted, Instant::now()));
                crash::point("topic made");
            }
        }
        Ok(())
    }

    async fn grow(&mut self, rule: &mut Rule, round: &mut Round<'_>) -> Result<(), RuleError> {
        let totals: Vec<(String, i32)> = round
            .plans
            .iter()
            .filter_map(|(wanted, plan)| Some((wanted.spec.topic_name.clone(), plan.partitions?)))
            .collect();
        let outcomes = rule.add_partitions(&totals).await?;
        for (name, total) in totals {
            if round.succeeded(&name, "partitions not added", &outcomes) {
                info!(topic = name, partitions = total, "partitions added");
                if let Some(actual) = round.broker.get_mut(&name) {
                    self.unsettled.grown(&name, actual, total, Instant::now());
                }
                crash::point("partitions added");
            }
        }
        Ok(())
    }

    async fn alter(&mut self, rule: &mut Rule, round: &mut Round<'_>) -> Result<(), RuleError> {
        let changes: Vec<(String, Vec<Alteration>)> = round
            .plans
            .iter()
            .filter(|(_, plan)| !plan.alterations.is_empty())
            .map(|(wanted, plan)| (wanted.spec.topic_name.clone(), plan.alterations.clone()))
            .collect();
        let outcomes = rule.alter(&changes).await?;
        for (name, alterations) in changes {
            if round.succeeded(&name, "configuration not changed", &outcomes) {
                self.announce(&name, round);
                if let Some(actual) = round.broker.get_mut(&name) {
                    self.unsettled.altered(&name, actual, &alterations, Instant::now());
                }
                crash::point("configuration changed");
            }
        }
        Ok(())
    }

    /// One line for what was put back, or for an edit that is done.
    fn announce(&self, name: &str, round: &Round<'_>) {
        let Some((wanted, plan)) = round.plans.iter().find(|(wanted, _)| wanted.spec.topic_name == name) else {
            return;
        };
        let was = words(&plan.drift, NAMED);
        if self.agreed.get(name) == Some(*wanted) {
            warn!(topic = name, was, "configuration was changed on the broker by somebody else: put back");
            metrics::counter!("cornjacket_controllers_drift_corrected_total").increment(1);
        } else {
            info!(topic = name, was, "configuration changed");
        }
    }

    /// What is to be said of a topic, after what was done.
    fn judge(&self, wanted: &Wanted, round: &Round<'_>) -> Seen {
        let name = &wanted.spec.topic_name;
        let after = plan_for(wanted, &round.broker);
        let standing = if !wanted.rules.writes {
            status::Standing::Observed
        } else if let Some(blocked) = round.refused.get(name).cloned().or(after.blocked) {
            status::Standing::Blocked(blocked)
        } else if after.claim {
            status::Standing::Claimable
        } else {
            status::Standing::Applied
        };
        Seen {
            wanted: wanted.clone(),
            exists: round.broker.get(name).map(status::Existing::of),
            created: self.created.contains(name),
            drift: after.drift,
            standing,
        }
    }
}

fn plan_for(wanted: &Wanted, broker: &Broker) -> Plan {
    plan(wanted, broker.get(&wanted.spec.topic_name))
}

impl Round<'_> {
    /// Whether a topic was changed; a refusal is kept for its status.
    fn succeeded(&mut self, topic: &str, not: &'static str, outcomes: &Outcomes) -> bool {
        let no_answer =
            || Blocked { reason: Reason::Retrying, message: "the broker does not say what became of it".into() };
        match outcomes.get(topic).cloned().unwrap_or_else(|| Err(no_answer())) {
            Ok(()) => true,
            Err(blocked) => {
                warn!(topic, error = blocked.message, "{not}");
                self.refused.insert(topic.to_owned(), blocked);
                false
            }
        }
    }
}
