//! What a Projection's status says about its rows, its tables and what waits for an approval. Pure.

mod series;

use chrono::SecondsFormat;
use crds::condition::{ConditionType, Finding};
use crds::projection::{ProjectionStatus, RebuildState, RebuildStatus};
use crds::reason::Reason;
use crds::registration::Compiled;
use crds::role::Role;
use crds::shared::{Conditions, DataPlaneStatus};
use serde_json::Value;

pub use self::series::SeenSeries;
use super::migration::{Catalog, Ledger, Plan, State};
use crate::resolve::Outcome;
use crate::status::{Facts, Progress, running};

/// What is known of a projection beside what is registered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// What the handler does with it.
    pub progress: Option<&'a Progress>,
    /// What the database has; `None` where it has no tables of projections yet.
    pub catalog: Option<&'a Catalog>,
    /// The steps that are outstanding for what is registered, if any are.
    pub plan: Option<&'a Plan>,
    /// Why no step can be taken now.
    pub trouble: Option<&'a str>,
    /// Label selector of the handler's pods.
    pub selector: Option<&'a str>,
    /// Where it is a time series.
    pub series: SeenSeries<'a>,
}

/// Whether the rows have caught up with the events, whether the events were all there, and whether the tables are as they
/// should be. Who asks has an answer of the database.
pub fn findings(facts: &Facts<'_>) -> Vec<Finding> {
    let seen = &facts.projection;
    let answers = "the handler's database answers";
    let mut findings = vec![Finding::new(ConditionType::DatabaseReachable, true, Reason::DatabaseReachable, answers)];
    if let Some(Compiled::Projection(spec)) = facts.spec {
        if let Some(series) = spec.time_series() {
            return series::findings(series, &seen.series, &facts.resolution.outcome);
        }
        let (plan, trouble, indexes) = (seen.plan, seen.trouble, spec.indexes.len());
        let done =
            if indexes == 0 { "no step is outstanding".to_owned() } else { format!("{indexes} index(es) built") };
        let meanwhile = ", meanwhile queries read more rows";
        findings.extend(seen.catalog.map(|catalog| {
            migrations(done, &catalog.ledger, Outstanding { plan, trouble, meanwhile }, &facts.resolution.outcome)
        }));
    }
    findings.push(approval(&facts.resolution.outcome, seen.progress));
    findings.extend(seen.progress.map(caught_up));
    findings
}

/// What is still to be done to tables.
/// What is still to be done to tables.
#[derive(Clone, Copy)]
struct Outstanding<'a> {
    plan: Option<&'a Plan>,
    /// Why no step can be taken now.
    trouble: Option<&'a str>,
    /// What that means until it is done.
    meanwhile: &'static str,
}

/// One finding for all steps: what failed before what is under way.
fn migrations(done: String, ledger: &Ledger, outstanding: Outstanding<'_>, outcome: &Outcome) -> Finding {
    let Outstanding { plan, trouble, meanwhile } = outstanding;
    let finding = |holds: bool, reason, message| Finding::new(ConditionType::MigrationsApplied, holds, reason, message);
    let steps = plan.map(|plan| plan.steps.as_slice()).unwrap_or_default();
    let failed = steps.iter().find_map(|step| match ledger.get(&step.name).map(|entry| &entry.state) {
        Some(State::Failed(why)) => Some((step, why)),
        _ => None,
    });
    match (steps, outcome) {
        ([], _) => finding(true, Reason::MigrationsApplied, done),
        ([next, ..], Outcome::LeftAlone(reason)) => {
            finding(false, *reason, format!("outstanding: {}; nothing is written meanwhile", next.purpose))
        }
        ([next, ..], _) => match (failed, trouble) {
            (Some((step, why)), _) => {
                let message = format!("cannot {}: {why}; it is tried again{meanwhile}", step.purpose);
                finding(false, Reason::MigrationFailed, message)
            }
            (None, Some(why)) => finding(false, Reason::MigrationFailed, format!("cannot {}: {why}", next.purpose)),
            (None, None) => {
                finding(false, Reason::Progressing, format!("{} step(s) to go: {}", steps.len(), next.purpose))
            }
        },
    }
}

fn caught_up(progress: &Progress) -> Finding {
    let finding = |status: bool, reason, message: &str| Finding::new(ConditionType::CaughtUp, status, reason, message);
    match progress.status.as_str() {
        "live" => finding(true, Reason::CaughtUp, "fed by the bus"),
        "following" => finding(true, Reason::CaughtUp, "fed from the event store"),
        "halted" => {
            let why = progress.message.as_deref().unwrap_or("an event could not be folded");
            finding(false, Reason::Halted, &format!("halted: {why}; mend the definition to go on"))
        }
        _ => {
            let read = rebuild(progress).map_or(0, |rebuild| rebuild.percent);
            let message = format!("reading stored events, {read} % are read; until then readers see what was there");
            finding(false, Reason::CatchingUp, &message)
        }
    }
}

/// Whether something waits, and whether the rows lack events that were gone when they were made.
fn approval(outcome: &Outcome, progress: Option<&Progress>) -> Finding {
    if let Outcome::Held(held) = outcome {
        return held.finding();
    }
    let finding = |reason, message: String| Finding::new(ConditionType::ApprovalRequired, false, reason, message);
    match progress.and_then(|progress| progress.history_from) {
        Some(from) => {
            let from = from.to_rfc3339_opts(SecondsFormat::Secs, true);
            let message = format!(
                "rows hold events since {from} only: earlier ones were gone from the event store when they were made \
                 (--event-retention-hours of the relay)"
            );
            finding(Reason::HistoryTruncated, message)
        }
        None => finding(Reason::NoApprovalNeeded, "nothing waits for an approval".to_owned()),
    }
}

/// How far rows are built, while they are: in steps of ten percent, so that a status changes ten times and not all the time.
fn rebuild(progress: &Progress) -> Option<RebuildStatus> {
    if progress.status != "catching_up" {
        return None;
    }
    let all = progress.read.saturating_add(progress.behind);
    let tenths = progress.read.saturating_mul(10).checked_div(all).unwrap_or(0).clamp(0, 9);
    let state = if progress.beside { RebuildState::Beside } else { RebuildState::InPlace };
    Some(RebuildStatus { state, percent: i32::try_from(tenths).unwrap_or(0) * 10 })
}

/// The status document.
pub fn document(
    facts: &Facts<'_>,
    conditions: Conditions,
    data_plane: Option<DataPlaneStatus>,
) -> serde_json::Result<Value> {
    let projection_type = match facts.spec {
        Some(Compiled::Projection(spec)) => Some(spec.projection_type.clone()),
        _ => None,
    };
    let plan_hash = match &facts.resolution.outcome {
        Outcome::Held(held) => Some(held.plan_hash.clone()),
        _ => None,
    };
    serde_json::to_value(ProjectionStatus {
        observed_generation: Some(facts.resolution.generation),
        conditions,
        data_plane,
        projection_type,
        plan_hash,
        rebuild: facts.projection.progress.and_then(rebuild),
        replicas: Some(running(&facts.resolution.key, facts.served, Role::Handle, facts.data_plane)),
        selector: facts.projection.selector.map(str::to_owned),
        ..ProjectionStatus::default()
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
