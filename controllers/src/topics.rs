//! Keeps topics on a Kafka broker: makes those that are missing, tells what exists. A broker that does not answer is
//! asked again with backoff, and nothing else waits for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crds::cause::Chain;
use crds::registration::Topic;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::backoff;
use crate::effects::kafka::{BrokerError, Kafka};
use crate::topic::plan::{ExistingTopic, missing};
use crate::topic::status::{self, Bus};

/// Between two looks at a broker that has everything.
const DRIFT: Duration = Duration::from_mins(1);
/// For so long a topic that was made counts as existing, though the broker's answers may not show it yet.
const METADATA_LAG: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Keeper {
    created: BTreeMap<String, (Instant, ExistingTopic)>,
    /// Failed looks in a row.
    failures: u32,
}

/// Runs for ever; drop it to stop.
pub async fn keep(kafka: Kafka, mut wanted: watch::Receiver<Vec<Topic>>, bus: watch::Sender<Bus>) {
    let mut keeper = Keeper::default();
    loop {
        let topics = wanted.borrow_and_update().clone();
        let wait = match keeper.look(&kafka, &topics).await {
            Ok(seen) => {
                let unfinished = seen.refused.values().any(|(_, terminal)| !terminal);
                publish(&bus, Bus::Kafka(seen));
                keeper.failures = if unfinished { keeper.failures + 1 } else { 0 };
                if unfinished { backoff::delay(keeper.failures, rand::random()) } else { DRIFT }
            }
            Err(error) => {
                let wait = backoff::delay(keeper.failures, rand::random());
                let error = Chain(&error).to_string();
                warn!(error, retry_in_ms = wait.as_millis(), "broker not reachable");
                metrics::counter!("cornjacket_controllers_broker_failures_total").increment(1);
                keeper.failures += 1;
                publish(&bus, Bus::Unreachable(error));
                wait
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            changed = wanted.changed() => if changed.is_err() { return },
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

impl Keeper {
    async fn look(&mut self, kafka: &Kafka, wanted: &[Topic]) -> Result<status::Kafka, BrokerError> {
        let mut topics = kafka.topics().await?;
        for (name, (at, facts)) in &self.created {
            if at.elapsed() < METADATA_LAG {
                topics.entry(name.clone()).or_insert(*facts);
            }
        }
        let missing = missing(wanted, &topics);
        let mut refused = BTreeMap::new();
        if !missing.is_empty() {
            for (name, outcome) in kafka.create(&missing).await? {
                match (outcome, missing.iter().find(|topic| topic.topic_name == name)) {
                    (Ok(()), Some(topic)) => {
                        info!(topic = name, partitions = topic.partitions, "topic made");
                        let facts = ExistingTopic {
                            partitions: topic.partitions,
                            replication: topic.replication_factor.max(1),
                        };
                        self.created.insert(name.clone(), (Instant::now(), facts));
                        topics.insert(name, facts);
                    }
                    (Ok(()), None) => {}
                    (Err(error), _) => {
                        warn!(topic = name, %error, "topic not made");
                        refused.insert(name, (error.to_string(), error.terminal));
                    }
                }
            }
        }
        // Others' topics are nobody's business.
        topics
            .retain(|name, _| wanted.iter().any(|topic| topic.topic_name == *name) || self.created.contains_key(name));
        Ok(status::Kafka { topics, created: self.created.keys().cloned().collect(), refused })
    }
}
