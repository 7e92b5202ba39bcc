//! Where each projection is to be, given what is registered and how far it is: pure.

use crds::registration::{Projection, Rebuild, StartFrom};
use sqlx::types::Json;

use super::store::Progress;
use crate::event::SHARDS;

/// A halted projection is tried again after this long, in seconds.
const HALTED_AGAIN: f64 = 60.0;

/// One registered projection.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub spec: Projection,
    /// Hash of what decides its rows.
    pub hash: String,
}

/// A change of one projection's place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub to: Progress,
    /// Rows to be deleted with it.
    pub clear_live: bool,
    pub clear_beside: bool,
    /// For the log.
    pub what: &'static str,
}

/// Decides for one projection; `None`: it stays as it is. `heads` are the last positions of the event store; `kafka`:
/// which bus the group reads.
pub(super) fn decide(wanted: Option<&Wanted>, is: Option<&Progress>, heads: &[i64], kafka: bool) -> Option<Change> {
    match (wanted, is) {
        (None, None) => None,
        (None, Some(is)) => retire(is),
        (Some(wanted), None) => Some(begin(wanted, heads, kafka)),
        (Some(wanted), Some(is)) => adjust(wanted, is, kafka),
    }
}

impl Wanted {
    /// Whether it stays with the event store: on Kafka, where its order needs more than a partition gives.
    fn reads_on(&self, kafka: bool) -> bool {
        kafka && self.spec.reads_event_store
    }
}

fn retire(is: &Progress) -> Option<Change> {
    let to = Progress { status: "removed".to_owned(), target_hash: None, beside: false, ..is.clone() };
    let change = Change { to, clear_live: false, clear_beside: true, what: "removed: its rows stay" };
    (is.status != "removed").then_some(change)
}

fn begin(wanted: &Wanted, heads: &[i64], kafka: bool) -> Change {
    let none = vec![0; SHARDS];
    let new = Progress {
        projection_type: wanted.spec.projection_type.clone(),
        live_hash: None,
        live_spec: None,
        target_hash: Some(wanted.hash.clone()),
        status: "catching_up".to_owned(),
        beside: false,
        cursors: none.clone(),
        applied_through: none,
        behind: 0,
        history_from: None,
        live_history_from: None,
        begins_after: None,
        age_seconds: 0.0,
        settles_in: 0.0,
    };
    let to = match wanted.spec.start_from {
        StartFrom::Earliest => new,
        StartFrom::Latest => {
            let begins_after = Some(heads.to_vec());
            let from_now = Progress { cursors: heads.to_vec(), applied_through: heads.to_vec(), begins_after, ..new };
            serve(wanted, &from_now, kafka)
        }
    };
    Change { to, clear_live: false, clear_beside: true, what: "new" }
}

/// Served as registered, by the group's batches or, where its order asks for it, from the event store for good.
fn serve(wanted: &Wanted, is: &Progress, kafka: bool) -> Progress {
    let reads_on = wanted.reads_on(kafka);
    Progress {
        live_hash: Some(wanted.hash.clone()),
        live_spec: Some(Json(wanted.spec.clone())),
        target_hash: reads_on.then(|| wanted.hash.clone()),
        status: if reads_on { "catching_up" } else { "live" }.to_owned(),
        cursors: if reads_on { is.applied_through.clone() } else { is.cursors.clone() },
        beside: false,
        behind: 0,
        history_from: is.live_history_from,
        ..is.clone()
    }
}

fn adjust(wanted: &Wanted, is: &Progress, kafka: bool) -> Option<Change> {
    let live_is_wanted = is.live_hash.as_ref() == Some(&wanted.hash);
    let target_is_wanted = is.target_hash.as_ref() == Some(&wanted.hash);
    match is.status.as_str() {
        "catching_up" if target_is_wanted => None,
        "halted" if target_is_wanted && is.age_seconds < HALTED_AGAIN => None,
        "halted" if target_is_wanted => {
            let to = Progress { status: "catching_up".to_owned(), ..is.clone() };
            Some(Change { to, clear_live: false, clear_beside: false, what: "tried again after a halt" })
        }
        "live" if live_is_wanted && wanted.reads_on(kafka) => Some(resume(wanted, is)),
        "live" if live_is_wanted => {
            let same = is.live_spec.as_ref().is_some_and(|spec| spec.0 == wanted.spec);
            let to = serve(wanted, is, kafka);
            (!same).then_some(Change { to, clear_live: false, clear_beside: false, what: "settings changed" })
        }
        "catching_up" | "halted" if live_is_wanted && is.beside && is.is_fed() => {
            let to = serve(wanted, is, kafka);
            Some(Change { to, clear_live: false, clear_beside: true, what: "changed back: rebuild dropped" })
        }
        "removed" | "halted" if live_is_wanted => Some(resume(wanted, is)),
        "catching_up" if live_is_wanted && is.beside => Some(resume(wanted, is)),
        _ => Some(rebuild(wanted, is, kafka)),
    }
}

/// Rows of this very definition are there: what they miss is read from the event store.
fn resume(wanted: &Wanted, is: &Progress) -> Change {
    let to = Progress {
        target_hash: Some(wanted.hash.clone()),
        status: "catching_up".to_owned(),
        beside: false,
        cursors: is.applied_through.clone(),
        history_from: is.live_history_from,
        ..is.clone()
    };
    Change { to, clear_live: false, clear_beside: true, what: "back: catches up" }
}

fn rebuild(wanted: &Wanted, is: &Progress, kafka: bool) -> Change {
    let from_start = Progress {
        target_hash: Some(wanted.hash.clone()),
        status: "catching_up".to_owned(),
        cursors: vec![0; SHARDS],
        history_from: None,
        // Rows that have missed events already are not fed again: they would have a gap.
        live_spec: is.live_spec.clone().filter(|_| is.is_fed()),
        ..is.clone()
    };
    match wanted.spec.rebuild {
        // Rows that nothing was ever served from need no rebuild beside them.
        Rebuild::BlueGreen if is.live_hash.is_some() => Change {
            to: Progress { beside: true, ..from_start },
            clear_live: false,
            clear_beside: true,
            what: "changed: rebuilt beside the live rows",
        },
        Rebuild::Never if is.live_hash.is_some() && !is.is_fed() => resume(wanted, is),
        Rebuild::Never if is.live_hash.is_some() => {
            Change { to: serve(wanted, is, kafka), clear_live: false, clear_beside: true, what: "changed: rows stay" }
        }
        _ => Change {
            to: Progress {
                beside: false,
                live_hash: None,
                live_spec: None,
                live_history_from: None,
                begins_after: None,
                ..from_start
            },
            clear_live: true,
            clear_beside: true,
            what: "changed: rebuilt in place",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::registration::{Fold, OnError, Source};

    fn wanted(start_from: StartFrom, rebuild: Rebuild, filter: Option<&str>) -> Wanted {
        let spec = Projection {
            projection_type: "p".to_owned(),
            source: Source { event_types: vec!["t".to_owned()], prefixes: vec![] },
            filter: filter.map(str::to_owned),
            key: None,
            fold: Fold::Latest,
            start_from,
            on_error: OnError::DeadLetter,
            rebuild,
            retention_seconds: None,
            indexes: vec![],
            reads_event_store: false,
        };
        Wanted { hash: spec.definition_hash(), spec }
    }

    fn live(wanted: &Wanted) -> Progress {
        serve(wanted, &begin(wanted, &[5; SHARDS], false).to, false)
    }

    #[test]
    fn a_new_projection_starts_where_it_says() {
        let earliest = decide(Some(&wanted(StartFrom::Earliest, Rebuild::BlueGreen, None)), None, &[5; SHARDS], false)
            .expect("new");
        assert_eq!((earliest.to.status.as_str(), earliest.to.cursors[0]), ("catching_up", 0));
        let latest =
            decide(Some(&wanted(StartFrom::Latest, Rebuild::BlueGreen, None)), None, &[5; SHARDS], false).expect("new");
        assert_eq!((latest.to.status.as_str(), latest.to.applied_through[0]), ("live", 5));
        assert_eq!((earliest.to.begins_after, latest.to.begins_after), (None, Some(vec![5; SHARDS])));
    }

    #[test]
    fn a_changed_definition_is_rebuilt_as_asked() {
        let old = wanted(StartFrom::Earliest, Rebuild::BlueGreen, None);
        let change = |rebuild| {
            let new = wanted(StartFrom::Earliest, rebuild, Some("true"));
            decide(Some(&new), Some(&live(&old)), &[9; SHARDS], false).expect("changed")
        };
        let blue_green = change(Rebuild::BlueGreen);
        assert!(blue_green.to.beside && blue_green.to.is_fed() && !blue_green.clear_live);
        let in_place = change(Rebuild::InPlace);
        assert!(!in_place.to.beside && !in_place.to.is_fed() && in_place.clear_live);
        let never = change(Rebuild::Never);
        assert!(never.to.is_fed() && never.to.status == "live" && !never.clear_live);
    }

    #[test]
    fn nothing_changes_when_nothing_changed() {
        let wanted = wanted(StartFrom::Earliest, Rebuild::BlueGreen, None);
        assert_eq!(decide(Some(&wanted), Some(&live(&wanted)), &[9; SHARDS], false), None);
        let new = begin(&wanted, &[9; SHARDS], false).to;
        assert_eq!(decide(Some(&wanted), Some(&new), &[9; SHARDS], false), None);
        assert_eq!(decide(None, None, &[9; SHARDS], false), None);
    }

    #[test]
    fn a_change_taken_back_drops_the_rebuild() {
        let old = wanted(StartFrom::Earliest, Rebuild::BlueGreen, None);
        let new = wanted(StartFrom::Earliest, Rebuild::BlueGreen, Some("true"));
        let rebuilding = decide(Some(&new), Some(&live(&old)), &[9; SHARDS], false).expect("changed").to;
        let back = decide(Some(&old), Some(&rebuilding), &[9; SHARDS], false).expect("taken back");
        assert!(back.to.status == "live" && back.clear_beside && back.to.is_fed());
    }

    #[test]
    fn rows_remember_what_they_lack_until_others_take_their_place() {
        let old = wanted(StartFrom::Earliest, Rebuild::BlueGreen, None);
        let from = Some(chrono::DateTime::UNIX_EPOCH);
        let lacking = Progress { history_from: from, live_history_from: from, ..live(&old) };
        let removed = decide(None, Some(&lacking), &[9; SHARDS], false).expect("removed").to;
        assert_eq!(decide(Some(&old), Some(&removed), &[9; SHARDS], false).expect("back").to.history_from, from);
        let new = wanted(StartFrom::Earliest, Rebuild::BlueGreen, Some("true"));
        let rebuilding = decide(Some(&new), Some(&lacking), &[9; SHARDS], false).expect("changed").to;
        assert_eq!((rebuilding.history_from, rebuilding.live_history_from), (None, from));
        let back = decide(Some(&old), Some(&rebuilding), &[9; SHARDS], false).expect("taken back").to;
        assert_eq!(back.history_from, from);
        let in_place = wanted(StartFrom::Earliest, Rebuild::InPlace, Some("true"));
        let anew = decide(Some(&in_place), Some(&lacking), &[9; SHARDS], false).expect("changed").to;
        assert_eq!((anew.history_from, anew.live_history_from), (None, None));
    }

    #[test]
    fn a_removed_projection_keeps_its_rows_and_catches_up_when_it_is_back() {
        let wanted = wanted(StartFrom::Earliest, Rebuild::BlueGreen, None);
        let removed = decide(None, Some(&live(&wanted)), &[9; SHARDS], false).expect("removed");
        assert!(!removed.clear_live && !removed.to.is_fed());
        assert_eq!(decide(None, Some(&removed.to), &[9; SHARDS], false), None);
        let back = decide(Some(&wanted), Some(&removed.to), &[9; SHARDS], false).expect("back");
        assert!(back.to.is_catching_up() && !back.clear_live);
    }

    #[test]
    fn a_halted_projection_is_tried_again_after_a_while_or_when_it_changed() {
        let old = wanted(StartFrom::Earliest, Rebuild::BlueGreen, None);
        let mut halted = live(&old);
        halted.status = "halted".to_owned();
        halted.target_hash = halted.live_hash.clone();
        assert_eq!(decide(Some(&old), Some(&halted), &[9; SHARDS], false), None);
        halted.age_seconds = HALTED_AGAIN + 1.0;
        assert!(decide(Some(&old), Some(&halted), &[9; SHARDS], false).expect("again").to.is_catching_up());
        let mended = wanted(StartFrom::Earliest, Rebuild::BlueGreen, Some("true"));
        let rebuilt = decide(Some(&mended), Some(&halted), &[9; SHARDS], false).expect("mended").to;
        assert!(rebuilt.beside && !rebuilt.is_fed(), "the rows served have missed events since the halt");
        let never = wanted(StartFrom::Earliest, Rebuild::Never, Some("true"));
        let goes_on = decide(Some(&never), Some(&halted), &[9; SHARDS], false).expect("mended").to;
        assert!(goes_on.is_catching_up() && !goes_on.beside && goes_on.cursors == halted.applied_through);
    }

    #[test]
    fn rows_that_missed_events_while_others_are_built_beside_them_are_fed_no_more() {
        let old = wanted(StartFrom::Earliest, Rebuild::BlueGreen, None);
        let new = wanted(StartFrom::Earliest, Rebuild::BlueGreen, Some("true"));
        let mut rebuilding = decide(Some(&new), Some(&live(&old)), &[9; SHARDS], false).expect("changed").to;
        rebuilding.status = "halted".to_owned();
        assert!(rebuilding.is_fed(), "the definition that is built has halted, not the one that is served");
        assert!(decide(Some(&old), Some(&rebuilding), &[9; SHARDS], false).expect("taken back").to.status == "live");
        rebuilding.live_spec = None;
        for status in ["halted", "catching_up"] {
            rebuilding.status = status.to_owned();
            let back = decide(Some(&old), Some(&rebuilding), &[9; SHARDS], false).expect("taken back");
            assert!(back.to.is_catching_up() && !back.to.beside && back.clear_beside && !back.clear_live);
            assert_eq!(back.to.cursors, rebuilding.applied_through);
        }
    }

    #[test]
    fn on_kafka_an_order_over_partitions_is_read_from_the_event_store_for_good() {
        let mut wanted = wanted(StartFrom::Latest, Rebuild::BlueGreen, None);
        let fed = live(&wanted);
        wanted.spec.reads_event_store = true;
        let new = decide(Some(&wanted), None, &[5; SHARDS], true).expect("new").to;
        assert!(new.is_catching_up() && !new.is_fed() && new.cursors[0] == 5);
        assert_eq!(decide(Some(&wanted), Some(&new), &[9; SHARDS], true), None);
        let moved = decide(Some(&wanted), Some(&fed), &[9; SHARDS], true).expect("its order changed").to;
        assert!(moved.is_catching_up() && !moved.is_fed());
        assert!(decide(Some(&wanted), None, &[5; SHARDS], false).expect("new").to.is_fed());
    }
}
