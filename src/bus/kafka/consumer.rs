//! The Kafka side of the reader: claims move offsets in PostgreSQL by compare-and-set, so that effects are exactly once
//! even for an owner that was frozen while its partitions went to another.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use metrics::counter;
use sqlx::PgPool;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::KafkaSettings;
use super::poll::{self, Command, Ends};
use super::record::{Partition, Record};
use super::store::{self, Place};
use crate::bus::reader::{BEGIN_UNDER_GROUP_LOCK, BusError, Claim, Lane};
use crate::pace::{Budget, MAX_BATCH_BYTES, Pace};

/// Most messages of one claim.
const BATCH: i64 = 4000;
/// Most messages held here while lanes are deferred; beyond, no more are fetched.
const HELD: usize = 8000;
/// Most bytes of messages held here.
const HELD_BYTES: usize = 2 * MAX_BATCH_BYTES;
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(5);

/// Reads topics for a consumer group.
pub struct KafkaReader {
    group: &'static str,
    pool: PgPool,
    thread: Ends,
    held: VecDeque<Record>,
    held_bytes: usize,
    pub(in crate::bus) pace: Pace,
    lanes: HashMap<Partition, Lane>,
    /// Records of an older epoch were fetched before the partition was read anew: they are dropped.
    epochs: HashMap<Partition, u64>,
    /// Identities (partition and offset) of the records of the open claim.
    open: HashSet<(Partition, i64)>,
    topics: Vec<String>,
}

impl KafkaReader {
    /// Starts the consumer's thread.
    ///
    /// # Errors
    /// The settings are not accepted by the client.
    pub fn start(settings: &KafkaSettings, group: &'static str, pool: PgPool) -> Result<Self, BusError> {
        let thread = poll::start(settings, group, pool.clone())?;
        Ok(Self {
            group,
            pool,
            thread,
            held: VecDeque::new(),
            held_bytes: 0,
            pace: Pace::new(BATCH),
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
            let _ = self.thread.commands.send(Command::Subscribe(topics));
        }
    }

    pub(in crate::bus) async fn ready(&mut self, until: Instant, deferred: &HashSet<Lane>) -> Result<(), BusError> {
        let nothing_free = !self.held.iter().any(|record| self.is_free(record, deferred));
        if nothing_free && self.is_full() {
            sleep_until(until).await;
        } else if nothing_free {
            tokio::select! {
                records = self.thread.records.recv() => match records {
                    Some(records) => self.keep(records),
                    None => return Err(BusError::ConsumerEnded("its channel is closed".to_owned())),
                },
                () = sleep_until(until) => {}
            }
        }
        while self.held.len() < HELD / 2 && self.held_bytes < MAX_BATCH_BYTES {
            match self.thread.records.try_recv() {
                Ok(records) => self.keep(records),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.held.len() >= HELD || self.held_bytes >= HELD_BYTES
    }

    fn is_free(&self, record: &Record, deferred: &HashSet<Lane>) -> bool {
        deferred.is_empty() || self.lanes.get(&record.partition()).is_none_or(|lane| !deferred.contains(lane))
    }

    fn keep(&mut self, records: Vec<Record>) {
        for record in records {
            if record.epoch >= self.epochs.get(&record.partition()).copied().unwrap_or(0) {
                self.held_bytes += record.bytes;
                self.held.push_back(record);
            }
        }
    }

    pub(in crate::bus) async fn claim(&mut self, deferred: &HashSet<Lane>) -> Result<Option<Claim>, BusError> {
        let partitions = self.gather(deferred);
        if partitions.is_empty() {
            return Ok(None);
        }
        let mut tx = self.pool.begin_with(BEGIN_UNDER_GROUP_LOCK).await?;
        let names: Vec<(&str, i32)> =
            partitions.keys().map(|(topic, partition)| (topic.as_ref(), *partition)).collect();
        let places = store::lock(&mut tx, self.group, &names).await?;
        let mut places: HashMap<(String, i32), Place> =
            places.into_iter().map(|place| ((place.topic.clone(), place.partition), place)).collect();
        let mut claim =
            Claim { tx, events: Vec::new(), lanes: Vec::new(), topics: Vec::new(), late: Vec::new(), gap: false };
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
    fn gather(&self, deferred: &HashSet<Lane>) -> BTreeMap<Partition, Vec<Record>> {
        let mut partitions: BTreeMap<Partition, Vec<Record>> = BTreeMap::new();
        let most = usize::try_from(self.pace.events()).unwrap_or(usize::MAX);
        let mut budget = Budget::new(MAX_BATCH_BYTES);
        let free = self.held.iter().filter(|record| self.is_free(record, deferred));
        for record in free.take(most).take_while(|record| budget.take(record.bytes)) {
            partitions.entry(record.partition()).or_default().push(record.clone());
        }
        partitions
    }

    /// Moves the place of a partition past its records, and hands on those that are no duplicates.
    async fn take(&mut self, claim: &mut Claim, records: &[Record], mut place: Place) -> Result<(), BusError> {
        let partition = records[0].partition();
        let next_lane = Lane::try_from(self.lanes.len()).unwrap_or(Lane::MAX);
        let lane = *self.lanes.entry(partition.clone()).or_insert(next_lane);
        for record in records {
            self.open.insert((record.partition(), record.offset));
            place.next_offset = record.offset + 1;
            claim.gap |= record.gap;
            let Some(event) = &record.event else { continue };
            let Some(seen) = usize::try_from(event.shard).ok().and_then(|shard| place.positions.get_mut(shard)) else {
                continue;
            };
            if event.position <= *seen && record.late {
                claim.late.push(event.clone());
                continue;
            }
            if event.position <= *seen {
                counter!("cornjacket_bus_duplicates_total").increment(1);
                continue;
            }
            *seen = event.position;
            claim.events.push(event.clone());
            claim.lanes.push(lane);
            claim.topics.push(partition.0.clone());
        }
        store::advance(&mut claim.tx, self.group, &place).await?;
        Ok(())
    }

    /// Another owner was faster: its records are dropped, and the partition is read anew if it is still ours.
    fn overtaken(&mut self, partition: &Partition, records: &[Record]) {
        warn!(topic = %partition.0, partition = partition.1, "another instance has read on: reading the partition anew");
        counter!("cornjacket_bus_overtaken_total").increment(1);
        let epoch = records.iter().map(|record| record.epoch).max().unwrap_or(0) + 1;
        self.epochs.insert(partition.clone(), epoch);
        self.drop_held(|record| record.partition() == *partition);
        let _ = self.thread.commands.send(Command::Resync { partition: partition.clone(), epoch });
    }

    pub(in crate::bus) fn committed(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.drop_held(|record| open.contains(&(record.partition(), record.offset)));
        self.pace.done();
    }

    fn drop_held(&mut self, which: impl Fn(&Record) -> bool) {
        self.held.retain(|record| !which(record));
        self.held_bytes = self.held.iter().map(|record| record.bytes).sum();
    }

    pub(in crate::bus) fn failed(&mut self) {
        self.pace.failed();
        self.undone();
    }

    pub(in crate::bus) fn undone(&mut self) {
        self.open.clear();
    }

    /// Leaves the group, so that others go on at once with what was read here.
    pub(in crate::bus) async fn close(mut self) {
        let _ = self.thread.commands.send(Command::Stop);
        self.thread.records.close();
        if timeout(LEAVE, &mut self.thread.left).await.is_err() {
            warn!(
                "the Kafka consumer did not leave its group in {} s: others wait for its session to end",
                LEAVE.as_secs()
            );
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        let _ = self.thread.commands.send(Command::Stop);
    }
}
