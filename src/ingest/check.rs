//! What an event must keep to, and what its event type asks of its payload. Pure: the time and the catalog are
//! arguments.

use chrono::{DateTime, TimeDelta, Utc};
use crds::registration::Validation;
use serde_json::Value;

use crate::event::MAX_NAME_CHARS;
use crate::registry::{Catalog, LoadedEventType};

use super::bounds;
use super::envelope::Candidate;
use super::refusal::{FieldError, Refusal};

/// How far an event's time may be ahead of this machine's, in minutes. A clock that is far ahead would freeze the
/// projections that keep the newest event.
const MAX_AHEAD_MINUTES: i64 = 5;

/// The rules that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Deepest nesting of a payload, in levels. Default 64.
    pub max_depth: usize,
    /// Event types that are not registered are refused. Default false.
    pub strict_types: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_depth: 64, strict_types: false }
    }
}

/// An event that keeps to the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The version of the schema that the payload was validated against.
    pub schema_version: Option<i32>,
    /// Broken rules that only warn.
    pub warnings: Vec<FieldError>,
}

/// Checks everything about an event.
///
/// # Errors
/// All broken rules of its fields, or those of its payload's schema.
pub fn check(event: &Candidate<'_>, catalog: &Catalog, rules: Rules, now: DateTime<Utc>) -> Result<Checked, Refusal> {
    let mut errors = Vec::new();
    errors.extend(name("/event_type", &event.event_type, char::is_whitespace, "no spaces"));
    errors.extend(name("/aggregate_id", &event.aggregate_id, |_| false, "no control characters"));
    errors.extend(event.trace_id.as_deref().and_then(|id| name("/trace_id", id, |_| false, "no control characters")));
    errors.extend(event.event_time.and_then(|time| event_time(time, now)));
    errors.extend(bounds::check(&event.payload, rules.max_depth, "/payload").err());
    let registered = catalog.event_types.get(event.event_type.as_ref());
    if registered.is_none() && rules.strict_types && errors.is_empty() {
        let message =
            "is not a registered event type, and unknown ones are refused here; GET /api/v1/event-types lists them";
        errors.push(FieldError::new("/event_type", "registered", &event.event_type, message));
    }
    if !errors.is_empty() {
        return Err(Refusal::invalid(errors));
    }
    registered.map_or_else(|| Ok(Checked::default()), |event_type| payload(event, event_type))
}

/// 1 to 255 characters, at least one of them visible, no control characters, none that is `forbidden`.
fn name(pointer: &str, text: &str, forbidden: fn(char) -> bool, what: &str) -> Option<FieldError> {
    let error = |rule, message: String| Some(FieldError::new(pointer, rule, text, message));
    if text.chars().all(char::is_whitespace) {
        // An absent field was named already when the event was read.
        return error("min-length", "must not be empty".to_owned());
    }
    if text.len() > MAX_NAME_CHARS && text.chars().count() > MAX_NAME_CHARS {
        return error(
            "max-length",
            format!("must have at most {MAX_NAME_CHARS} characters, has {}", text.chars().count()),
        );
    }
    if text.chars().any(|c| c.is_control() || forbidden(c)) {
        return error("characters", format!("must hold {what}"));
    }
    None
}

fn event_time(time: DateTime<Utc>, now: DateTime<Utc>) -> Option<FieldError> {
    let shown = time.to_rfc3339();
    if time > now + TimeDelta::minutes(MAX_AHEAD_MINUTES) {
        let message = format!("must not be more than {MAX_AHEAD_MINUTES} minutes ahead of {}", now.to_rfc3339());
        return Some(FieldError::new("/event_time", "not-ahead", &shown, message));
    }
    // Year 1: what the database can read back.
    (time.timestamp() < -62_135_596_800)
        .then(|| FieldError::new("/event_time", "range", &shown, "must not be before the year 1"))
}

/// Validates the payload as its event type asks.
fn payload(event: &Candidate<'_>, event_type: &LoadedEventType) -> Result<Checked, Refusal> {
    let validation = event_type.spec.validation;
    if validation == Validation::Off {
        return Ok(Checked { schema_version: event.schema_version, warnings: Vec::new() });
    }
    let broken = match event_type.schema_for(event.schema_version) {
        Ok(None) => return Ok(Checked::default()),
        Ok(Some(effective)) => {
            let value: Value = serde_json::from_str(&event.payload).map_err(|e| {
                Refusal::invalid(vec![FieldError::new("/payload", "json", &event.payload, e.to_string())])
            })?;
            let violations = effective.schema.validate(&value);
            if violations.is_empty() {
                return Ok(Checked { schema_version: Some(effective.version), warnings: Vec::new() });
            }
            let error = |v: crds::language::schema::Violation| {
                FieldError::new(format!("/payload{}", v.pointer), &v.rule, &v.value, v.message)
            };
            violations.into_iter().map(error).collect()
        }
        Err(unknown) => {
            let asked = event.schema_version.unwrap_or_default().to_string();
            vec![FieldError::new("/schema_version", "known-version", &asked, unknown.to_string())]
        }
    };
    match validation {
        Validation::Enforce => Err(Refusal::invalid(broken)),
        Validation::Warn | Validation::Off => Ok(Checked { schema_version: None, warnings: broken }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use crds::language::schema::PayloadSchema;
    use crds::registration::{EventType, Kind, ResourceKey, SchemaVersion};
    use serde_json::json;

    use super::*;

    fn catalog(validation: Validation) -> Catalog {
        let schema = json!({"type": "object", "required": ["value"], "properties": {"value": {"type": "number"}}});
        let schemas = BTreeMap::from([(2, PayloadSchema::compile(&schema).expect("a schema"))]);
        let key = ResourceKey { namespace: "default".into(), kind: Kind::EventType, name: "sensor.reading".into() };
        let spec = EventType {
            event_type: "sensor.reading".into(),
            description: None,
            owner: None,
            topic: "sensor-events".into(),
            validation,
            versions: vec![SchemaVersion { version: 2, schema, deprecated: false }],
            examples: Vec::new(),
            mqtt: Vec::new(),
        };
        let loaded = LoadedEventType { key, generation: 1, hash: String::new(), spec, schemas };
        Catalog { event_types: BTreeMap::from([("sensor.reading".into(), Arc::new(loaded))]), ..Catalog::default() }
    }

    fn reading(payload: &'static str) -> Candidate<'static> {
        Candidate {
            event_type: "sensor.reading".into(),
            aggregate_id: "d".into(),
            payload: payload.into(),
            ..Candidate::default()
        }
    }

    fn check_at_epoch(event: &Candidate<'_>, catalog: &Catalog, rules: Rules) -> Result<Checked, Refusal> {
        check(event, catalog, rules, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn the_schema_is_enforced_warned_of_or_ignored_as_the_event_type_says() {
        let bad = reading(r#"{"value":"hot"}"#);
        let refused = check_at_epoch(&bad, &catalog(Validation::Enforce), Rules::default()).expect_err("refused");
        assert_eq!((refused.errors[0].pointer.as_str(), refused.errors[0].rule.as_str()), ("/payload/value", "type"));
        let warned = check_at_epoch(&bad, &catalog(Validation::Warn), Rules::default()).expect("accepted");
        assert_eq!((warned.warnings.len(), warned.schema_version), (1, None));
        let off = check_at_epoch(&bad, &catalog(Validation::Off), Rules::default()).expect("accepted");
        assert_eq!(off, Checked::default());
        let good = reading(r#"{"value":1}"#);
        let checked = check_at_epoch(&good, &catalog(Validation::Enforce), Rules::default()).expect("accepted");
        assert_eq!(checked.schema_version, Some(2));
    }

    #[test]
    fn a_version_that_does_not_exist_is_refused() {
        let event = Candidate { schema_version: Some(7), ..reading(r#"{"value":1}"#) };
        let refused = check_at_epoch(&event, &catalog(Validation::Enforce), Rules::default()).expect_err("refused");
        assert_eq!(refused.errors[0].pointer, "/schema_version");
    }

    #[test]
    fn an_unknown_type_is_accepted_unless_types_are_strict() {
        let event = Candidate { event_type: "new.thing".into(), ..reading("1") };
        assert!(check_at_epoch(&event, &Catalog::default(), Rules::default()).is_ok());
        let strict = Rules { strict_types: true, ..Rules::default() };
        let refused = check_at_epoch(&event, &Catalog::default(), strict).expect_err("refused");
        assert_eq!(refused.errors[0].value, "new.thing");
    }

    #[test]
    fn all_broken_rules_are_named_at_once() {
        let now = DateTime::UNIX_EPOCH;
        let event = Candidate {
            event_type: "a b".into(),
            aggregate_id: "x".repeat(256).into(),
            event_time: Some(now + TimeDelta::minutes(6)),
            trace_id: Some("t\u{7}".into()),
            ..reading(r#"["\u0000"]"#)
        };
        let refused = check(&event, &Catalog::default(), Rules::default(), now).expect_err("refused");
        let rules: Vec<_> = refused.errors.iter().map(|e| e.rule.as_str()).collect();
        assert_eq!(rules, ["characters", "max-length", "characters", "not-ahead", "no-nul"]);
    }
}
