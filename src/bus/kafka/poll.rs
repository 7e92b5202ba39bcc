//! The consumer's thread: polls librdkafka, and places partitions where PostgreSQL says.
//!
//! Offsets come from PostgreSQL, never from the broker. Where the broker no longer has what is next (retention was
//! shorter than our absence, or the topic was deleted and made again), a record says that there is a gap, and the
//! handler fills it from the event store. A partition that cannot be placed now, since the database or its leader is
//! away, is tried again later: the others go on.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use sqlx::PgPool;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::positions::Positions;
use super::record::{self, Partition, Record};
use super::{KafkaSettings, store};
use crate::pace::Budget;

/// Messages, and bytes of them, handed over at once.
const CHUNK: usize = 500;
const CHUNK_BYTES: usize = 2 * 1024 * 1024;
/// Chunks that wait for the reader.
const CHUNKS: usize = 4;
/// How long one poll waits for a message.
const POLL: Duration = Duration::from_millis(50);
/// How long a question to the database or the broker may take. Nothing is read meanwhile.
const ASK: Duration = Duration::from_secs(2);
/// When a question that was not answered is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What the reader asks of the thread.
pub(super) enum Command {
    Subscribe(Vec<String>),
    /// Read a partition anew from the place in PostgreSQL.
    Resync {
        partition: Partition,
        epoch: u64,
    },
    Stop,
}

/// The reader's ends of the thread's channels.
pub(super) struct Ends {
    pub commands: Sender<Command>,
    pub records: mpsc::Receiver<Vec<Record>>,
    /// Closed when the consumer has left its group.
    pub left: oneshot::Receiver<()>,
}

struct Context {
    positions: Mutex<Positions>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Context {
    /// Only takes note: partitions are placed outside, where waiting for one keeps no other.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let keys = partitions.elements().into_iter().map(|element| (element.topic().into(), element.partition()));
        let result = if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            info!(partitions = partitions.count(), "partitions assigned");
            let now = Instant::now();
            let mut positions = self.positions();
            keys.for_each(|partition| positions.assigned(partition, now));
            drop(positions);
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            info!(partitions = partitions.count(), "partitions revoked");
            let mut positions = self.positions();
            let keys: Vec<Partition> = keys.collect();
            for partition in &keys {
                positions.revoked(partition);
            }
            drop(positions);
            consumer.incremental_unassign(&placed_of(consumer, &keys))
        };
        if let Err(error) = result {
            warn!(%error, "rebalance failed");
        }
    }
}

impl Context {
    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those of the partitions that are placed: no others can be given back.
fn placed_of(consumer: &BaseConsumer<Context>, partitions: &[Partition]) -> TopicPartitionList {
    let assigned = consumer.assignment().unwrap_or_default();
    let mut placed = TopicPartitionList::new();
    for (topic, partition) in partitions {
        if assigned.find_partition(topic, *partition).is_some() {
            placed.add_partition(topic, *partition);
        }
    }
    placed
}

struct Thread {
    group: &'static str,
    pool: PgPool,
    runtime: Handle,
    consumer: BaseConsumer<Context>,
    commands: Receiver<Command>,
    records: mpsc::Sender<Vec<Record>>,
}

/// Starts the thread. It ends when told to, or when the reader is gone.
pub(super) fn start(settings: &KafkaSettings, group: &'static str, pool: PgPool) -> Result<Ends, KafkaError> {
    let context = Context { positions: Mutex::default() };
    let consumer = BaseConsumer::from_config_and_context(&settings.consumer(group), context)?;
    let (command_end, commands) = channel();
    let (records, record_end) = mpsc::channel(CHUNKS);
    let (leaves, left) = oneshot::channel();
    let thread = Thread { group, pool, runtime: Handle::current(), consumer, commands, records };
    let run = move || {
        thread.run();
        // Dropping the consumer leaves the group, so that others need not wait until its session times out.
        drop(thread);
        drop(leaves);
    };
    std::thread::Builder::new()
        .name("kafka-consumer".to_owned())
        .spawn(run)
        .map_err(|e| KafkaError::ClientCreation(e.to_string()))?;
    Ok(Ends { commands: command_end, records: record_end, left })
}

impl Thread {
    fn run(&self) {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Subscribe(topics)) => self.subscribe(&topics),
                Ok(Command::Resync { partition, epoch }) => self.resync(partition, epoch),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            self.place();
            let mut chunk = self.look();
            self.fetch(&mut chunk);
            // The queue is bounded: while it is full the client fetches only up to its own bound.
            if !chunk.is_empty() && self.records.blocking_send(chunk).is_err() {
                return;
            }
        }
    }

    fn subscribe(&self, topics: &[String]) {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        if let Err(error) = self.consumer.subscribe(&names) {
            warn!(%error, "cannot subscribe");
        }
    }

    /// Gives a partition back, to place it anew.
    fn resync(&self, partition: Partition, epoch: u64) {
        let mut positions = self.consumer.context().positions();
        positions.begin_epoch(&partition, epoch);
        let placed = placed_of(&self.consumer, std::slice::from_ref(&partition));
        if placed.count() > 0 {
            positions.assigned(partition, Instant::now());
            drop(positions);
            self.unassign(&placed);
        }
    }

    /// Places the partitions that are assigned to this consumer and not placed yet.
    fn place(&self) {
        let due = self.consumer.context().positions().unplaced(Instant::now());
        if due.is_empty() {
            return;
        }
        let resumed = store::resume(&self.pool, self.group, &due);
        let places = match self.runtime.block_on(async { tokio::time::timeout(ASK, resumed).await }) {
            Ok(Ok(places)) => places,
            failed => {
                warn!(cause = ?failed.map(Result::err), "cannot place partitions: trying again");
                return self.consumer.context().positions().not_yet(&due, Instant::now() + ASK_AGAIN);
            }
        };
        let mut begin = TopicPartitionList::new();
        let mut positions = self.consumer.context().positions();
        for place in places {
            let at =
                positions.place(&(place.topic.as_str().into(), place.partition), place.next_offset, place.positions);
            add(&mut begin, &place.topic, place.partition, at);
        }
        drop(positions);
        self.assign(&begin);
    }

    /// Looks at partitions of which an offset may be out of range: those are read from where the topic begins now, after a
    /// gap. The client does not say which it is, and stops reading it, so all begin anew where they are.
    fn look(&self) -> Vec<Record> {
        let mut gaps = Vec::new();
        let begun = Instant::now();
        let doubtful = self.consumer.context().positions().doubtful(begun);
        for partition in doubtful {
            let (topic, number) = (&partition.0, partition.1);
            let asked = self.consumer.fetch_watermarks(topic, number, ASK.saturating_sub(begun.elapsed()));
            let mut positions = self.consumer.context().positions();
            let (low, high) = match asked {
                Ok(marks) => marks,
                Err(error) => {
                    debug!(%error, %topic, number, "the broker does not say what a partition holds: asking again");
                    positions.doubt(partition, Instant::now() + ASK_AGAIN);
                    continue;
                }
            };
            let Some((at, gap)) = positions.replace(&partition, low, high) else { continue };
            drop(positions);
            if let Some(gap) = gap {
                warn!(%topic, number, low, high, expected = gap.expects, "the bus no longer has what is next: the event store fills the gap");
                gaps.push(gap);
            }
            let mut anew = TopicPartitionList::new();
            add(&mut anew, topic, number, at);
            // Assigned anew rather than sought: a partition whose offset was out of range takes no seek.
            self.unassign(&placed_of(&self.consumer, std::slice::from_ref(&partition)));
            self.assign(&anew);
        }
        gaps
    }

    /// What there is: waits for the first message, then takes what is already fetched.
    fn fetch(&self, chunk: &mut Vec<Record>) {
        let mut wait = if chunk.is_empty() { POLL } else { Duration::ZERO };
        let begun = Instant::now();
        let mut budget = Budget::new(CHUNK_BYTES);
        while chunk.len() < CHUNK && begun.elapsed() < POLL * 2 {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    self.receive(&message, chunk);
                    if !budget.take(message.payload_len()) {
                        break;
                    }
                }
                Some(Err(error)) => self.failed(&error),
                None => break,
            }
            wait = Duration::ZERO;
        }
    }

    fn receive(&self, message: &BorrowedMessage<'_>, chunk: &mut Vec<Record>) {
        let partition: Partition = (message.topic().into(), message.partition());
        let (gap, record) =
            self.consumer.context().positions().receive(&partition, message.offset(), record::place(message));
        if gap.as_ref().is_some_and(|gap| gap.expects > 0) {
            warn!(topic = %partition.0, partition = partition.1, offset = message.offset(),
                "the topic is not the one that was read before: the event store fills the gap");
        }
        chunk.extend(gap);
        let event = |record| Record {
            event: record::decode(message),
            late: record::is_late(message),
            bytes: message.payload_len(),
            ..record
        };
        chunk.extend(record.map(event));
    }

    fn failed(&self, error: &KafkaError) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AutoOffsetReset) {
            debug!(%error, "kafka poll");
            return;
        }
        let assignment = self.consumer.assignment().unwrap_or_default();
        let mut positions = self.consumer.context().positions();
        for element in assignment.elements() {
            positions.doubt((element.topic().into(), element.partition()), Instant::now());
        }
    }

    fn assign(&self, partitions: &TopicPartitionList) {
        if let Err(error) = self.consumer.incremental_assign(partitions) {
            warn!(%error, "partitions cannot be read");
        }
    }

    fn unassign(&self, partitions: &TopicPartitionList) {
        if partitions.count() > 0
            && let Err(error) = self.consumer.incremental_unassign(partitions)
        {
            warn!(%error, "partitions cannot be given back");
        }
    }
}

fn add(list: &mut TopicPartitionList, topic: &str, partition: i32, offset: i64) {
    if let Err(error) = list.add_partition_offset(topic, partition, Offset::Offset(offset)) {
        warn!(topic, partition, offset, %error, "an offset that the client does not take");
    }
}
