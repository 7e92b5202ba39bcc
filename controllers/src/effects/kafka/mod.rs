//! Topics on a Kafka broker: what they are, and what is changed about them. Every call is for many topics at once, and has
//! a deadline.

mod grow;
mod identity;
mod incremental;
mod metadata;
mod native;
mod refusal;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, ConfigSource, OwnedResourceSpecifier, ResourceSpecifier,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::debug;

use self::metadata::{Failures, metadata};
use self::native::Objection;
use crate::topic::differences::{Actual, Setting};
use crate::topic::plan::{Alteration, Blocked, Broker, calls};
use crate::topic::wanted::Wanted;

/// Longest wait for an answer of the broker.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest wait until the broker has changed something, which may be about many topics.
const CHANGE: Duration = Duration::from_secs(20);

/// A broker could not be asked. Transient: try again with backoff.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("cannot set up the Kafka client (check KAFKA_BROKERS and the TLS and SASL settings)")]
    Client(#[source] KafkaError),
    #[error(
        "cannot ask the broker which topics exist (check that KAFKA_BROKERS is reachable, and the TLS and SASL settings)"
    )]
    Metadata(#[source] KafkaError),
    #[error("cannot ask the broker which topics exist (check KAFKA_BROKERS, and the TLS and SASL settings): {0}")]
    Connection(String),
    #[error("cannot read the configuration of topics")]
    Describe(#[source] KafkaError),
    #[error("cannot {doing}: {why}")]
    Change { doing: &'static str, why: String },
    #[error("cannot delete the topic")]
    Delete(#[source] KafkaError),
    #[error("the call to the broker was cut off")]
    Interrupted,
}

/// An error without the value of the setting that it is about, which may be a password.
pub fn without_value(error: KafkaError) -> KafkaError {
    match error {
        KafkaError::ClientConfig(kind, _, name, _) => {
            let what = "this setting is not known, or has no such value:".to_owned();
            KafkaError::ClientConfig(kind, what, name, String::new())
        }
        other => other,
    }
}

/// How large a topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub partitions: i32,
    /// Copies of the partition that has the fewest.
    pub replication: i32,
}

/// What became of a change, by topic.
pub type Outcomes = BTreeMap<String, Result<(), Blocked>>;

/// An administrator's connection. Cheap to clone.
#[derive(Clone)]
pub struct Kafka {
    admin: Arc<AdminClient<DefaultClientContext>>,
    /// Asks which topics there are. A consumer, because that tells why it has no connection when it is polled.
    reader: Arc<BaseConsumer<Failures>>,
}

impl Kafka {
    /// `settings` are librdkafka's own (`bootstrap.servers`, `security.protocol`, …). Connects lazily.
    ///
    /// # Errors
    /// A setting is not known or has no such value.
    pub fn new(settings: &BTreeMap<String, String>) -> Result<Self, BrokerError> {
        let mut config = ClientConfig::new();
        for (name, value) in settings {
            config.set(name, value);
        }
        let refused = |error| BrokerError::Client(without_value(error));
        let admin = config.create().map_err(refused)?;
        let reader = config.create_with_context(Failures::default()).map_err(refused)?;
        Ok(Self { admin: Arc::new(admin), reader: Arc::new(reader) })
    }

    /// How many partitions, and copies of them, each topic has.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn topics(&self) -> Result<BTreeMap<String, Size>, BrokerError> {
        called("metadata");
        let reader = Arc::clone(&self.reader);
        let metadata = blocking(move || metadata(&reader)).await??;
        let existing = metadata.topics().iter().filter(|topic| topic.error().is_none()).map(|topic| {
            let replicas = topic.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
            let size = Size { partitions: count(topic.partitions().len()), replication: count(replicas) };
            (topic.name().to_owned(), size)
        });
        Ok(existing.collect())
    }

    /// Those of some topics that exist, with their configuration: three calls, however many they are.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn describe(&self, names: impl Iterator<Item = &str>) -> Result<Broker, BrokerError> {
        let sizes = self.topics().await?;
        let present: Vec<String> = names.filter(|name| sizes.contains_key(*name)).map(str::to_owned).collect();
        if present.is_empty() {
            return Ok(Broker::new());
        }
        let (configs, mut identities) = tokio::join!(self.configs(&present), self.identities(&present));
        let mut configs = configs?;
        let actual = |name: String| {
            let Size { partitions, replication } = *sizes.get(&name)?;
            let id = identities.remove(&name);
            let config = configs.remove(&name).ok_or_else(|| {
                "the broker does not show the configuration of the topic: allow this user to describe it".to_owned()
            });
            Some((name, Actual { id, partitions, replication, config }))
        };
        Ok(present.into_iter().filter_map(actual).collect())
    }

    /// By topic. One that cannot be read is left out.
    async fn configs(&self, names: &[String]) -> Result<BTreeMap<String, BTreeMap<String, Setting>>, BrokerError> {
        called("describe_configs");
        let topics: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        let described = self.admin.describe_configs(&topics, &options).await.map_err(BrokerError::Describe)?;
        Ok(described.into_iter().filter_map(|resource| settings(resource.ok()?)).collect())
    }

    /// A broker that does not tell them is none the worse.
    async fn identities(&self, names: &[String]) -> BTreeMap<String, String> {
        called("describe_topics");
        let (admin, names) = (Arc::clone(&self.admin), names.to_vec());
        match blocking(move || identity::identities(&admin, &names, ANSWER)).await {
            Ok(Ok(identities)) => identities,
            Ok(Err(objection)) => {
                debug!(error = objection.words, "the broker does not tell the identities of topics");
                BTreeMap::new()
            }
            Err(_) => BTreeMap::new(),
        }
    }

    /// Makes topics. One that somebody else made meanwhile is refused, and looked at anew.
    ///
    /// # Errors
    /// The broker does not answer. Refusals of single topics are in the result.
    pub async fn create(&self, missing: &[&Wanted]) -> Result<Outcomes, BrokerError> {
        let mut outcomes = Outcomes::new();
        for call in calls(missing, |wanted| 1 + count_of(wanted.spec.partitions) + wanted.spec.config.len()) {
            called("create_topics");
            let call: Vec<Wanted> = call.iter().map(|wanted| (*wanted).clone()).collect();
            let made = self
                .change("create topics", move |admin| grow::create(admin, &call.iter().collect::<Vec<_>>(), CHANGE));
            outcomes.extend(outcomes_of("create", made.await?));
        }
        Ok(outcomes)
    }

    /// Adds partitions until each topic has as many as is said.
    ///
    /// # Errors
    /// The broker does not answer. Refusals of single topics are in the result.
    pub async fn add_partitions(&self, totals: &[(String, i32)]) -> Result<Outcomes, BrokerError> {
        let mut outcomes = Outcomes::new();
        for call in calls(totals, |(_, total)| count_of(*total)) {
            called("create_partitions");
            let call = call.to_vec();
            let added = self.change("add partitions", move |admin| grow::add_partitions(admin, &call, CHANGE));
            outcomes.extend(outcomes_of("add partitions to", added.await?));
        }
        Ok(outcomes)
    }

    /// Changes keys of topics and no others; of each topic all or none.
    ///
    /// # Errors
    /// The broker does not answer. Refusals of single topics are in the result.
    pub async fn alter(&self, changes: &[(String, Vec<Alteration>)]) -> Result<Outcomes, BrokerError> {
        let mut outcomes = Outcomes::new();
        for call in calls(changes, |(_, alterations)| alterations.len()) {
            called("alter_configs");
            let call = call.to_vec();
            let altered = self
                .change("change the configuration of topics", move |admin| incremental::alter(admin, &call, CHANGE));
            outcomes.extend(outcomes_of("change the configuration of", altered.await?));
        }
        Ok(outcomes)
    }

    async fn change<T: Send + 'static>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&AdminClient<DefaultClientContext>) -> Result<T, Objection> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let admin = Arc::clone(&self.admin);
        let answer = blocking(move || call(&admin)).await?;
        answer.map_err(|objection| BrokerError::Change { doing, why: objection.words })
    }

    /// Deletes a topic with all its messages. One that is gone already is no error.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn delete(&self, topic: &str) -> Result<(), BrokerError> {
        called("delete_topics");
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        let results = self.admin.delete_topics(&[topic], &options).await.map_err(BrokerError::Delete)?;
        match results.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::UnknownTopicOrPartition => {
                Err(BrokerError::Delete(KafkaError::AdminOp(code)))
            }
            _ => Ok(()),
        }
    }
}

/// Counts a call that goes to the broker.
fn called(call: &'static str) {
    metrics::counter!("cornjacket_controllers_broker_calls_total", "call" => call).increment(1);
}

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokerError> {
    tokio::task::spawn_blocking(call).await.map_err(|_| BrokerError::Interrupted)
}

fn outcomes_of(doing: &str, outcomes: Vec<(String, Result<(), Objection>)>) -> Outcomes {
    let outcome = |(topic, result): (String, Result<(), Objection>)| {
        let result = result.map_err(|objection| refusal::blocked(doing, &topic, objection));
        (topic, result)
    };
    outcomes.into_iter().map(outcome).collect()
}

/// A broker that may not show the configuration gives an empty one.
fn settings(resource: ConfigResource) -> Option<(String, BTreeMap<String, Setting>)> {
    let OwnedResourceSpecifier::Topic(name) = resource.specifier else { return None };
    let setting = |entry: rdkafka::admin::ConfigEntry| {
        let own = entry.source == ConfigSource::DynamicTopic && !entry.is_read_only;
        (entry.name, Setting { value: entry.value, own })
    };
    let settings: BTreeMap<_, _> = resource.entries.into_iter().map(setting).collect();
    (!settings.is_empty()).then_some((name, settings))
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn count_of(partitions: i32) -> usize {
    usize::try_from(partitions).unwrap_or(1)
}
