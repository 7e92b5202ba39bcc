//! Read your writes: has a projection passed an event yet?
//!
//! In: the event's place in the event store, and the handler's progress. Out: a decision ([`passed`]). An event that
//! is accepted and still in the outbox has no place yet and is waited for as well.

use crate::bus::partition::positive_hash;
use crate::event::Shard;

/// Where an event is in the event store, and what decides its way over the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub shard: Shard,
    /// Order within the shard, from 1.
    pub position: i64,
    pub event_type: String,
    pub aggregate_id: String,
}

impl Place {
    /// The hash whose remainder by the topic's partitions is the event's partition.
    pub fn key_hash(&self) -> i32 {
        positive_hash(&self.aggregate_id).cast_signed()
    }
}

/// What is known of an event id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    Stored(Place),
    /// Accepted and not in the event store yet.
    Accepted,
    Unknown,
}

/// The last position of the event's shard that the consumer group has applied from the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bus(pub i64);

/// How far a projection has come in one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// live, catching_up, halted or removed.
    pub status: String,
    /// It is catching up in rows that are not served yet.
    pub beside: bool,
    /// The rows served are fed by the consumer group.
    pub fed: bool,
    /// Last position read from the event store while catching up.
    pub cursor: i64,
    /// Positions up to here are in the served rows.
    pub applied: i64,
    /// `None`: the group has read nothing of the shard (or of the event's partition).
    pub bus: Option<Bus>,
}

/// Whether the rows that are served have what the event at this position means for them.
pub fn passed(progress: &Progress, position: i64) -> bool {
    let delivered = || progress.bus.is_some_and(|bus| bus.0 >= position);
    match progress.status.as_str() {
        // Also while others are built beside them.
        _ if progress.fed => progress.applied >= position || delivered(),
        // The cursor is that of other rows.
        _ if progress.beside => progress.applied >= position,
        "catching_up" => progress.cursor >= position,
        // Fed by nothing: what both say is certain.
        _ => progress.applied.min(progress.cursor) >= position,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(status: &str, beside: bool, cursor: i64, applied: i64, bus: Option<i64>) -> Progress {
        let fed = status == "live" || beside;
        Progress { status: status.to_owned(), beside, fed, cursor, applied, bus: bus.map(Bus) }
    }

    fn unfed(progress: Progress) -> Progress {
        Progress { fed: false, ..progress }
    }

    #[test]
    fn a_projection_passes_an_event_by_the_source_that_feeds_its_served_rows() {
        for (what, progress, expected) in [
            ("live, bus behind", progress("live", false, 0, 0, Some(6)), false),
            ("live, bus there", progress("live", false, 0, 0, Some(7)), true),
            ("live, nothing read yet", progress("live", false, 0, 0, None), false),
            ("live, filled from the event store", progress("live", false, 0, 7, None), true),
            ("catching up in place", progress("catching_up", false, 7, 0, None), true),
            ("catching up in place, behind", progress("catching_up", false, 6, 9, Some(9)), false),
            ("rebuilt beside, served rows fed", progress("catching_up", true, 0, 0, Some(7)), true),
            ("rebuilt beside, served rows behind", progress("catching_up", true, 9, 6, Some(6)), false),
            ("rebuilt beside, served rows not fed", unfed(progress("catching_up", true, 9, 6, Some(9))), false),
            ("rebuilt beside, in the rows served before", unfed(progress("catching_up", true, 0, 7, Some(9))), true),
            ("halted before", progress("halted", false, 9, 6, Some(9)), false),
            ("halted while built in place", progress("halted", false, 6, 9, Some(9)), false),
            ("halted behind", progress("halted", false, 7, 7, None), true),
        ] {
            assert_eq!(passed(&progress, 7), expected, "{what}");
        }
    }
}
