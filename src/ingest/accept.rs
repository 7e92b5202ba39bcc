//! From an event as it was read to what the outbox stores. Pure.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::event::{Metadata, MqttOrigin, shard_of};
use crate::outbox::{Entry, IdempotencyKey, RequestHash};
use crate::registry::Catalog;

use super::check::{Rules, check};
use super::envelope::{Candidate, write};
use super::pointer::skip_string;
use super::refusal::{FieldError, Refusal};

/// The idempotency key that the request gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenKey<'a> {
    /// None; a CloudEvent's source and id count.
    OfEvent,
    Header(&'a str),
    HeaderOfBatch(&'a str, usize),
}

/// What is known about an event beside itself.
#[derive(Clone, Debug)]
pub struct Circumstances<'a> {
    /// UUID v7.
    pub event_id: Uuid,
    pub now: DateTime<Utc>,
    pub key: GivenKey<'a>,
    /// W3C trace context of the request.
    pub traceparent: Option<&'a str>,
    /// How it came in, where the event does not say: `http`, `mqtt`.
    pub transport: &'static str,
    /// The message that it came in as.
    pub mqtt: Option<MqttOrigin>,
}

/// An event to be stored.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub entry: Entry,
    /// Broken rules that only warn.
    pub warnings: Vec<FieldError>,
}

/// Checks an event and builds its envelope.
///
/// # Errors
/// It breaks rules.
pub fn admit(
    event: &Candidate<'_>,
    catalog: &Catalog,
    rules: Rules,
    known: Circumstances<'_>,
) -> Result<Admitted, Refusal> {
    let checked = check(event, catalog, rules, known.now)?;
    let source = event.cloud.as_ref().map_or(known.transport, |cloud| cloud.source.as_ref());
    let metadata = Metadata {
        trace_id: event.trace_id.as_deref().map(str::to_owned),
        traceparent: event.traceparent.as_deref().or(known.traceparent).map(str::to_owned),
        source: Some(source.to_owned()),
        schema_version: checked.schema_version,
        cloudevents_id: event.cloud.as_ref().map(|cloud| cloud.id.clone().into_owned()),
        mqtt: known.mqtt,
    };
    let envelope = write(event, &metadata, known.event_id, known.now)
        .map_err(|e| Refusal::invalid(vec![FieldError::new("/payload", "json", &event.payload, e.to_string())]))?;
    let shard = shard_of(&event.aggregate_id);
    let entry = Entry { event_id: known.event_id, shard, envelope, key: key(event, known.key), again: false };
    Ok(Admitted { entry, warnings: checked.warnings })
}

fn key(event: &Candidate<'_>, given: GivenKey<'_>) -> Option<IdempotencyKey> {
    match (given, &event.cloud) {
        (GivenKey::Header(key), _) => Some(IdempotencyKey::from_header(key, request_hash(event))),
        (GivenKey::HeaderOfBatch(key, index), _) => {
            Some(IdempotencyKey::from_header_in_batch(key, index, request_hash(event)))
        }
        (GivenKey::OfEvent, Some(cloud)) => {
            Some(IdempotencyKey::from_cloud_event(&cloud.source, &cloud.id, request_hash(event)))
        }
        (GivenKey::OfEvent, None) => None,
    }
}

/// What makes two requests the same: type, aggregate, the payload without the spaces between its tokens, and the
/// caller's time. Neither the trace, which a retry may change, nor the
/// schema version, which not every way to send an event tells.
fn request_hash(event: &Candidate<'_>) -> RequestHash {
    let mut hash = Sha256::new();
    let time = event.event_time.map(|t| t.timestamp_micros().to_be_bytes());
    for part in [event.event_type.as_bytes(), event.aggregate_id.as_bytes(), time.as_ref().map_or(&[], |t| &t[..])] {
        hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(part);
    }
    without_spaces(event.payload.as_bytes(), |part| hash.update(part));
    hash.finalize().into()
}

/// The parts of JSON text between the spaces that mean nothing.
fn without_spaces(json: &[u8], mut take: impl FnMut(&[u8])) {
    let (mut start, mut at) = (0, 0);
    while at < json.len() {
        match json[at] {
            b'"' => at = skip_string(json, at).min(json.len()),
            byte if byte.is_ascii_whitespace() => {
                take(&json[start..at]);
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    take(&json[start..]);
}

#[cfg(test)]
mod tests {
    use super::super::envelope::read;
    use super::*;

    fn hash(body: &str) -> RequestHash {
        request_hash(&read(body).expect("an event"))
    }

    #[test]
    fn spaces_between_tokens_and_the_trace_make_no_other_request() {
        let plain = hash(r#"{"event_type":"t","aggregate_id":"a","payload":{"x":" \" ","y":[1,2]}}"#);
        let spaced =
            hash(r#"{"trace_id":"z","event_type":"t","aggregate_id":"a","payload":{ "x" : " \" " , "y":[1, 2]} }"#);
        assert_eq!(plain, spaced);
    }

    #[test]
    fn anything_else_makes_another_request() {
        let bodies = [
            r#"{"event_type":"t","aggregate_id":"a","payload":" x"}"#,
            r#"{"event_type":"t","aggregate_id":"a","payload":"x"}"#,
            r#"{"event_type":"ta","aggregate_id":"","payload":"x"}"#,
            r#"{"event_type":"t","aggregate_id":"b","payload":"x"}"#,
            r#"{"event_type":"t","aggregate_id":"a","payload":"x","event_time":"2026-01-01T00:00:00Z"}"#,
        ];
        let hashes: std::collections::HashSet<_> = bodies.iter().map(|body| hash(body)).collect();
        assert_eq!(hashes.len(), bodies.len());
    }
}
