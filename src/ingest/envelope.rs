//! An event as a caller gives it, and as the outbox keeps it.

use std::borrow::Cow;

use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::event::Metadata;

use super::json::{Elements, Object, required};
use super::refusal::{FieldError, Refusal, cut};

/// An event that was read but not checked yet. Texts are the caller's own, borrowed from the request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate<'a> {
    pub event_type: Cow<'a, str>,
    pub aggregate_id: Cow<'a, str>,
    /// Valid JSON.
    pub payload: Cow<'a, str>,
    pub event_time: Option<DateTime<Utc>>,
    pub trace_id: Option<Cow<'a, str>>,
    /// The version of the payload schema that the caller names.
    pub schema_version: Option<i32>,
    /// The trace that the event itself carries.
    pub traceparent: Option<Cow<'a, str>>,
    pub cloud: Option<CloudIdentity<'a>>,
}

/// What identifies a CloudEvent.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudIdentity<'a> {
    pub source: Cow<'a, str>,
    pub id: Cow<'a, str>,
}

/// The texts of the events in a JSON array.
///
/// # Errors
/// The text is no JSON array, or something follows it.
pub fn elements(text: &str) -> Result<Vec<&str>, Refusal> {
    Ok(Elements::parse(text)?.texts)
}

/// The texts of the events in NDJSON: one a line; empty lines are none.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// Reads `{"event_type","aggregate_id","payload","event_time"?,"trace_id"?,"schema_version"?}`. Other members are
/// ignored; of several with one name the last counts; null is the same as absent.
///
/// # Errors
/// The text is no JSON object, or members have the wrong type.
pub fn read(text: &str) -> Result<Candidate<'_>, Refusal> {
    let object = Object::parse(text)?;
    let mut errors = Vec::new();
    let candidate = Candidate {
        event_type: object.required_string("event_type", &mut errors),
        aggregate_id: object.required_string("aggregate_id", &mut errors),
        payload: Cow::Borrowed(object.get("payload").unwrap_or_else(|| {
            errors.push(required("payload"));
            "null"
        })),
        event_time: object.string("event_time", &mut errors).and_then(|t| time("/event_time", &t, &mut errors)),
        trace_id: object.string("trace_id", &mut errors),
        schema_version: object.get("schema_version").and_then(|t| version(t, &mut errors)),
        traceparent: None,
        cloud: None,
    };
    if errors.is_empty() {
        return Ok(candidate);
    }
    for error in errors.iter_mut().filter(|error| error.rule == "required") {
        name_misspelt(error, &object);
    }
    Err(Refusal::invalid(errors))
}

/// The members of an event.
const MEMBERS: [&str; 6] = ["event_type", "aggregate_id", "payload", "event_time", "trace_id", "schema_version"];

/// Adds to what is said of a missing member which member was probably meant for it, or what was given that is none.
fn name_misspelt(error: &mut FieldError, object: &Object<'_>) {
    let wanted = error.pointer.trim_start_matches('/');
    let strange = || object.names().filter(|name| !MEMBERS.contains(name));
    let hint = match crds::nearest(wanted, strange()) {
        Some(given) => format!("; '{}' is no field of an event: was {wanted} meant?", cut(given)),
        None if strange().next().is_none() => return,
        None => {
            let given: Vec<&str> = strange().collect();
            format!("; no fields of an event, and ignored: {}", cut(&given.join(", ")))
        }
    };
    error.message.push_str(&hint);
}

/// An RFC 3339 time, to the microsecond; a leap second is the second after it. Both as the database keeps times.
pub(super) fn time(pointer: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<DateTime<Utc>> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => DateTime::from_timestamp_micros(time.timestamp_micros()),
        Err(e) => {
            let message = format!("must be an RFC 3339 time such as 2026-01-31T12:00:00Z: {e}");
            errors.push(FieldError::new(pointer, "date-time", text, message));
            None
        }
    }
}

/// A positive integer.
pub(super) fn version(text: &str, errors: &mut Vec<FieldError>) -> Option<i32> {
    let version = text.parse().ok().filter(|v| *v > 0);
    if version.is_none() {
        errors.push(FieldError::new("/schema_version", "type", text, "must be a positive integer"));
    }
    version
}

/// [`crate::event::Envelope`], borrowed.
#[derive(Serialize)]
struct Written<'a> {
    event_id: Uuid,
    event_type: &'a str,
    aggregate_id: &'a str,
    timestamp: DateTime<Utc>,
    payload: &'a RawValue,
    metadata: &'a Metadata,
    ingested_at: DateTime<Utc>,
}

/// The envelope of a checked event.
///
/// # Errors
/// The payload is no valid JSON.
pub(super) fn write(
    candidate: &Candidate<'_>,
    metadata: &Metadata,
    event_id: Uuid,
    ingested_at: DateTime<Utc>,
) -> serde_json::Result<String> {
    let ingested_at = ingested_at.trunc_subsecs(6);
    serde_json::to_string(&Written {
        event_id,
        event_type: &candidate.event_type,
        aggregate_id: &candidate.aggregate_id,
        timestamp: candidate.event_time.unwrap_or(ingested_at),
        payload: serde_json::from_str(&candidate.payload)?,
        metadata,
        ingested_at,
    })
}

#[cfg(test)]
mod tests {
    use crate::event::Envelope;

    use super::*;

    #[test]
    fn an_event_is_read_and_written_without_losing_a_digit() {
        let body = r#" {"event_type":"sensor.reading","aggregate_id":"d\u00fc","payload": {"v": 12345678901234567890.123456789} ,
            "event_time":"2026-01-31T12:00:00.123456789+01:00","more":[1],"trace_id":null}"#;
        let candidate = read(body).expect("is read");
        assert_eq!(candidate.aggregate_id, "dü");
        let metadata = Metadata { trace_id: Some("t".to_owned()), ..Metadata::default() };
        let text = write(&candidate, &metadata, Uuid::nil(), DateTime::UNIX_EPOCH).expect("is written");
        let envelope: Envelope = serde_json::from_str(&text).expect("is an envelope");
        assert_eq!(envelope.payload.get(), r#"{"v": 12345678901234567890.123456789}"#);
        assert_eq!(envelope.timestamp.to_rfc3339(), "2026-01-31T11:00:00.123456+00:00");
        assert_eq!(envelope.metadata, metadata);
        assert_eq!(envelope.ingested_at, DateTime::UNIX_EPOCH);
    }

    #[test]
    fn a_misspelt_member_is_named_beside_the_one_that_is_missing() {
        let said = |body| read(body).expect_err("incomplete").detail();
        assert_eq!(
            said(r#"{"event_type":"t","agregate_id":"a","payload":{}}"#),
            "aggregate_id: is required; 'agregate_id' is no field of an event: was aggregate_id meant?"
        );
        assert_eq!(
            said(r#"{"eventType":"t","aggregate_id":"a","payload":{}}"#),
            "event_type: is required; 'eventType' is no field of an event: was event_type meant?"
        );
        assert_eq!(
            said(r#"{"event_type":"t","aggregate_id":"a","data":{},"trace_id":"x"}"#),
            "payload: is required; no fields of an event, and ignored: data"
        );
        assert_eq!(said(r#"{"event_type":"t","aggregate_id":"a"}"#), "payload: is required");
        let long = format!(r#"{{"event_type":"t","payload":1,"{}":1}}"#, "x".repeat(500));
        assert!(said(&long).len() < 250, "{}", said(&long));
    }

    #[test]
    fn every_wrong_member_is_named() {
        let refusal =
            read(r#"{"event_type":7,"payload":null,"event_time":"soon","schema_version":1.5}"#).expect_err("wrong");
        let named: Vec<_> =
            refusal.errors.iter().map(|e| (e.pointer.as_str(), e.rule.as_str(), e.value.as_str())).collect();
        assert_eq!(
            named,
            [
                ("/event_type", "type", "7"),
                ("/aggregate_id", "required", ""),
                ("/payload", "required", ""),
                ("/event_time", "date-time", "soon"),
                ("/schema_version", "type", "1.5"),
            ]
        );
    }
}
