//! Publishing a batch: all messages are handed over, then one wait for all confirmations.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::KafkaSettings;
use super::header;

/// How long a batch may take to be confirmed. Less than the server lets a transaction idle, so that the shard is still
/// locked when the outcome is known.
pub const DEADLINE: Duration = Duration::from_secs(5);

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
    pub shard: i16,
    pub position: i64,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Confirmed,
    /// The broker will never take it: it is too large.
    TooLarge(String),
    /// Not confirmed: it may or may not be in the topic.
    Unconfirmed(String),
}

/// A producer. After any [`Delivery`] but `Confirmed` it must be replaced by a new one, since a gap in its sequence
/// ends it.
pub struct Producer {
    inner: Arc<ThreadedProducer<Context>>,
}

impl Producer {
    /// # Errors
    /// The settings are not accepted by the client.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let config = settings.producer(DEADLINE.as_millis());
        Ok(Self { inner: Arc::new(ThreadedProducer::from_config_and_context(&config, Context)?) })
    }

    /// Publishes in the order given and waits until each is confirmed or not.
    pub async fn publish(&self, messages: &[Message]) -> Vec<Delivery> {
        let begun = Instant::now();
        let batch = Arc::new(Batch::new(messages.len()));
        for (at, message) in messages.iter().enumerate() {
            if let Err(e) = self.hand_over(message, &batch, at, begun).await {
                // What comes after must not overtake it.
                for rest in at..messages.len() {
                    batch.settle(rest, unsent(&e));
                }
                break;
            }
        }
        let left = (DEADLINE + Duration::from_millis(500)).saturating_sub(begun.elapsed());
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
        begun: Instant,
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
        ]);
        let mut record = BaseRecord::with_opaque_to(&message.topic, Box::new((batch.clone(), at)))
            .key(&message.key)
            .payload(&message.value)
            .headers(headers);
        loop {
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if begun.elapsed() < DEADLINE =>
                {
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

fn unsent(error: &KafkaError) -> Delivery {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            Delivery::TooLarge(error.to_string())
        }
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
        let late = || Delivery::Unconfirmed(format!("not confirmed within {} s", DEADLINE.as_secs()));
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
