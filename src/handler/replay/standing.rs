//! Whether a projection's letters can be replayed now: pure.

use crate::handler::store::Progress;

/// Who else writes the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The group's batches.
    Batches,
    /// A catch-up, into the rows served: on Kafka some read the event store for good.
    EventStore,
}

/// Where a projection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Served(Place),
    /// It is halted, or other rows are being built, which get the events anyway.
    Waits,
    /// It is not declared any more.
    Gone,
}

pub(super) fn standing(progress: Option<&Progress>, kafka: bool) -> Standing {
    let Some(is) = progress else { return Standing::Gone };
    let has_rows = is.live_spec.is_some() && is.live_hash.is_some() && !is.beside;
    // With a key of its own, positions of a partition say nothing about those of a shard.
    let in_order = !kafka || is.live_spec.as_ref().is_none_or(|spec| spec.key.is_none());
    match is.status.as_str() {
        "removed" => Standing::Gone,
        "live" if has_rows && in_order => Standing::Served(Place::Batches),
        "catching_up" if has_rows && is.target_hash == is.live_hash => Standing::Served(Place::EventStore),
        _ => Standing::Waits,
    }
}

#[cfg(test)]
mod tests {
    use crds::registration::{Fold, OnError, Projection, Rebuild, Source, StartFrom};
    use sqlx::types::Json;

    use super::*;
    use crate::event::SHARDS;

    fn progress(status: &str) -> Progress {
        let spec = Projection {
            projection_type: "p".to_owned(),
            source: Source::default(),
            filter: None,
            key: None,
            fold: Fold::Merge,
            start_from: StartFrom::Earliest,
            on_error: OnError::DeadLetter,
            rebuild: Rebuild::BlueGreen,
            retention_seconds: None,
            indexes: vec![],
            reads_event_store: false,
        };
        Progress {
            projection_type: "p".to_owned(),
            live_hash: Some("a".to_owned()),
            live_spec: Some(Json(spec)),
            target_hash: None,
            status: status.to_owned(),
            beside: false,
            cursors: vec![0; SHARDS],
            applied_through: vec![0; SHARDS],
            behind: 0,
            history_from: None,
            live_history_from: None,
            begins_after: None,
            age_seconds: 0.0,
            settles_in: 0.0,
        }
    }

    #[test]
    fn only_rows_that_stay_are_mended() {
        let target = |hash: &str| Progress { target_hash: Some(hash.to_owned()), ..progress("catching_up") };
        for (what, is, expected) in [
            ("live", progress("live"), Standing::Served(Place::Batches)),
            ("behind a gap", target("a"), Standing::Served(Place::EventStore)),
            ("to another definition", target("b"), Standing::Waits),
            ("beside", Progress { beside: true, ..target("a") }, Standing::Waits),
            ("new", Progress { live_hash: None, live_spec: None, ..target("a") }, Standing::Waits),
            ("halted", progress("halted"), Standing::Waits),
            ("removed", progress("removed"), Standing::Gone),
        ] {
            assert_eq!(standing(Some(&is), false), expected, "{what}");
        }
        assert_eq!(standing(None, false), Standing::Gone);
    }
}
