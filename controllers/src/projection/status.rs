//! What a Projection's status says about its rows and indexes. Pure.

use chrono::SecondsFormat;
use crds::condition::{ConditionType, Finding};
use crds::projection::ProjectionStatus;
use crds::reason::Reason;
use crds::registration::Compiled;
use crds::shared::{Conditions, DataPlaneStatus};
use serde_json::Value;

use crate::status::{Index, Progress};

/// Whether the rows have caught up with the events, whether the events were all there, and whether the indexes are.
pub fn findings(spec: Option<&Compiled>, progress: Option<&Progress>) -> Vec<Finding> {
    let Some(progress) = progress else { return Vec::new() };
    let fields = match spec {
        Some(Compiled::Projection(spec)) => spec.indexes.as_slice(),
        _ => &[],
    };
    history(progress).into_iter().chain(indexes(fields, progress)).chain([caught_up(progress)]).collect()
}

/// One finding for all indexes: what failed before what is under way.
fn indexes(fields: &[String], progress: &Progress) -> Option<Finding> {
    let finding = |holds: bool, reason, message| Finding::new(ConditionType::MigrationsApplied, holds, reason, message);
    let state = |field: &&String| progress.indexes.get(*field);
    let failed = fields.iter().find_map(|field| match progress.indexes.get(field) {
        Some(Index::Failed(why)) => Some(format!(
            "the index on '{field}' cannot be built: {why}; it is tried again, until then filters on it read every row"
        )),
        _ => None,
    });
    if let Some(message) = failed {
        return Some(finding(false, Reason::MigrationFailed, message));
    }
    if let Some(field) = fields.iter().find(|field| state(field) != Some(&Index::Built)) {
        return Some(finding(false, Reason::Progressing, format!("the handler is to build the index on '{field}'")));
    }
    (!fields.is_empty()).then(|| finding(true, Reason::MigrationsApplied, format!("{} index(es) built", fields.len())))
}

fn caught_up(progress: &Progress) -> Finding {
    let finding = |status: bool, reason, message: &str| Finding::new(ConditionType::CaughtUp, status, reason, message);
    match progress.status.as_str() {
        "live" => finding(true, Reason::CaughtUp, "fed by the bus"),
        "halted" => {
            let why = progress.message.as_deref().unwrap_or("an event could not be folded");
            finding(false, Reason::Halted, &format!("halted: {why}; mend the definition to go on"))
        }
        _ => finding(false, Reason::CatchingUp, "reading stored events; until then readers see what was there"),
    }
}

/// A directory of manifests has nobody to ask: the rows are made of what is left, and it is said.
fn history(progress: &Progress) -> Option<Finding> {
    let from = progress.history_from?.to_rfc3339_opts(SecondsFormat::Secs, true);
    let message = format!(
        "rows hold events since {from} only: earlier ones were gone from the event store when they were made \
         (--event-retention-hours of the relay)"
    );
    Some(Finding::new(ConditionType::ApprovalRequired, false, Reason::HistoryTruncated, message))
}

/// The status document.
pub fn document(
    spec: Option<&Compiled>,
    generation: i64,
    conditions: Conditions,
    data_plane: Option<DataPlaneStatus>,
) -> serde_json::Result<Value> {
    let projection_type = match spec {
        Some(Compiled::Projection(spec)) => Some(spec.projection_type.clone()),
        _ => None,
    };
    serde_json::to_value(ProjectionStatus {
        observed_generation: Some(generation),
        conditions,
        data_plane,
        projection_type,
        ..ProjectionStatus::default()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::DateTime;
    use crds::condition::Status;
    use crds::registration::{Fold, OnError, Projection, Rebuild, Source, StartFrom};

    use super::*;

    fn spec(indexes: &[&str]) -> Compiled {
        Compiled::Projection(Projection {
            projection_type: "p".to_owned(),
            source: Source::default(),
            filter: None,
            key: None,
            fold: Fold::Latest,
            start_from: StartFrom::Earliest,
            on_error: OnError::DeadLetter,
            rebuild: Rebuild::BlueGreen,
            retention_seconds: None,
            indexes: indexes.iter().map(|&field| field.to_owned()).collect(),
            reads_event_store: false,
        })
    }

    fn live() -> Progress {
        Progress { status: "live".into(), message: None, history_from: None, indexes: BTreeMap::new() }
    }

    fn of(condition: ConditionType, spec: &Compiled, progress: &Progress) -> Option<(Status, Reason, String)> {
        let findings = findings(Some(spec), Some(progress));
        findings.into_iter().find(|f| f.condition == condition).map(|f| (f.status, f.reason, f.message))
    }

    #[test]
    fn rows_of_half_a_history_say_from_when_on_it_is() {
        let lacking = Progress { history_from: DateTime::from_timestamp(86_400, 0), ..live() };
        let (status, reason, message) = of(ConditionType::ApprovalRequired, &spec(&[]), &lacking).expect("said");
        assert_eq!((status, reason), (Status::False, Reason::HistoryTruncated));
        assert!(message.contains("1970-01-02T00:00:00Z"), "{message}");
        assert_eq!(of(ConditionType::ApprovalRequired, &spec(&[]), &live()), None);
    }

    #[test]
    fn a_failed_index_comes_before_one_that_is_being_built() {
        let said = |states: &[(&str, Index)]| {
            let indexes = states.iter().map(|(field, state)| ((*field).to_owned(), state.clone())).collect();
            of(ConditionType::MigrationsApplied, &spec(&["a", "b"]), &Progress { indexes, ..live() })
        };
        let reason = |states: &[(&str, Index)]| said(states).map(|(status, reason, _)| (status, reason));
        let failed = [("a", Index::Building), ("b", Index::Failed("disk full".into()))];
        assert_eq!(reason(&failed), Some((Status::False, Reason::MigrationFailed)));
        assert!(said(&failed).is_some_and(|(.., message)| message.contains("'b'") && message.contains("disk full")));
        assert_eq!(reason(&[("a", Index::Built)]), Some((Status::False, Reason::Progressing)));
        let built = [("a", Index::Built), ("b", Index::Built)];
        assert_eq!(reason(&built), Some((Status::True, Reason::MigrationsApplied)));
        assert_eq!(of(ConditionType::MigrationsApplied, &spec(&[]), &live()), None);
    }
}
