//! Kafka (Apache Kafka, Redpanda), by librdkafka. Everything that names it is in this folder.

mod consumer;
mod poll;
mod positions;
mod producer;
mod record;
mod settings;
mod store;
mod watermarks;

use rdkafka::error::KafkaError;

use super::BusError;

pub use consumer::KafkaReader;
pub use producer::{DEADLINE, Delivery, Message, Producer, Unwritable};
pub use settings::{KafkaSettings, PropertyError};
pub use store::offsets;
pub use watermarks::{Offsets, Watermarks};

impl From<KafkaError> for BusError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(controllers::effects::kafka::without_value(error).to_string())
    }
}

/// Header names of a message.
pub mod header {
    pub const EVENT_ID: &str = "event_id";
    pub const EVENT_TYPE: &str = "event_type";
    pub const TRACEPARENT: &str = "traceparent";
    /// Shard and position in the event store: what is at or below the last position seen is a duplicate.
    pub const SHARD: &str = "shard";
    pub const POSITION: &str = "position";
    /// Present where the bus had refused the event before: it comes behind events of higher positions, and is no duplicate.
    pub const LATE: &str = "late";
}
