//! Where the thread is in each partition, and what the first message says about the topic: pure but for the clock.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::record::{Partition, Record};

/// Where the thread is in a partition.
#[derive(Debug, Default)]
struct Position {
    epoch: u64,
    /// The next offset to hand over.
    next: i64,
    check: Check,
}

/// What the next message is to be looked at for.
#[derive(Debug, Default)]
enum Check {
    #[default]
    Nothing,
    /// It is the first of its partition. Of a topic that was deleted and made again before it was read, whatever was in
    /// the partition is lost, and nothing there tells: the event store is asked once.
    First,
    /// Reading began one message early: the last position of each shard that was read before, to compare it with.
    Last(Vec<i64>),
}

/// All partitions of this consumer.
#[derive(Debug, Default)]
pub(super) struct Positions {
    known: HashMap<Partition, Position>,
    /// Assigned, and to be placed from this time on.
    unplaced: BTreeMap<Partition, Instant>,
    /// Placed, but an offset may be out of range: to be looked at from this time on.
    doubtful: BTreeMap<Partition, Instant>,
}

impl Positions {
    pub fn assigned(&mut self, partition: Partition, now: Instant) {
        self.doubtful.remove(&partition);
        self.unplaced.insert(partition, now);
    }

    pub fn revoked(&mut self, partition: &Partition) {
        self.unplaced.remove(partition);
        self.doubtful.remove(partition);
    }

    pub fn doubt(&mut self, partition: Partition, from: Instant) {
        self.doubtful.insert(partition, from);
    }

    pub fn unplaced(&self, now: Instant) -> Vec<Partition> {
        due(&self.unplaced, now)
    }

    pub fn doubtful(&self, now: Instant) -> Vec<Partition> {
        due(&self.doubtful, now)
    }

    /// Those that could not be placed are tried again from `later` on.
    pub fn not_yet(&mut self, partitions: &[Partition], later: Instant) {
        for partition in partitions {
            self.unplaced.insert(partition.clone(), later);
        }
    }

    /// Records from now on are of this epoch, also where the partition is assigned again later.
    pub fn begin_epoch(&mut self, partition: &Partition, epoch: u64) {
        let position = self.known.entry(partition.clone()).or_default();
        position.epoch = position.epoch.max(epoch);
    }

    /// Reads on as PostgreSQL says; returns the offset to begin at. Where something was read before, that is one message
    /// early, to find out whether this is the same topic still; where nothing was, the first message comes after a gap.
    pub fn place(&mut self, partition: &Partition, next: i64, read: Vec<i64>) -> i64 {
        self.unplaced.remove(partition);
        let check = match next {
            0 => Check::First,
            _ if read.iter().any(|position| *position > 0) => Check::Last(read),
            _ => Check::Nothing,
        };
        let position = self.known.entry(partition.clone()).or_default();
        position.next = next;
        position.check = check;
        begin_at(position)
    }

    /// Reads on where what is next may be out of range: returns the offset to begin at, and a gap if there is one.
    pub fn replace(&mut self, partition: &Partition, low: i64, high: i64) -> Option<(i64, Option<Record>)> {
        self.doubtful.remove(partition);
        let position = self.known.get_mut(partition)?;
        if (low..=high).contains(&begin_at(position)) {
            return Some((begin_at(position), None));
        }
        position.check = Check::Nothing;
        if (low..=high).contains(&position.next) {
            return Some((position.next, None));
        }
        let expects = std::mem::replace(&mut position.next, low);
        Some((low, Some(gap(partition, position.epoch, expects, low))))
    }

    /// What a message is: a gap before it, if there is one, and the record, if the message was not read before.
    /// `place` is the message's shard and position.
    pub fn receive(
        &mut self,
        partition: &Partition,
        offset: i64,
        place: Option<(usize, i64)>,
    ) -> (Option<Record>, Option<Record>) {
        let Some(position) = self.known.get_mut(partition) else { return (None, None) };
        let mut before = None;
        let has_a_gap = match std::mem::take(&mut position.check) {
            Check::Nothing => false,
            Check::First => true,
            Check::Last(read) => !is_the_last_read(position.next, &read, offset, place),
        };
        if has_a_gap {
            let (expects, next) = (position.next, position.next.max(offset));
            position.next = next;
            before = Some(gap(partition, position.epoch, expects, next));
        }
        if offset < position.next {
            return (before, None);
        }
        let expects = std::mem::replace(&mut position.next, offset + 1);
        let mut record = gap(partition, position.epoch, expects, offset + 1);
        record.gap = false;
        (before, Some(record))
    }
}

fn due(partitions: &BTreeMap<Partition, Instant>, now: Instant) -> Vec<Partition> {
    partitions.iter().filter(|(_, from)| **from <= now).map(|(partition, _)| partition.clone()).collect()
}

fn begin_at(position: &Position) -> i64 {
    if matches!(position.check, Check::Last(_)) { position.next - 1 } else { position.next }
}

/// Whether the message before `next` is the one that was read last: it is there, and no shard's position is newer than
/// what was read. A topic that was deleted and made again has other messages there. One that is not of a relay says nothing.
fn is_the_last_read(next: i64, read: &[i64], offset: i64, place: Option<(usize, i64)>) -> bool {
    offset == next - 1 && place.is_none_or(|(shard, position)| read.get(shard).is_some_and(|last| position <= *last))
}

fn gap(partition: &Partition, epoch: u64, expects: i64, next: i64) -> Record {
    Record {
        topic: partition.0.clone(),
        partition: partition.1,
        epoch,
        expects,
        offset: next - 1,
        gap: true,
        late: false,
        event: None,
        bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SHARDS;

    fn read_before(next: i64) -> (Positions, Partition, i64) {
        let partition: Partition = ("t".into(), 0);
        let mut read = vec![0; SHARDS];
        read[3] = 7;
        let mut positions = Positions::default();
        positions.assigned(partition.clone(), Instant::now());
        let begin = positions.place(&partition, next, read);
        (positions, partition, begin)
    }

    /// What is expected before a record, and its offset.
    type Numbers = Option<(i64, i64)>;

    fn shape(received: (Option<Record>, Option<Record>)) -> (Numbers, Numbers) {
        let numbers = |record: Record| (record.expects, record.offset);
        assert!(received.0.as_ref().is_none_or(|record| record.gap));
        assert!(received.1.as_ref().is_none_or(|record| !record.gap));
        (received.0.map(numbers), received.1.map(numbers))
    }

    #[test]
    fn a_topic_that_holds_what_was_read_last_is_read_on() {
        let (mut positions, partition, begin) = read_before(100);
        assert_eq!(begin, 99);
        assert_eq!(shape(positions.receive(&partition, 99, Some((3, 7)))), (None, None));
        assert_eq!(shape(positions.receive(&partition, 100, Some((3, 8)))), (None, Some((100, 100))));
        assert_eq!(shape(positions.receive(&partition, 100, Some((3, 8)))), (None, None), "read before");
        let (mut foreign, partition, _) = read_before(100);
        assert_eq!(shape(foreign.receive(&partition, 99, None)), (None, None));
    }

    #[test]
    fn a_topic_that_was_made_again_has_a_gap_where_another_message_is_before_what_is_next() {
        let (mut positions, partition, _) = read_before(100);
        assert_eq!(shape(positions.receive(&partition, 99, Some((3, 8)))), (Some((100, 99)), None));
        assert_eq!(shape(positions.receive(&partition, 100, Some((3, 9)))), (None, Some((100, 100))));
        let (mut other_shard, partition, _) = read_before(100);
        assert_eq!(shape(other_shard.receive(&partition, 99, Some((4, 1)))), (Some((100, 99)), None));
    }

    #[test]
    fn where_the_message_before_is_missing_there_is_a_gap() {
        let (mut positions, partition, _) = read_before(100);
        let received = positions.receive(&partition, 120, Some((3, 9)));
        assert_eq!(shape(received), (Some((100, 119)), Some((120, 120))));
    }

    #[test]
    fn what_is_out_of_range_begins_where_the_topic_does_after_a_gap() {
        let (mut positions, partition, _) = read_before(100);
        let (begin, gap) = positions.replace(&partition, 0, 40).expect("known");
        assert_eq!((begin, gap.map(|gap| (gap.expects, gap.offset))), (0, Some((100, -1))));
        assert_eq!(shape(positions.receive(&partition, 0, Some((3, 9)))), (None, Some((0, 0))));
    }

    #[test]
    fn retention_up_to_what_is_next_is_no_gap() {
        let (mut positions, partition, _) = read_before(100);
        let (begin, gap) = positions.replace(&partition, 100, 100).expect("known");
        assert!(begin == 100 && gap.is_none());
        assert_eq!(shape(positions.receive(&partition, 100, Some((3, 8)))), (None, Some((100, 100))));
    }

    #[test]
    fn the_first_message_of_a_partition_comes_after_a_gap_since_nothing_tells_what_was_there_before() {
        let partition: Partition = ("t".into(), 0);
        let mut positions = Positions::default();
        assert_eq!(positions.place(&partition, 0, vec![0; SHARDS]), 0);
        assert_eq!(shape(positions.receive(&partition, 0, Some((3, 1)))), (Some((0, -1)), Some((0, 0))));
        assert_eq!(shape(positions.receive(&partition, 1, Some((3, 2)))), (None, Some((1, 1))));
    }
}
