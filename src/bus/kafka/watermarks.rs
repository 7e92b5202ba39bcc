//! Where the partitions of topics end, by a client that reads no message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaRespErr;

use super::KafkaSettings;
use crate::bus::BusError;

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(5);
/// Errors of connections that are taken off the client's queue in one look.
const NOTICES: usize = 100;

/// By topic and partition.
pub type Offsets = BTreeMap<(String, i32), i64>;

/// Asks brokers for ends of partitions.
#[derive(Clone)]
pub struct Watermarks {
    client: Arc<BaseConsumer>,
}

impl Watermarks {
    /// # Errors
    /// The settings are not accepted by the client.
    pub fn new(settings: &KafkaSettings) -> Result<Self, BusError> {
        Ok(Self { client: Arc::new(settings.watermarks().create()?) })
    }

    /// Asks for a topic, which need not exist.
    ///
    /// # Errors
    /// No broker answered within 5 s.
    pub async fn ask(&self, topic: String) -> Result<(), BusError> {
        let client = self.client.clone();
        let asked = tokio::task::spawn_blocking(move || {
            drop_notices(&client);
            client.fetch_metadata(Some(&topic), LOOK).map(drop)
        });
        Ok(asked.await.map_err(|error| BusError::Kafka(error.to_string()))??)
    }

    /// The offset after the last message of every partition of the topics named. A topic that does not exist has none.
    ///
    /// # Errors
    /// A broker did not answer within 5 s.
    pub async fn ends(&self, topics: Vec<String>) -> Result<Offsets, BusError> {
        let client = self.client.clone();
        let asked = tokio::task::spawn_blocking(move || look(&client, &topics)).await;
        asked.map_err(|error| BusError::Kafka(error.to_string()))?
    }
}

/// Errors of connections pile up in a client that nobody polls.
fn drop_notices(client: &BaseConsumer) {
    for _ in 0..NOTICES {
        if client.poll(Duration::ZERO).is_none() {
            break;
        }
    }
}

fn look(client: &BaseConsumer, topics: &[String]) -> Result<Offsets, BusError> {
    let until = Instant::now() + LOOK;
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut ends = Offsets::new();
    for name in topics {
        let metadata = client.fetch_metadata(Some(name), left())?;
        for topic in metadata.topics() {
            match topic.error() {
                None => {}
                Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => continue,
                Some(error) => return Err(BusError::Kafka(format!("{name}: {error:?}"))),
            }
            for partition in topic.partitions() {
                let (_, end) = client.fetch_watermarks(name, partition.id(), left())?;
                ends.insert((name.clone(), partition.id()), end);
            }
        }
    }
    Ok(ends)
}
