//! Puts the events of several shards into one order: within a shard by position, across shards by event id, which
//! is the order of acceptance. Knows only what it is given; a shard whose rows were cut off by a limit stops the
//! merge where they end, since its next event might come before another shard's.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::{Event, Positions};
use crate::event::Shard;

/// What one statement found in one shard behind a reader's position.
#[derive(Debug)]
pub struct Found {
    pub shard: Shard,
    /// In order of position.
    pub events: VecDeque<Event>,
    /// Every position up to here was looked at. More may follow.
    pub looked_through: i64,
    /// Not all matching events up to `looked_through` are in `events`.
    pub cut_off: bool,
}

/// Merges, and tells for each event how far the reader has come with it.
pub fn merge(mut found: Vec<Found>, positions: &mut Positions) -> Vec<(Event, Positions)> {
    let mut merged = Vec::new();
    let head = |found: &[Found], n: usize| found[n].events.front().map(|e| Reverse((e.event_id, n)));
    let mut heads: BinaryHeap<_> = (0..found.len()).filter_map(|n| head(&found, n)).collect();
    while let Some(Reverse((_, n))) = heads.pop() {
        let Some(event) = found[n].events.pop_front() else { continue };
        positions.reach(event.shard, event.position);
        merged.push((event, positions.clone()));
        match head(&found, n) {
            Some(next) => heads.push(next),
            None if found[n].cut_off => return merged,
            None => {}
        }
    }
    for shard in &found {
        positions.reach(shard.shard, shard.looked_through);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;
    use uuid::Uuid;

    fn event(shard: Shard, position: i64, id: u128) -> Event {
        Event {
            event_id: Uuid::from_u128(id),
            event_type: "t".to_owned(),
            aggregate_id: "a".to_owned(),
            timestamp: chrono::DateTime::UNIX_EPOCH,
            payload: RawValue::from_string("{}".to_owned()).unwrap(),
            metadata: RawValue::from_string("{}".to_owned()).unwrap(),
            ingested_at: chrono::DateTime::UNIX_EPOCH,
            shard,
            position,
        }
    }

    fn found(shard: Shard, ids: &[u128], looked_through: i64, cut_off: bool) -> Found {
        let events = (1..).zip(ids).map(|(position, id)| event(shard, position, *id)).collect();
        Found { shard, events, looked_through, cut_off }
    }

    fn ids(merged: &[(Event, Positions)]) -> Vec<u128> {
        merged.iter().map(|(e, _)| e.event_id.as_u128()).collect()
    }

    #[test]
    fn shards_are_merged_by_id_and_keep_their_own_order() {
        let mut positions = Positions::default();
        let merged = merge(vec![found(1, &[10, 40, 30], 9, false), found(2, &[20, 50], 2, false)], &mut positions);
        assert_eq!(ids(&merged), [10, 20, 40, 30, 50], "position decides within a shard, though its ids may not");
        assert_eq!((positions.of(1), positions.of(2)), (9, 2), "what did not match counts as read");
        assert_eq!((merged[1].1.of(1), merged[1].1.of(2)), (1, 1));
    }

    #[test]
    fn a_shard_that_was_cut_off_ends_the_merge() {
        let mut positions = Positions::default();
        let merged = merge(vec![found(1, &[10, 20], 2, true), found(2, &[15, 50], 2, false)], &mut positions);
        assert_eq!(ids(&merged), [10, 15, 20], "shard 1 may have a 21");
        assert_eq!((positions.of(1), positions.of(2)), (2, 1));
    }
}
