//! How far a catch-up has read in each shard: pure.

use crate::bus::embedded::store::Page;
use crate::event::SHARDS;

/// Moves cursors past what was read. A shard of which less was read than was asked for has no more up to its head, which
/// was looked up before: what is missing was dropped with its partition. Of the shards that a page was cut before or in,
/// nothing is known but what it holds.
pub(in crate::handler) fn advance(cursors: &mut [i64], page: &Page, heads: &[i64], per_shard: i64) {
    let mut read = vec![0; cursors.len()];
    for event in &page.events {
        if let Some(at) = usize::try_from(event.shard).ok().filter(|at| *at < cursors.len()) {
            cursors[at] = event.position.max(cursors[at]);
            read[at] += 1;
        }
    }
    let cut = page.events.last().filter(|_| page.cut).and_then(|last| usize::try_from(last.shard).ok());
    let whole = cut.unwrap_or(cursors.len());
    for ((cursor, head), read) in cursors.iter_mut().zip(heads).zip(read).take(whole) {
        if read < per_shard {
            *cursor = (*cursor).max(*head);
        }
    }
}

/// Positions above the cursors.
pub(super) fn behind(heads: &[i64], cursors: &[i64]) -> i64 {
    debug_assert_eq!(heads.len(), SHARDS);
    heads.iter().zip(cursors).map(|(head, cursor)| (head - cursor).max(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Shard, StoredEvent};

    fn event(shard: Shard, position: i64) -> StoredEvent {
        let (now, none) = (chrono::Utc::now(), serde_json::Value::Null);
        StoredEvent {
            shard,
            position,
            event_id: uuid::Uuid::now_v7(),
            event_type: "t".to_owned(),
            aggregate_id: "a".to_owned(),
            timestamp: now,
            payload: none.clone(),
            metadata: none,
            ingested_at: now,
        }
    }

    #[test]
    fn a_page_that_was_cut_moves_no_cursor_past_what_it_holds() {
        let heads = vec![10; SHARDS];
        let events = vec![event(0, 4), event(1, 3)];
        let after = |cut| {
            let mut cursors = vec![2; SHARDS];
            advance(&mut cursors, &Page { events: events.clone(), cut }, &heads, 32);
            (cursors[0], cursors[1], cursors[2])
        };
        assert_eq!(after(false), (10, 10, 10), "all there was");
        assert_eq!(after(true), (10, 3, 2));
    }

    #[test]
    fn behind_counts_what_is_above_the_cursors() {
        let mut heads = vec![0; SHARDS];
        let mut cursors = vec![0; SHARDS];
        (heads[3], cursors[3]) = (10, 4);
        (heads[5], cursors[5]) = (2, 7);
        assert_eq!(behind(&heads, &cursors), 6);
    }
}
