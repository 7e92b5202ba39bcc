//! What the consumer's thread hands to the reader: messages as events, and gaps.

use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Headers, Message};
use tracing::{debug, warn};

use super::header;
use crate::event::{SHARDS, StoredEvent};

/// A partition of a topic.
pub(super) type Partition = (Arc<str>, i32);

/// A message, or a gap.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub topic: Arc<str>,
    pub partition: i32,
    pub epoch: u64,
    /// The group's next offset before this record, as kept in PostgreSQL if nobody else has read on.
    pub expects: i64,
    pub offset: i64,
    /// Messages between `expects` and this one are no longer on the bus.
    pub gap: bool,
    /// `None`: not an event of ours, or only a gap.
    pub event: Option<StoredEvent>,
    /// It may come behind events of higher positions.
    pub late: bool,
    /// Size of the message's value.
    pub bytes: usize,
}

impl Record {
    pub fn partition(&self) -> Partition {
        (self.topic.clone(), self.partition)
    }
}

/// The form of an event in a message's value.
#[derive(serde::Deserialize)]
struct Wire {
    event_id: uuid::Uuid,
    event_type: String,
    aggregate_id: String,
    timestamp: chrono::DateTime<chrono::Utc>,
    payload: serde_json::Value,
    #[serde(default)]
    metadata: serde_json::Value,
    ingested_at: chrono::DateTime<chrono::Utc>,
}

/// Whether a message says that it comes behind events of higher positions.
pub(super) fn is_late(message: &BorrowedMessage<'_>) -> bool {
    message.headers().is_some_and(|headers| headers.iter().any(|found| found.key == header::LATE))
}

fn number(message: &BorrowedMessage<'_>, name: &str) -> Option<i64> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()?.parse().ok()
}

/// Shard and position of a message that a relay sent.
pub(super) fn place(message: &BorrowedMessage<'_>) -> Option<(usize, i64)> {
    let shard = usize::try_from(number(message, header::SHARD)?).ok().filter(|shard| *shard < SHARDS)?;
    Some((shard, number(message, header::POSITION)?))
}

/// The event in a message; `None`, with a line in the log, where it is none of ours.
pub(super) fn decode(message: &BorrowedMessage<'_>) -> Option<StoredEvent> {
    let Some((shard, position)) = place(message) else {
        let (topic, offset) = (message.topic(), message.offset());
        debug!(topic, offset, "message without shard and position: not of a relay");
        return None;
    };
    match serde_json::from_slice::<Wire>(message.payload().unwrap_or_default()) {
        Ok(wire) => Some(StoredEvent {
            shard: i16::try_from(shard).ok()?,
            position,
            event_id: wire.event_id,
            event_type: wire.event_type,
            aggregate_id: wire.aggregate_id,
            timestamp: wire.timestamp,
            payload: wire.payload,
            metadata: wire.metadata,
            ingested_at: wire.ingested_at,
        }),
        Err(error) => {
            warn!(topic = message.topic(), offset = message.offset(), %error, "message is not an event: passed over");
            None
        }
    }
}
