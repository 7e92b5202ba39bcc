//! Topics on a Kafka broker: which exist, and making those that are missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::registration::Topic;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::topic::plan::{Broker, ExistingTopic};

/// Longest wait for an answer of the broker.
const ANSWER: Duration = Duration::from_secs(5);

/// A broker could not be asked. Transient: try again with backoff.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("cannot set up the Kafka client (check KAFKA_BROKERS and the TLS and SASL settings)")]
    Client(#[source] KafkaError),
    #[error("cannot ask the broker which topics exist (check that KAFKA_BROKERS is reachable)")]
    Metadata(#[source] KafkaError),
    #[error("cannot create topics")]
    Create(#[source] KafkaError),
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

/// Why one topic could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the broker refuses to create '{topic}': {code}{hint}")]
pub struct CreateError {
    pub topic: String,
    pub code: String,
    hint: &'static str,
    /// True where the same request would be refused again.
    pub terminal: bool,
}

/// An administrator's connection. Cheap to clone.
#[derive(Clone)]
pub struct Kafka {
    admin: Arc<AdminClient<DefaultClientContext>>,
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
        let admin = config.create().map_err(|error| BrokerError::Client(without_value(error)))?;
        Ok(Self { admin: Arc::new(admin) })
    }

    /// All topics that exist, as they are.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn topics(&self) -> Result<Broker, BrokerError> {
        let admin = self.admin.clone();
        let fetch = move || admin.inner().fetch_metadata(None, ANSWER).map_err(BrokerError::Metadata);
        let metadata = tokio::task::spawn_blocking(fetch).await.map_err(|_| BrokerError::Interrupted)??;
        let existing = metadata.topics().iter().filter(|topic| topic.error().is_none()).map(|topic| {
            let replicas = topic.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
            let facts = ExistingTopic { partitions: count(topic.partitions().len()), replication: count(replicas) };
            (topic.name().to_owned(), facts)
        });
        Ok(existing.collect())
    }

    /// Makes topics that are missing, with one call. One that somebody else made meanwhile is no error.
    ///
    /// # Errors
    /// The broker does not answer. Refusals of single topics are in the result.
    pub async fn create(&self, missing: &[Topic]) -> Result<Vec<(String, Result<(), CreateError>)>, BrokerError> {
        let new = missing.iter().map(new_topic).collect::<Vec<_>>();
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        let results = self.admin.create_topics(&new, &options).await.map_err(BrokerError::Create)?;
        let outcome = |result: TopicResult| match result {
            Ok(name) | Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => (name, Ok(())),
            Err((name, code)) => (name.clone(), Err(refusal(name, code))),
        };
        Ok(results.into_iter().map(outcome).collect())
    }
}

fn new_topic(topic: &Topic) -> NewTopic<'_> {
    let mut new = NewTopic::new(&topic.topic_name, topic.partitions, TopicReplication::Fixed(topic.replication_factor));
    for (key, value) in &topic.config {
        new = new.set(key, value);
    }
    new
}

fn refusal(topic: String, code: RDKafkaErrorCode) -> CreateError {
    use RDKafkaErrorCode as Code;
    let (terminal, hint) = match code {
        Code::InvalidReplicationFactor => (true, "; lower replicationFactor to the number of brokers, or add brokers"),
        Code::InvalidPartitions => (true, "; mend partitions"),
        Code::InvalidConfig => (true, "; mend config or retention"),
        Code::InvalidTopic => (true, "; mend topicName"),
        Code::PolicyViolation => (true, "; a policy of the broker forbids it"),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            (true, "; allow this user to create topics on the broker")
        }
        _ => (false, ""),
    };
    CreateError { topic, code: code.to_string(), hint, terminal }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
