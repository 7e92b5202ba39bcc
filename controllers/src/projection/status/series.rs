//! What the status of a time series says: whether its table is as declared, and how far its writer is. Pure.

use crds::condition::{ConditionType, Finding};
use crds::reason::Reason;
use crds::registration::TimeSeries;

use super::{Outstanding, approval, migrations};
use crate::projection::migration::Plan;
use crate::projection::migration::series::Tables;
use crate::resolve::Outcome;
use crate::status::SeriesProgress;

/// A writer this near to the head of the event store has caught up: events that others wait for come meanwhile.
const NEAR: i64 = 4096;

/// What is known of a time series beside what is registered.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeenSeries<'a> {
    /// What its writer does.
    pub progress: Option<&'a SeriesProgress>,
    /// What the database has; `None` where it has no place for time series yet.
    pub tables: Option<&'a Tables>,
    /// The steps that are outstanding for what is registered.
    pub plan: Option<&'a Plan>,
    /// Why no step can be taken now.
    pub trouble: Option<&'a str>,
}

pub(super) fn findings(series: &TimeSeries, seen: &SeenSeries<'_>, outcome: &Outcome) -> Vec<Finding> {
    let answers = "the time-series database answers";
    let mut findings = vec![Finding::new(ConditionType::DatabaseReachable, true, Reason::DatabaseReachable, answers)];
    let outstanding =
        Outstanding { plan: seen.plan, trouble: seen.trouble, meanwhile: ", meanwhile no rows are written" };
    let done = format!("the table {}.{} is as declared", TimeSeries::SCHEMA, series.table);
    findings.extend(seen.tables.map(|there| migrations(done, &there.ledger, outstanding, outcome)));
    findings.push(approval(outcome, None));
    findings.extend(seen.progress.and_then(caught_up));
    findings
}

fn caught_up(progress: &SeriesProgress) -> Option<Finding> {
    let finding = |holds: bool, reason, message| Finding::new(ConditionType::CaughtUp, holds, reason, message);
    match progress.status.as_str() {
        "halted" => {
            let why = progress.message.as_deref().unwrap_or("an event makes no row");
            let message = format!("halted: {why}; mend the definition, or set onError to DeadLetter, to go on");
            Some(finding(false, Reason::Halted, message))
        }
        "running" if progress.behind <= NEAR => {
            Some(finding(true, Reason::CaughtUp, "rows are written as events come".to_owned()))
        }
        "running" => {
            Some(finding(false, Reason::CatchingUp, "reading stored events; until then rows are missing".to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crds::condition::Status;
    use crds::registration::{Column, ColumnType, Compiled, Fold};

    use super::*;
    use crate::projection::migration::series::plan;
    use crate::testing::projection;

    fn declared() -> TimeSeries {
        let column = Column { name: "v".into(), column_type: ColumnType::Double, from: "1.0".into() };
        TimeSeries { table: "t".into(), columns: vec![column], chunk_seconds: 86_400, retention_seconds: 604_800 }
    }

    fn of(condition: ConditionType, status: &str, behind: i64) -> Option<(Status, Reason, String)> {
        let tables = Tables { tables: BTreeMap::new(), ..Tables::default() };
        let plan = plan("p", &declared(), &tables).expect("nobody has it");
        let progress = SeriesProgress { status: status.into(), message: Some("event 1".into()), behind };
        let seen = SeenSeries { progress: Some(&progress), tables: Some(&tables), plan: Some(&plan), trouble: None };
        let fold = Fold::TimeSeries(declared());
        let spec = crds::registration::Projection { fold, ..projection("p") };
        let outcome = Outcome::Run(Compiled::Projection(spec).into());
        let found = findings(&declared(), &seen, &outcome).into_iter().find(|f| f.condition == condition)?;
        Some((found.status, found.reason, found.message))
    }

    #[test]
    fn a_table_that_is_not_there_is_being_made() {
        let (status, reason, message) = of(ConditionType::MigrationsApplied, "running", 0).expect("said");
        assert_eq!((status, reason), (Status::False, Reason::Progressing));
        assert_eq!(message, "1 step(s) to go: create the table timeseries.t");
    }

    #[test]
    fn how_far_the_writer_is_is_said_without_figures_that_always_change() {
        let said = |status, behind| of(ConditionType::CaughtUp, status, behind);
        assert!(said("running", 10).is_some_and(|(holds, ..)| holds == Status::True));
        assert!(said("running", 10_000).is_some_and(|(_, reason, _)| reason == Reason::CatchingUp));
        let (holds, reason, message) = said("halted", 0).expect("said");
        assert_eq!((holds, reason), (Status::False, Reason::Halted));
        assert!(message.starts_with("halted: event 1; mend the definition"), "{message}");
        assert_eq!(said("removed", 0), None);
    }
}
