//! Conditions as metav1.Condition: built, merged and read; pure, the time is an argument.
//!
//! `Ready`, `Reconciling` and `Stalled` are read by kstatus (`kubectl wait`, Flux). The last two are only in the list
//! while they hold, since kstatus takes their absence as "fine".

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::reason::Reason;

/// The longest message that is written; the cause comes first, so what is cut is detail.
const MESSAGE_LIMIT: usize = 1024;

/// The conditions that resources have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    Ready,
    Reconciling,
    Stalled,
    BrokerReachable,
    TopicExists,
    ConfigApplied,
    Drifted,
    Conflict,
    SchemaCompiled,
    Compatible,
    TopicResolved,
    DatabaseReachable,
    MigrationsApplied,
    ApprovalRequired,
    CaughtUp,
    SecretResolved,
    EndpointHealthy,
    Propagated,
}

impl ConditionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::BrokerReachable => "BrokerReachable",
            Self::TopicExists => "TopicExists",
            Self::ConfigApplied => "ConfigApplied",
            Self::Drifted => "Drifted",
            Self::Conflict => "Conflict",
            Self::SchemaCompiled => "SchemaCompiled",
            Self::Compatible => "Compatible",
            Self::TopicResolved => "TopicResolved",
            Self::DatabaseReachable => "DatabaseReachable",
            Self::MigrationsApplied => "MigrationsApplied",
            Self::ApprovalRequired => "ApprovalRequired",
            Self::CaughtUp => "CaughtUp",
            Self::SecretResolved => "SecretResolved",
            Self::EndpointHealthy => "EndpointHealthy",
            Self::Propagated => "Propagated",
        }
    }

    /// True for those that are only in the list while they hold.
    fn is_absent_when_false(self) -> bool {
        matches!(self, Self::Reconciling | Self::Stalled)
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    True,
    False,
    Unknown,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition as computed now, before it is merged into the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub condition: ConditionType,
    pub status: Status,
    pub reason: Reason,
    pub message: String,
    /// The generation that it is about, where that is not the newest.
    pub generation: Option<i64>,
}

impl Finding {
    pub fn new(
        condition: ConditionType,
        status: impl Into<Status>,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self { condition, status: status.into(), reason, message: message.into(), generation: None }
    }
}

/// Puts a finding into the list; it is about `generation`, unless it says otherwise. `lastTransitionTime` becomes `now` only when the status changes.
pub fn set(conditions: &mut Vec<Condition>, finding: &Finding, generation: i64, now: DateTime<Utc>) {
    let name = finding.condition.as_str();
    if finding.condition.is_absent_when_false() && finding.status == Status::False {
        conditions.retain(|c| c.type_ != name);
        return;
    }
    let before = conditions.iter_mut().find(|c| c.type_ == name);
    let since = before.as_ref().filter(|c| c.status == finding.status.as_str()).map(|c| c.last_transition_time.clone());
    let condition = Condition {
        type_: name.to_owned(),
        status: finding.status.as_str().to_owned(),
        reason: finding.reason.as_str().to_owned(),
        message: cut(&finding.message),
        observed_generation: Some(finding.generation.unwrap_or(generation)),
        last_transition_time: since.unwrap_or_else(|| time(now)),
    };
    match before {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
}

/// The list after `findings`: those named are set, those not named are kept as they are.
pub fn merge(before: &[Condition], findings: &[Finding], generation: i64, now: DateTime<Utc>) -> Vec<Condition> {
    let mut conditions = before.to_vec();
    for finding in findings {
        set(&mut conditions, finding, generation, now);
    }
    conditions
}

/// The condition of that type.
pub fn find(conditions: &[Condition], condition: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == condition.as_str())
}

/// Whether the condition is in the list with status True.
pub fn is_true(conditions: &[Condition], condition: ConditionType) -> bool {
    find(conditions, condition).is_some_and(|c| c.status == Status::True.as_str())
}

/// A time as Kubernetes writes it: whole seconds, UTC.
pub fn time(at: DateTime<Utc>) -> Time {
    // Out of jiff's range (years -9999 to 9999) only for a clock that is no clock.
    Time(Timestamp::from_second(at.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn cut(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_LIMIT) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("in range")
    }

    fn ready(status: Status, reason: Reason, message: &str) -> Finding {
        Finding::new(ConditionType::Ready, status, reason, message)
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = merge(&[], &[ready(Status::False, Reason::Progressing, "one")], 1, at(100));
        let second = merge(&first, &[ready(Status::False, Reason::Retrying, "two")], 2, at(200));
        assert_eq!(second[0].last_transition_time, time(at(100)));
        assert_eq!((second[0].reason.as_str(), second[0].message.as_str()), ("Retrying", "two"));
        assert_eq!(second[0].observed_generation, Some(2));
        let third = merge(&second, &[ready(Status::True, Reason::Available, "")], 2, at(300));
        assert_eq!(third[0].last_transition_time, time(at(300)));
        assert_eq!(third.len(), 1);
    }

    #[test]
    fn equal_findings_change_nothing_later() {
        let findings = [ready(Status::True, Reason::Available, "all is well")];
        let first = merge(&[], &findings, 3, at(1));
        assert_eq!(merge(&first, &findings, 3, at(1000)), first);
    }

    #[test]
    fn stalled_and_reconciling_leave_the_list_when_they_no_longer_hold() {
        let stalled = Finding::new(ConditionType::Stalled, true, Reason::InvalidSchema, "version 2");
        let list = merge(&[], &[ready(Status::False, Reason::InvalidSchema, ""), stalled], 1, at(1));
        assert!(is_true(&list, ConditionType::Stalled));
        let over = Finding::new(ConditionType::Stalled, false, Reason::Available, "");
        let list = merge(&list, &[over], 2, at(2));
        assert!(find(&list, ConditionType::Stalled).is_none());
        assert!(find(&list, ConditionType::Ready).is_some(), "what is not named is kept");
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let list = merge(&[], &[ready(Status::False, Reason::InvalidSpec, &"é".repeat(5000))], 1, at(1));
        assert_eq!(list[0].message.chars().count(), MESSAGE_LIMIT + 1);
    }
}
