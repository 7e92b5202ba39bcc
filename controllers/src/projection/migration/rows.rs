//! The rows that a changed definition replaces. Pure: what the handler will do once the definition is registered
//! (its `plan.rs`), seen from here.

use chrono::{DateTime, SecondsFormat, Utc};
use crds::registration::{Projection, Rebuild};

use super::{Class, Step, Way, literal};

/// The rows of a projection as the handler has noted them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Hash of the definition whose rows are served.
    pub live_hash: Option<String>,
    /// Hash of the definition that is being caught up to.
    pub target_hash: Option<String>,
    /// Events accepted before this are not in the rows served.
    pub live_history_from: Option<DateTime<Utc>>,
}

/// What becomes of rows that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are deleted, and built anew.
    Deleted,
    /// They are replaced by those that are built beside them of what the event store holds.
    Replaced,
}

/// How much of the events the event store still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    Whole,
    /// Events accepted before this time were dropped; `None`: all were.
    From(Option<DateTime<Utc>>),
}

/// What registering a definition does to the rows served. `None`: they stay.
pub fn fate(new: &Projection, registered: Option<&Projection>, rows: Option<&Rows>) -> Option<Fate> {
    let rows = rows?;
    let hash = new.definition_hash();
    let is_decided = registered.is_some_and(|registered| registered.definition_hash() == hash);
    let is_known = [&rows.live_hash, &rows.target_hash].into_iter().flatten().any(|known| *known == hash);
    // Rows that are not served yet are built of what there is in any case.
    if is_decided || is_known || rows.live_hash.is_none() {
        return None;
    }
    match new.rebuild {
        Rebuild::Never => None,
        Rebuild::InPlace => Some(Fate::Deleted),
        Rebuild::BlueGreen => Some(Fate::Replaced),
    }
}

/// The step that loses data, if what becomes of the rows does. (Whoever asks knows that there are rows.)
pub fn step(new: &Projection, fate: Fate, rows: &Rows, history: History) -> Option<Step> {
    let projection_type = &new.projection_type;
    let (doing, statement, purpose) = match fate {
        Fate::Deleted => (
            "delete",
            format!("DELETE FROM projections WHERE projection_type = {}", literal(projection_type)),
            format!("delete the rows served and build them anew (spec.rebuild is InPlace){}", but(history)),
        ),
        Fate::Replaced if is_shorter(history, rows.live_history_from) => (
            "replace",
            format!(
                "DELETE FROM projections WHERE projection_type = {0}; INSERT INTO projections SELECT * FROM \
                 projections_rebuild WHERE projection_type = {0}",
                literal(projection_type)
            ),
            format!("replace the rows served by rows made of a shorter history{}", but(history)),
        ),
        Fate::Replaced => return None,
    };
    // Both definitions are part of the name, and whether events are missing: who approved one change has not approved another,
    // nor the way there once more after the way back.
    let served = rows.live_hash.as_deref().unwrap_or("none");
    let of = if history == History::Whole { "the whole history" } else { "what is left of the history" };
    let name =
        format!("{doing} rows of {projection_type}, definition {served} by {}, made of {of}", new.definition_hash());
    Some(Step { name, statement, class: Class::Destructive, way: Way::Registration, purpose })
}

/// Whether rows made of what the event store has lack events that those served hold.
fn is_shorter(history: History, live_from: Option<DateTime<Utc>>) -> bool {
    match (history, live_from) {
        (History::Whole, _) => false,
        (History::From(Some(oldest)), Some(live_from)) => oldest > live_from,
        (History::From(_), _) => true,
    }
}

fn but(history: History) -> String {
    match history {
        History::Whole => String::new(),
        History::From(Some(oldest)) => {
            let oldest = oldest.to_rfc3339_opts(SecondsFormat::Secs, true);
            format!("; the event store has events since {oldest} only (HistoryTruncated)")
        }
        History::From(None) => "; the event store has none of the earlier events (HistoryTruncated)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::projection;

    fn changed(rebuild: Rebuild) -> Projection {
        Projection { rebuild, filter: Some("true".to_owned()), ..projection("p") }
    }

    fn served() -> Rows {
        Rows { live_hash: Some(projection("p").definition_hash()), ..Rows::default() }
    }

    fn at(second: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(second, 0)
    }

    #[test]
    fn a_changed_definition_does_to_rows_what_it_asks_for() {
        let of = |rebuild| fate(&changed(rebuild), Some(&projection("p")), Some(&served()));
        assert_eq!(of(Rebuild::InPlace), Some(Fate::Deleted));
        assert_eq!(of(Rebuild::BlueGreen), Some(Fate::Replaced));
        assert_eq!(of(Rebuild::Never), None);
    }

    #[test]
    fn rows_stay_where_the_definition_is_known_already() {
        let new = changed(Rebuild::InPlace);
        let of = |registered: Option<&Projection>, rows: Option<&Rows>| fate(&new, registered, rows);
        assert_eq!(of(None, None), None, "a new one");
        assert_eq!(of(None, Some(&Rows::default())), None, "nothing is served yet");
        assert_eq!(of(Some(&new), Some(&served())), None, "the handler is about to begin");
        let target = Rows { target_hash: Some(new.definition_hash()), ..served() };
        assert_eq!(of(Some(&projection("p")), Some(&target)), None, "it is under way");
        let back = Rows { live_hash: Some(new.definition_hash()), ..served() };
        assert_eq!(of(None, Some(&back)), None, "it is back as it was");
        assert_eq!(of(None, Some(&served())), Some(Fate::Deleted), "it is back changed: its rows were retained");
        let settings = Projection { indexes: vec!["a".to_owned()], rebuild: Rebuild::InPlace, ..projection("p") };
        assert_eq!(fate(&settings, Some(&projection("p")), Some(&served())), None, "settings decide no rows");
    }

    #[test]
    fn rows_made_of_the_whole_history_may_replace_others_and_rows_of_less_may_not() {
        let lost = |history, live_history_from| {
            let rows = Rows { live_history_from, ..served() };
            step(&changed(Rebuild::BlueGreen), Fate::Replaced, &rows, history).is_some()
        };
        assert!(!lost(History::Whole, None));
        assert!(lost(History::From(at(9)), None));
        assert!(!lost(History::From(at(9)), at(9)), "those served lack the same");
        assert!(!lost(History::From(at(8)), at(9)));
        assert!(lost(History::From(at(10)), at(9)));
        assert!(lost(History::From(None), at(9)));
    }

    #[test]
    fn deleting_rows_loses_data_whatever_the_history() {
        let delete = |new: &Projection, history| step(new, Fate::Deleted, &served(), history).expect("destructive");
        let one = delete(&changed(Rebuild::InPlace), History::Whole);
        assert_eq!((one.class, one.way), (Class::Destructive, Way::Registration));
        assert_eq!(one.statement, "DELETE FROM projections WHERE projection_type = 'p'");
        let truncated = delete(&changed(Rebuild::InPlace), History::From(at(86_400)));
        assert!(truncated.purpose.contains("1970-01-02T00:00:00Z only (HistoryTruncated)"), "{}", truncated.purpose);
        assert_ne!(truncated.name, one.name, "events went since it was approved");
        let later = delete(&changed(Rebuild::InPlace), History::From(at(99_999)));
        assert_eq!(truncated.name, later.name, "an approval does not expire while retention goes on");
        let other = Projection { filter: Some("false".to_owned()), ..changed(Rebuild::InPlace) };
        assert_ne!(delete(&other, History::Whole).name, one.name);
        let back = Rows { live_hash: Some("other".to_owned()), ..served() };
        let again = step(&changed(Rebuild::InPlace), Fate::Deleted, &back, History::Whole).expect("destructive");
        assert_ne!(again.name, one.name, "there and back, it is another change");
    }
}
