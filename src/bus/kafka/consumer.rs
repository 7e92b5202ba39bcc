//! The Kafka side of the reader: claims move offsets in PostgreSQL by compare-and-set, so that effects are exactly once
//! even for an owner that was frozen while its partitions went to another.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use metrics::counter;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::KafkaSettings;
use super::poll::{self, Command, Record};
use super::store::{self, Place};
use crate::bus::reader::{BusError, Claim, Lane, begin};

/// Most messages of one claim.
const BATCH: usize = 4000;
/// Most messages held here while lanes are deferred; beyond, no more are fetched.
const HELD: usize = 8000;

/// Reads topics for a consumer group.
pub struct KafkaReader {
    group: &'static str,
    pool: PgPool,
    records: mpsc::Receiver<Vec<Record>>,
    commands: std::sync::mpsc::Sender<Command>,
    held: VecDeque<Record>,
    lanes: HashMap<(Arc<str>, i32), Lane>,
    /// Records of an older epoch were fetched before the partition was read anew: they are dropped.
    epochs: HashMap<(Arc<str>, i32), u64>,
    /// Identities (partition and offset) of the records of the open claim.
    open: HashSet<(Arc<str>, i32, i64)>,
    topics: Vec<String>,
}

impl KafkaReader {
    /// Starts the consumer's thread.
    ///
    /// # Errors
    /// The settings are not accepted by the client.
    pub fn start(settings: &KafkaSettings, group: &'static str, pool: PgPool) -> Result<Self, BusError> {
        let (commands, records) = poll::start(settings, group, pool.clone())?;
        Ok(Self {
            group,
            pool,
            records,
            commands,
            held: VecDeque::new(),
            lanes: HashMap::new(),
            epochs: HashMap::new(),
            open: HashSet::new(),
            topics: Vec::new(),
        })
    }

    /// Subscribes to the topics named, if they are others than before.
    pub(in crate::bus) fn follow(&mut self, mut topics: Vec<String>) {
        // A topic that is no longer declared may still hold events that were not read.
        topics.extend(self.topics.iter().cloned());
        topics.sort();
        topics.dedup();
        if topics != self.topics {
            info!(?topics, "reading topics");
            self.topics.clone_from(&topics);
            // A thread that has ended shows when records are asked for.
            let _ = self.commands.send(Command::Subscribe(topics));
        }
    }

    pub(in crate::bus) async fn ready(&mut self, until: Instant, deferred: &HashSet<Lane>) -> Result<(), BusError> {
        let nothing_free = !self.held.iter().any(|record| self.is_free(record, deferred));
        if nothing_free && self.held.len() >= HELD {
            sleep_until(until).await;
        } else if nothing_free {
            tokio::select! {
                records = self.records.recv() => match records {
                    Some(records) => self.keep(records),
                    None => return Err(BusError::ConsumerEnded("its channel is closed".to_owned())),
                },
                () = sleep_until(until) => {}
            }
        }
        while self.held.len() < BATCH {
            match self.records.try_recv() {
                Ok(records) => self.keep(records),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn is_free(&self, record: &Record, deferred: &HashSet<Lane>) -> bool {
        deferred.is_empty()
            || self.lanes.get(&(record.topic.clone(), record.partition)).is_none_or(|lane| !deferred.contains(lane))
    }

    fn keep(&mut self, records: Vec<Record>) {
        for record in records {
            let partition = (record.topic.clone(), record.partition);
            if record.epoch >= self.epochs.get(&partition).copied().unwrap_or(0) {
                self.held.push_back(record);
            }
        }
    }

    pub(in crate::bus) async fn claim(&mut self, deferred: &HashSet<Lane>) -> Result<Option<Claim>, BusError> {
        let partitions = self.gather(deferred);
        if partitions.is_empty() {
            return Ok(None);
        }
        let mut tx = begin(&self.pool).await?;
        let names: Vec<(&str, i32)> =
            partitions.keys().map(|(topic, partition)| (topic.as_ref(), *partition)).collect();
        let places = store::lock(&mut tx, self.group, &names).await?;
        let mut places: HashMap<(String, i32), Place> =
            places.into_iter().map(|place| ((place.topic.clone(), place.partition), place)).collect();
        let mut claim = Claim { tx, events: Vec::new(), lanes: Vec::new(), gap: false };
        self.open.clear();
        for (partition, records) in partitions {
            let place = places.remove(&(partition.0.to_string(), partition.1));
            match place.filter(|place| records.first().is_some_and(|first| first.expects == place.next_offset)) {
                Some(place) => self.take(&mut claim, &records, place).await?,
                None => self.overtaken(&partition, &records),
            }
        }
        if self.open.is_empty() { Ok(None) } else { Ok(Some(claim)) }
    }

    /// The records to be claimed, by partition, each in order.
    fn gather(&self, deferred: &HashSet<Lane>) -> BTreeMap<(Arc<str>, i32), Vec<Record>> {
        let mut partitions: BTreeMap<(Arc<str>, i32), Vec<Record>> = BTreeMap::new();
        for record in self.held.iter().filter(|record| self.is_free(record, deferred)).take(BATCH) {
            partitions.entry((record.topic.clone(), record.partition)).or_default().push(record.clone());
        }
        partitions
    }

    /// Moves the place of a partition past its records, and hands on those that are no duplicates.
    async fn take(&mut self, claim: &mut Claim, records: &[Record], mut place: Place) -> Result<(), BusError> {
        let partition = (records[0].topic.clone(), place.partition);
        let next_lane = Lane::try_from(self.lanes.len()).unwrap_or(Lane::MAX);
        let lane = *self.lanes.entry(partition.clone()).or_insert(next_lane);
        for record in records {
            self.open.insert((record.topic.clone(), record.partition, record.offset));
            place.next_offset = record.offset + 1;
            claim.gap |= record.gap;
            let Some(event) = &record.event else { continue };
            let Some(seen) = usize::try_from(event.shard).ok().and_then(|shard| place.positions.get_mut(shard)) else {
                continue;
            };
            if event.position <= *seen {
                counter!("cornjacket_bus_duplicates_total").increment(1);
                continue;
            }
            *seen = event.position;
            claim.events.push(event.clone());
            claim.lanes.push(lane);
        }
        store::advance(&mut claim.tx, self.group, &place).await?;
        Ok(())
    }

    /// Another owner was faster: its records are dropped, and the partition is read anew if it is still ours.
    fn overtaken(&mut self, partition: &(Arc<str>, i32), records: &[Record]) {
        warn!(topic = %partition.0, partition = partition.1, "another instance has read on: reading the partition anew");
        counter!("cornjacket_bus_overtaken_total").increment(1);
        let epoch = records.iter().map(|record| record.epoch).max().unwrap_or(0) + 1;
        self.epochs.insert(partition.clone(), epoch);
        self.held.retain(|record| (&record.topic, record.partition) != (&partition.0, partition.1));
        let _ = self.commands.send(Command::Resync { topic: partition.0.clone(), partition: partition.1, epoch });
    }

    pub(in crate::bus) fn committed(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.held.retain(|record| !open.contains(&(record.topic.clone(), record.partition, record.offset)));
    }

    pub(in crate::bus) fn undone(&mut self) {
        self.open.clear();
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
    }
}
