use chrono::DateTime;
use crds::condition::Status;
use crds::registration::{Kind, Projection};

use super::*;
use crate::projection::migration::indexes::{Existing, Found, Wanted, name, plans};
use crate::projection::migration::{Entry, approval::Held};
use crate::resolve::{Outcome, Resolution};
use crate::status::DataPlane;
use crate::testing::{key, projection};
use crate::topic::status::Bus;

fn spec(indexes: &[&str]) -> Projection {
    Projection { indexes: indexes.iter().map(|&field| field.to_owned()).collect(), ..projection("p") }
}

fn live() -> Progress {
    Progress { status: "live".into(), ..Progress::default() }
}

struct Case {
    spec: Projection,
    outcome: Outcome,
    progress: Progress,
    catalog: Catalog,
    trouble: Option<&'static str>,
}

impl Case {
    fn new(indexes: &[&str]) -> Self {
        let spec = spec(indexes);
        let outcome = Outcome::Run(Compiled::Projection(spec.clone()).into());
        Self { spec, outcome, progress: live(), catalog: Catalog::default(), trouble: None }
    }

    fn built(mut self, fields: &[&str]) -> Self {
        let found = |field: &&str| (name("p", field), Found { valid: true, projection_type: Some("p".into()) });
        self.catalog.indexes = fields.iter().map(found).collect::<Existing>();
        self
    }

    fn noted(mut self, step: String, state: State) -> Self {
        self.catalog.ledger.insert(step, Entry { id: 1, state });
        self
    }

    fn of(&self, condition: ConditionType) -> Option<(Status, Reason, String)> {
        let resolution = Resolution {
            key: key(Kind::Projection, "p"),
            generation: 2,
            origin: "p.yaml:1".into(),
            outcome: self.outcome.clone(),
            manages: true,
            findings: Vec::new(),
        };
        let wanted = Wanted { projection_type: "p".into(), fields: self.spec.indexes.clone(), writes: true };
        let plans = plans(&[wanted], &self.catalog);
        let compiled = Compiled::Projection(self.spec.clone());
        let facts = Facts {
            resolution: &resolution,
            served: None,
            spec: Some(&compiled),
            data_plane: &DataPlane::default(),
            bus: &Bus::Embedded,
            projection: Seen {
                progress: Some(&self.progress),
                catalog: Some(&self.catalog),
                plan: plans.first(),
                trouble: self.trouble,
                selector: None,
                series: SeenSeries::default(),
            },
            endpoint: None,
        };
        let found = findings(&facts).into_iter().find(|f| f.condition == condition)?;
        Some((found.status, found.reason, found.message))
    }
}

#[test]
fn rows_of_half_a_history_say_from_when_on_it_is() {
    let progress = Progress { history_from: DateTime::from_timestamp(86_400, 0), ..live() };
    let (status, reason, message) =
        Case { progress, ..Case::new(&[]) }.of(ConditionType::ApprovalRequired).expect("said");
    assert_eq!((status, reason), (Status::False, Reason::HistoryTruncated));
    assert!(message.contains("1970-01-02T00:00:00Z"), "{message}");
    let (status, reason, _) = Case::new(&[]).of(ConditionType::ApprovalRequired).expect("said");
    assert_eq!((status, reason), (Status::False, Reason::NoApprovalNeeded));
}

#[test]
fn what_waits_for_an_approval_says_so_before_anything_about_history() {
    let held = Held { plan_hash: "abc".into(), message: "approve it".into() };
    let progress = Progress { history_from: DateTime::from_timestamp(86_400, 0), ..live() };
    let case = Case { outcome: Outcome::Held(held), progress, ..Case::new(&[]) };
    let said = case.of(ConditionType::ApprovalRequired);
    assert_eq!(said, Some((Status::True, Reason::ApprovalRequired, "approve it".to_owned())));
}

#[test]
fn a_step_that_failed_comes_before_one_that_is_under_way() {
    let said = |case: Case| case.of(ConditionType::MigrationsApplied).expect("said");
    let of_b = format!("create index {}", name("p", "b"));
    let failed = || Case::new(&["a", "b"]).noted(of_b.clone(), State::Failed("disk full".into()));
    let (status, reason, message) = said(failed());
    assert_eq!((status, reason), (Status::False, Reason::MigrationFailed));
    assert!(message.contains("'b'") && message.contains("disk full"), "{message}");

    let (status, reason, _) = said(failed().built(&["a", "b"]));
    assert_eq!((status, reason), (Status::False, Reason::Progressing), "it is there, its statistics are not yet");
    let (status, reason, message) = said(Case::new(&["a", "b"]).built(&["a"]));
    assert_eq!((status, reason), (Status::False, Reason::Progressing));
    assert!(message.contains("'b'"), "{message}");

    let (status, reason, message) = said(Case::new(&["a", "b"]).built(&["a", "b"]));
    assert_eq!((status, reason, message.as_str()), (Status::True, Reason::MigrationsApplied, "2 index(es) built"));
    assert_eq!(said(Case::new(&[])).0, Status::True);
}

#[test]
fn a_database_that_takes_no_step_and_a_resource_that_is_left_alone_say_so() {
    let trouble = Case { trouble: Some("no connection"), ..Case::new(&["a"]) };
    let (_, reason, message) = trouble.of(ConditionType::MigrationsApplied).expect("said");
    assert_eq!(reason, Reason::MigrationFailed);
    assert!(message.contains("no connection"), "{message}");
    let paused = Case { outcome: Outcome::LeftAlone(Reason::Paused), ..Case::new(&["a"]) };
    assert_eq!(paused.of(ConditionType::MigrationsApplied).map(|said| said.1), Some(Reason::Paused));
}

#[test]
fn a_rebuild_is_told_in_tenths() {
    let at = |read, behind| rebuild(&Progress { status: "catching_up".into(), beside: true, read, behind, ..live() });
    let percent = |read, behind| at(read, behind).map(|rebuild| (rebuild.state, rebuild.percent));
    assert_eq!(percent(0, 0), Some((RebuildState::Beside, 0)));
    assert_eq!(percent(499, 501), Some((RebuildState::Beside, 40)));
    assert_eq!(percent(509, 491), Some((RebuildState::Beside, 50)));
    assert_eq!(percent(1000, 0), Some((RebuildState::Beside, 90)), "not done until it is handed over");
    assert_eq!(percent(i64::MAX, i64::MAX).map(|(_, percent)| percent % 10), Some(0));
    assert_eq!(rebuild(&live()), None);
    let first = Progress { status: "catching_up".into(), read: 1, behind: 1, ..live() };
    assert_eq!(rebuild(&first).map(|rebuild| rebuild.state), Some(RebuildState::InPlace));
}
