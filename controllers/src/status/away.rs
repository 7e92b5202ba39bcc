//! What is said of a resource while no database can be asked. Pure.

use chrono::{DateTime, Utc};
use crds::condition::{ConditionType, Finding, Status};
use crds::reason::Reason;
use crds::registration::Kind;
use serde_json::{Map, Value};

use super::{conditions_beside, three};
use crate::look::Said;
use crate::resource::Declared;

/// The status of a resource while the databases are away; `None` where the one that stands is still true. It is of what was
/// looked at before, for the data plane runs it as before; only what a projection shows comes from the database itself.
pub fn document(declared: &Declared, previous: Option<&Value>, error: &str, now: DateTime<Utc>) -> Option<Value> {
    let is_looked_at = previous.is_some_and(|status| status["observedGeneration"] == declared.generation);
    let is_said = previous
        .is_some_and(|status| is_true(status, "Stalled") || Said::ready(status).reason == Reason::Paused.as_str());
    if is_looked_at && (declared.key.kind != Kind::Projection || is_said) {
        return None;
    }
    let message = format!("{error}; it is tried again, and the data plane runs on with what is registered");
    let mut findings = three(Status::False, true, false, Reason::DatabaseUnreachable, &message);
    if declared.key.kind == Kind::Projection {
        findings.push(Finding::new(ConditionType::DatabaseReachable, false, Reason::DatabaseUnreachable, error));
    }
    let mut status = previous.and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
    status.insert("observedGeneration".to_owned(), declared.generation.into());
    let conditions = conditions_beside(previous, &findings, declared.generation, now);
    // Serialising plain structs cannot fail.
    status.insert("conditions".to_owned(), serde_json::to_value(conditions).unwrap_or_default());
    Some(Value::Object(status))
}

fn conditions_of(status: &Value) -> impl Iterator<Item = &Value> {
    status["conditions"].as_array().into_iter().flatten()
}

fn is_true(status: &Value, condition: &str) -> bool {
    conditions_of(status).any(|c| c["type"] == condition && c["status"] == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::Unreadable;
    use crate::testing::key;

    fn declared(kind: Kind, generation: i64) -> Declared {
        let resource = Err(Unreadable { reason: Reason::InvalidSpec, message: String::new() });
        Declared { key: key(kind, "a"), generation, created: None, origin: "here".into(), resource }
    }

    fn standing(generation: i64, condition: &str, reason: &str) -> Value {
        let condition = json!({"type": condition, "status": "True", "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation});
        json!({"observedGeneration": generation, "type": "t", "conditions": [condition]})
    }

    fn said(declared: &Declared, previous: Option<&Value>) -> Option<Value> {
        document(declared, previous, "cannot connect", DateTime::UNIX_EPOCH)
    }

    #[test]
    fn what_was_looked_at_runs_on_and_what_is_new_waits() {
        let before = standing(3, "Ready", "Available");
        assert_eq!(said(&declared(Kind::EventType, 3), Some(&before)), None);
        for previous in [None, Some(&json!({"observedGeneration": -1})), Some(&before)] {
            let status = said(&declared(Kind::EventType, 4), previous).expect("something to say");
            let ready = Said::ready(&status);
            assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "DatabaseUnreachable"));
            assert!(ready.message.contains("cannot connect"), "{}", ready.message);
            assert!(is_true(&status, "Reconciling"), "{status}");
            assert_eq!(status["observedGeneration"], 4);
        }
    }

    #[test]
    fn a_projection_shows_that_its_database_is_away_unless_something_else_keeps_it() {
        let ready = standing(3, "Ready", "Available");
        let status = said(&declared(Kind::Projection, 3), Some(&ready)).expect("something to say");
        assert_eq!(Said::ready(&status).reason, "DatabaseUnreachable");
        assert_eq!(status["type"], "t", "the rest stays");
        let reachable = conditions_of(&status).find(|c| c["type"] == "DatabaseReachable").expect("said");
        assert_eq!(reachable["status"], "False");
        assert_eq!(said(&declared(Kind::Projection, 3), Some(&status)), Some(status), "said once");
        for (condition, reason) in [("Stalled", "InvalidExpression"), ("Ready", "Paused")] {
            assert_eq!(said(&declared(Kind::Projection, 3), Some(&standing(3, condition, reason))), None);
        }
    }
}
