//! Publishing a batch: all messages are handed over, then one wait for all confirmations.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::KafkaSettings;
use super::header;

/// How long a batch may take to be confirmed. Less than the server lets a transaction idle, so that the shard is still
/// locked when the outcome is known.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long a question about a topic may take.
const ASK: Duration = Duration::from_secs(2);

/// One event to be published.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: String,
    /// The aggregate id.
    pub key: String,
    pub value: String,
    pub event_id: String,
    pub event_type: String,
    pub traceparent: Option<String>,
    /// Events of higher positions may be in the topic already.
    pub late: bool,
    pub shard: i16,
    pub position: i64,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Confirmed,
    /// The broker will never take it, or what it was sent together with: it is too large.
    TooLarge(String),
    /// The topic cannot be written now, whatever the message.
    Refused(String),
    /// Not confirmed: it may or may not be in the topic.
    Unconfirmed(String),
}

/// Why a topic cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// The broker says so: the topic is missing, or nobody may look at it.
    Refused(String),
    /// A partition has no leader at the moment.
    Leaderless(String),
    /// The broker does not answer.
    Away(String),
}

/// A producer. After any [`Delivery`] but `Confirmed` it must be replaced by a new one, since a gap in its sequence
/// ends it.
pub struct Producer {
    inner: Arc<ThreadedProducer<Context>>,
}

impl Producer {
    /// `together`: most bytes of messages in one batch of a partition; a larger message travels alone.
    ///
    /// # Errors
    /// The settings are not accepted by the client.
    pub fn new(settings: &KafkaSettings, together: usize) -> Result<Self, KafkaError> {
        let config = settings.producer(DEADLINE.as_millis(), together);
        Ok(Self { inner: Arc::new(ThreadedProducer::from_config_and_context(&config, Context)?) })
    }

    /// Whether a topic may be looked at and each of its partitions has a leader.
    ///
    /// # Errors
    /// The broker says that it cannot be written, or does not answer.
    pub async fn ask(&self, topic: &str) -> Result<(), Unwritable> {
        let (inner, name) = (self.inner.clone(), topic.to_owned());
        match tokio::task::spawn_blocking(move || inner.client().fetch_metadata(Some(&name), ASK)).await {
            Ok(Ok(metadata)) => judge(&metadata, topic),
            Ok(Err(error)) => Err(Unwritable::Away(error.to_string())),
            Err(error) => Err(Unwritable::Away(error.to_string())),
        }
    }

    /// Publishes in the order given and waits until each is confirmed or not, or the time is over: at most [`DEADLINE`].
    pub async fn publish(&self, messages: &[Message], within: Duration) -> Vec<Delivery> {
        let begun = Instant::now();
        let batch = Arc::new(Batch::new(messages.len()));
        for (at, message) in messages.iter().enumerate() {
            if let Err(e) = self.hand_over(message, &batch, at, begun + within).await {
                // What comes after must not overtake it.
                batch.settle(at, unsent(&e));
                for rest in at + 1..messages.len() {
                    batch.settle(rest, Delivery::Unconfirmed("not sent".to_owned()));
                }
                break;
            }
        }
        let left = (within + Duration::from_millis(500)).saturating_sub(begun.elapsed());
        if timeout(left, batch.done()).await.is_err() {
            debug!("publish deadline passed with messages unconfirmed");
        }
        batch.take()
    }

    async fn hand_over(
        &self,
        message: &Message,
        batch: &Arc<Batch>,
        at: usize,
        until: Instant,
    ) -> Result<(), KafkaError> {
        let (shard, position) = (message.shard.to_string(), message.position.to_string());
        let headers = |pairs: &[(&str, Option<&str>)]| {
            pairs.iter().fold(OwnedHeaders::new(), |headers, (key, value)| match value {
                Some(value) => headers.insert(Header { key, value: Some(*value) }),
                None => headers,
            })
        };
        let headers = headers(&[
            (header::EVENT_ID, Some(&message.event_id)),
            (header::EVENT_TYPE, Some(&message.event_type)),
            (header::TRACEPARENT, message.traceparent.as_deref()),
            (header::SHARD, Some(&shard)),
            (header::POSITION, Some(&position)),
            (header::LATE, message.late.then_some("1")),
        ]);
        let mut record = BaseRecord::with_opaque_to(&message.topic, Box::new((batch.clone(), at)))
            .key(&message.key)
            .payload(&message.value)
            .headers(headers);
        loop {
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if Instant::now() < until => {
                    record = back;
                    sleep(Duration::from_millis(2)).await;
                }
                Err((e, _)) => return Err(e),
            }
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Messages not sent yet must not be sent later: another relay may have published them by then.
        let flags = rdkafka::producer::PurgeConfig::default().queue().inflight();
        self.inner.purge(flags);
    }
}

fn judge(metadata: &Metadata, topic: &str) -> Result<(), Unwritable> {
    let refused = |cause: String| Err(Unwritable::Refused(cause));
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return refused("the broker does not know the topic".to_owned());
    };
    if let Some(error) = found.error() {
        return refused(RDKafkaErrorCode::from(error).to_string());
    }
    match found.partitions().iter().find(|partition| partition.leader() < 0) {
        Some(partition) => Err(Unwritable::Leaderless(format!("partition {} has no leader", partition.id()))),
        None if found.partitions().is_empty() => refused("the topic has no partitions".to_owned()),
        None => Ok(()),
    }
}

fn unsent(error: &KafkaError) -> Delivery {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            Delivery::TooLarge(error.to_string())
        }
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidRecord,
        ) => Delivery::Refused(error.to_string()),
        _ => Delivery::Unconfirmed(error.to_string()),
    }
}

/// The outcomes of one batch, filled by the client's thread.
struct Batch {
    outcomes: Mutex<Vec<Option<Delivery>>>,
    open: AtomicUsize,
    all: Notify,
}

impl Batch {
    fn new(messages: usize) -> Self {
        Self { outcomes: Mutex::new(vec![None; messages]), open: AtomicUsize::new(messages), all: Notify::new() }
    }

    fn settle(&self, at: usize, outcome: Delivery) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        if outcomes[at].replace(outcome).is_none() && self.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.all.notify_one();
        }
    }

    async fn done(&self) {
        while self.open.load(Ordering::SeqCst) > 0 {
            self.all.notified().await;
        }
    }

    fn take(&self) -> Vec<Delivery> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let late = || Delivery::Unconfirmed("not confirmed in time".to_owned());
        outcomes.iter().map(|outcome| outcome.clone().unwrap_or_else(late)).collect()
    }
}

struct Context;

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<(Arc<Batch>, usize)>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(_) => Delivery::Confirmed,
            Err((e, message)) => {
                debug!(error = %e, topic = message.topic(), "message not confirmed");
                unsent(e)
            }
        };
        opaque.0.settle(opaque.1, outcome);
    }
}
