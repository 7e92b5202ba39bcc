//! One reader, two sources.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::{Postgres, Transaction};
use tokio::time::Instant;

use super::embedded::EmbeddedReader;
use super::kafka::KafkaReader;
use crate::event::StoredEvent;

/// Part of a source that keeps its order by itself: a shard, or a partition of a topic. Numbers are the reader's own.
pub type Lane = u32;

/// Which events a reader's payloads are needed of. Others are passed over: they count as read and come without payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub event_types: Vec<String>,
    pub prefixes: Vec<String>,
}

/// Events, and the transaction in which the reader's progress has moved past them. Dropping it undoes that.
pub struct Claim {
    pub tx: Transaction<'static, Postgres>,
    /// In order within each lane.
    pub events: Vec<StoredEvent>,
    /// The lane of each event.
    pub lanes: Vec<Lane>,
    /// Kafka: the topic that each event came by.
    pub topics: Vec<Arc<str>>,
    /// Kafka: events that come behind others of higher positions, since the bus had refused them. They are in the event store.
    pub late: Vec<StoredEvent>,
    /// The bus has, or may have, lost events that the group has not read: the event store must fill in before these are folded.
    pub gap: bool,
}

/// Reading failed; the same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("kafka: {0}")]
    Kafka(String),
    #[error("the Kafka consumer thread ended: {0}")]
    ConsumerEnded(String),
}

/// A consumer group's reader.
pub enum Reader {
    Embedded(EmbeddedReader),
    Kafka(KafkaReader),
}

impl Reader {
    /// Waits until there may be something to claim outside the deferred lanes, at the latest until `until`.
    pub async fn ready(&mut self, until: Instant, deferred: &HashSet<Lane>) -> Result<(), BusError> {
        match self {
            Self::Embedded(reader) => reader.ready(until, deferred).await,
            Self::Kafka(reader) => return reader.ready(until, deferred).await,
        }
        Ok(())
    }

    /// Claims what is there outside the deferred lanes; `None` when there is nothing, or another instance has it.
    pub async fn claim(&mut self, wanted: &Wanted, deferred: &HashSet<Lane>) -> Result<Option<Claim>, BusError> {
        match self {
            Self::Embedded(reader) => reader.claim(wanted, deferred).await,
            Self::Kafka(reader) => reader.claim(deferred).await,
        }
    }

    /// The claim's transaction was committed.
    pub fn committed(&mut self) {
        match self {
            Self::Embedded(reader) => reader.committed(),
            Self::Kafka(reader) => reader.committed(),
        }
    }

    /// The last batch was of so many events, and read so many bytes of states: the next is as large as memory allows.
    pub fn weighed(&mut self, events: usize, state_bytes: usize) {
        match self {
            Self::Embedded(reader) => reader.pace.weighed(events, state_bytes),
            Self::Kafka(reader) => reader.pace.weighed(events, state_bytes),
        }
    }

    /// The claim was undone: the same events come again.
    pub fn undone(&mut self) {
        match self {
            Self::Embedded(reader) => reader.undone(),
            Self::Kafka(reader) => reader.undone(),
        }
    }

    /// The claim failed, or took too long: the same events come again, fewer at a time.
    pub fn failed(&mut self) {
        match self {
            Self::Embedded(reader) => reader.failed(),
            Self::Kafka(reader) => reader.failed(),
        }
    }

    /// Stops reading. On Kafka others take over at once what was read here.
    pub async fn close(self) {
        if let Self::Kafka(reader) = self {
            reader.close().await;
        }
    }

    /// Whether events come by topics.
    pub fn is_kafka(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }

    /// Kafka: the topics to be read, whenever they may have changed.
    pub fn follow(&mut self, topics: Vec<String>) {
        if let Self::Kafka(reader) = self {
            reader.follow(topics);
        }
    }
}

/// The lock that every batch of a group takes shared, and a hand-over or a change of what is fed takes exclusively.
pub const GROUP_LOCK: i64 = 0x636a_0001;

/// Opens a batch's transaction. It need not be flushed to disk at commit: progress and effects are lost or kept together,
/// and what is lost is read again.
pub(super) const BEGIN_UNDER_GROUP_LOCK: &str =
    "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_advisory_xact_lock_shared(1667891201)";

#[cfg(test)]
mod tests {
    use super::{BEGIN_UNDER_GROUP_LOCK, GROUP_LOCK};

    #[test]
    fn the_batch_takes_the_group_lock() {
        assert!(BEGIN_UNDER_GROUP_LOCK.contains(&format!("({GROUP_LOCK})")));
    }
}
