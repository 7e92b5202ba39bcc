//! The consumer's thread: polls librdkafka, and decides where a partition is read from when it is assigned.
//!
//! Offsets come from PostgreSQL, never from the broker. Where the broker no longer has what is next (retention was
//! shorter than our absence, or the topic was deleted and made again), the first record says that there is a gap, and
//! the handler fills it from the event store.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use sqlx::PgPool;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{KafkaSettings, header, store};
use crate::event::{SHARDS, StoredEvent};

/// Messages handed over at once.
const CHUNK: usize = 500;
/// Chunks that wait for the reader.
const CHUNKS: usize = 4;
/// How long one poll waits for a message.
const POLL: Duration = Duration::from_millis(50);
/// How long a question to the broker may take.
const ASK: Duration = Duration::from_secs(5);

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
}

/// What the reader asks of the thread.
pub(super) enum Command {
    Subscribe(Vec<String>),
    /// Read a partition anew from the place in PostgreSQL.
    Resync {
        topic: Arc<str>,
        partition: i32,
        epoch: u64,
    },
    Stop,
}

/// Where the thread is in a partition.
struct Position {
    epoch: u64,
    next: i64,
}

struct Context {
    group: &'static str,
    pool: PgPool,
    runtime: Handle,
    positions: Mutex<HashMap<(Arc<str>, i32), Position>>,
    /// Records made at assignment, to be handed over before any message.
    gaps: Mutex<Vec<Record>>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let result = if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            info!(partitions = partitions.count(), "partitions assigned");
            let mut placed = TopicPartitionList::new();
            for element in partitions.elements() {
                let next = self.place(consumer, element.topic(), element.partition(), 0);
                let _ = placed.add_partition_offset(element.topic(), element.partition(), Offset::Offset(next));
            }
            consumer.incremental_assign(&placed)
        } else {
            info!(partitions = partitions.count(), "partitions revoked");
            consumer.incremental_unassign(partitions)
        };
        if let Err(error) = result {
            warn!(%error, "rebalance failed");
        }
    }
}

impl Context {
    /// Finds out where a partition is to be read from; waits for the broker and the database as long as it takes.
    fn place(&self, consumer: &BaseConsumer<Self>, topic: &str, partition: i32, epoch: u64) -> i64 {
        loop {
            match self.try_place(consumer, topic, partition, epoch) {
                Ok(next) => return next,
                Err(error) => {
                    warn!(topic, partition, error, "cannot place a partition: trying again");
                    std::thread::sleep(Duration::from_millis(500));
                }
            }
        }
    }

    fn try_place(&self, consumer: &BaseConsumer<Self>, topic: &str, partition: i32, epoch: u64) -> Result<i64, String> {
        let (low, high) = consumer.fetch_watermarks(topic, partition, ASK).map_err(|e| e.to_string())?;
        let count = consumer
            .fetch_metadata(Some(topic), ASK)
            .map(|metadata| metadata.topics().iter().map(|t| t.partitions().len()).sum::<usize>())
            .map_err(|e| e.to_string())?;
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let resumed = store::resume(&self.pool, self.group, topic, partition, count);
        let wanted = self.runtime.block_on(async { tokio::time::timeout(ASK, resumed).await });
        let wanted = wanted.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let name: Arc<str> = topic.into();
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        let position = positions.entry((name.clone(), partition)).or_insert(Position { epoch, next: 0 });
        position.epoch = position.epoch.max(epoch);
        if (low..=high).contains(&wanted) {
            position.next = wanted;
            return Ok(wanted);
        }
        warn!(topic, partition, wanted, low, high, "the bus no longer has what is next: the event store fills the gap");
        position.next = low;
        let epoch = position.epoch;
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner).push(Record {
            topic: name,
            partition,
            epoch,
            expects: wanted,
            offset: low - 1,
            gap: true,
            event: None,
        });
        Ok(low)
    }

    /// Records from now on are of this epoch, also where the partition is assigned again later.
    fn begin_epoch(&self, topic: &str, partition: i32, epoch: u64) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        let position = positions.entry((topic.into(), partition)).or_insert(Position { epoch, next: 0 });
        position.epoch = position.epoch.max(epoch);
    }

    /// The record of a message; `None` where the message was read before.
    fn record(&self, message: &BorrowedMessage<'_>) -> Option<Record> {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::<str>::from(message.topic()), message.partition());
        let position = positions.get_mut(&key)?;
        if message.offset() < position.next {
            return None;
        }
        let expects = std::mem::replace(&mut position.next, message.offset() + 1);
        Some(Record {
            topic: key.0,
            partition: key.1,
            epoch: position.epoch,
            expects,
            offset: message.offset(),
            gap: false,
            event: decode(message),
        })
    }
}

/// The event in a message; `None`, with a line in the log, where it is none of ours.
fn decode(message: &BorrowedMessage<'_>) -> Option<StoredEvent> {
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
    let number = |name: &str| -> Option<i64> {
        let headers = message.headers()?;
        let header = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok()?.parse().ok()
    };
    let place = number(header::SHARD).zip(number(header::POSITION));
    let (shard, position) =
        place.filter(|(shard, _)| usize::try_from(*shard).is_ok_and(|s| s < SHARDS)).or_else(|| {
            debug!(
                topic = message.topic(),
                offset = message.offset(),
                "message without shard and position: not of a relay"
            );
            None
        })?;
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

/// The reader's ends of the thread's channels.
type Ends = (Sender<Command>, mpsc::Receiver<Vec<Record>>);

/// Starts the thread. It ends when told to, or when the reader is gone.
pub(super) fn start(settings: &KafkaSettings, group: &'static str, pool: PgPool) -> Result<Ends, KafkaError> {
    let context = Context {
        group,
        pool,
        runtime: Handle::current(),
        positions: Mutex::new(HashMap::new()),
        gaps: Mutex::new(Vec::new()),
    };
    let consumer: BaseConsumer<Context> = BaseConsumer::from_config_and_context(&settings.consumer(group), context)?;
    let (command_end, commands) = channel();
    let (records, record_end) = mpsc::channel(CHUNKS);
    std::thread::Builder::new()
        .name("kafka-consumer".to_owned())
        .spawn(move || run(&consumer, &commands, &records))
        .map_err(|e| KafkaError::ClientCreation(e.to_string()))?;
    Ok((command_end, record_end))
}

fn run(consumer: &BaseConsumer<Context>, commands: &Receiver<Command>, records: &mpsc::Sender<Vec<Record>>) {
    loop {
        match commands.try_recv() {
            Ok(Command::Subscribe(topics)) => subscribe(consumer, &topics),
            Ok(Command::Resync { topic, partition, epoch }) => resync(consumer, &topic, partition, epoch),
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {}
        }
        let chunk = fetch(consumer);
        // The queue is bounded: while it is full the client fetches only up to its own bound.
        if !chunk.is_empty() && records.blocking_send(chunk).is_err() {
            return;
        }
    }
}

fn subscribe(consumer: &BaseConsumer<Context>, topics: &[String]) {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    if let Err(error) = consumer.subscribe(&names) {
        warn!(%error, "cannot subscribe");
    }
}

fn resync(consumer: &BaseConsumer<Context>, topic: &str, partition: i32, epoch: u64) {
    consumer.context().begin_epoch(topic, partition, epoch);
    let assigned = consumer.assignment().is_ok_and(|list| list.find_partition(topic, partition).is_some());
    if !assigned {
        return;
    }
    let next = consumer.context().place(consumer, topic, partition, epoch);
    // Assigned anew rather than sought: a partition whose offset was out of range takes no seek.
    let (mut gone, mut placed) = (TopicPartitionList::new(), TopicPartitionList::new());
    gone.add_partition(topic, partition);
    let again = placed
        .add_partition_offset(topic, partition, Offset::Offset(next))
        .and_then(|()| consumer.incremental_unassign(&gone))
        .and_then(|()| consumer.incremental_assign(&placed));
    if let Err(error) = again {
        warn!(topic, partition, %error, "cannot place a partition anew");
    }
}

/// What there is: waits for the first message, then takes what is already fetched.
fn fetch(consumer: &BaseConsumer<Context>) -> Vec<Record> {
    let context = consumer.context();
    let mut chunk = Vec::new();
    let mut wait = POLL;
    let begun = Instant::now();
    while chunk.len() < CHUNK && begun.elapsed() < POLL * 2 {
        let polled = consumer.poll(wait);
        // A rebalance inside the poll may have found gaps: they come first.
        chunk.append(&mut context.gaps.lock().unwrap_or_else(PoisonError::into_inner));
        match polled {
            Some(Ok(message)) => chunk.extend(context.record(&message)),
            Some(Err(error)) => failed(consumer, &error),
            None => break,
        }
        wait = Duration::ZERO;
    }
    chunk
}

fn failed(consumer: &BaseConsumer<Context>, error: &KafkaError) {
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
        warn!("an offset is out of range: placing all partitions anew");
        if let Ok(assignment) = consumer.assignment() {
            for element in assignment.elements() {
                resync(consumer, element.topic(), element.partition(), 0);
            }
        }
        return;
    }
    debug!(%error, "kafka poll");
}
