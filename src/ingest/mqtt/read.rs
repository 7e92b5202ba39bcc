//! From a message to an event. Pure.
//!
//! The payload of a message is the event's payload, and its topic names type and aggregate. With a content type (or the
//! user property `content-type`) it may be a whole event instead: in our own form ([`ENVELOPE`]), or a CloudEvent,
//! structured (`application/cloudevents+json`) or binary (user property `specversion`). User properties: `event-type`
//! (where several types take the topic), `event-time`, `schema-version`, `trace-id`, `traceparent`, `idempotency-key`.

use std::borrow::Cow;

use super::message::Message;
use super::routes::{Routes, Taken};
use crate::ingest::accept::GivenKey;
use crate::ingest::cloudevents::is_json;
use crate::ingest::envelope::{self, Candidate, time, version};
use crate::ingest::refusal::{FieldError, Reason, Refusal};
use crate::ingest::text::{idempotency_key, json, utf8};
use crate::ingest::{cloudevents, is_traceparent};

/// Content type of an event in the form that `POST /api/v1/events` takes.
pub const ENVELOPE: &str = "application/vnd.cornjacket.event+json";

/// An event that a message holds.
#[derive(Debug)]
pub struct Read<'m> {
    pub candidate: Candidate<'m>,
    pub key: GivenKey<'m>,
    pub traceparent: Option<&'m str>,
}

/// What the payload of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Payload,
    Envelope,
    Structured,
    Binary,
}

/// Reads the event in a message.
///
/// # Errors
/// The message is too large or no JSON, no event type takes its topic, or a property has no such value.
pub fn read<'m>(message: &'m Message, routes: &Routes, max_bytes: usize) -> Result<Read<'m>, Refusal> {
    if message.payload.len() > max_bytes {
        let error = FieldError::new(
            "",
            "max-bytes",
            &message.payload.len().to_string(),
            format!("must have at most {max_bytes} bytes"),
        );
        return Err(Refusal::new(Reason::TooLarge, error));
    }
    let text = utf8(&message.payload)?;
    let taken = taking(message, routes)?;
    let candidate = match form(message)? {
        Form::Payload => plain(message, text, &taken)?,
        Form::Envelope => among(envelope::read(text)?, &taken)?,
        Form::Structured => among(cloudevents::structured(text)?, &taken)?,
        Form::Binary => among(binary(message, text)?, &taken)?,
    };
    let traceparent = message.property("traceparent").filter(|text| is_traceparent(text));
    Ok(Read { candidate, key: key(message)?, traceparent })
}

fn taking<'r>(message: &Message, routes: &'r Routes) -> Result<Vec<Taken<'r>>, Refusal> {
    let taken = routes.taking(&message.topic);
    if taken.is_empty() {
        let why = "is taken by no event type (declare it in spec.mqtt of one), and the broker's session still has it";
        return Err(Refusal::invalid(vec![FieldError::new("topic", "topic", &message.topic, why)]));
    }
    Ok(taken)
}

fn form(message: &Message) -> Result<Form, Refusal> {
    let given = message.content_type.as_deref().or_else(|| message.property("content-type")).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        ENVELOPE => Ok(Form::Envelope),
        "application/cloudevents+json" => Ok(Form::Structured),
        other if other.is_empty() || is_json(other) => {
            Ok(if message.property("specversion").is_some() { Form::Binary } else { Form::Payload })
        }
        // What clients set that have no better name for it.
        "text/plain" | "application/octet-stream" => Ok(Form::Payload),
        _ => {
            let why = format!("must be JSON, {ENVELOPE} or application/cloudevents+json");
            Err(Refusal::new(Reason::MediaType, FieldError::new("content-type", "media-type", given, why)))
        }
    }
}

/// The payload of the event, and what the topic says of it.
fn plain<'m>(message: &'m Message, text: &'m str, taken: &[Taken<'_>]) -> Result<Candidate<'m>, Refusal> {
    let payload = json(text.trim())?;
    let taken = chosen(message, taken)?;
    let mut errors = Vec::new();
    let event_time = message.property("event-time").and_then(|text| time("/event_time", text, &mut errors));
    let schema_version = message.property("schema-version").and_then(|text| version(text, &mut errors));
    if !errors.is_empty() {
        return Err(Refusal::invalid(errors));
    }
    Ok(Candidate {
        event_type: Cow::Owned(taken.route.event_type.clone()),
        aggregate_id: Cow::Owned(taken.aggregate_id.clone()),
        payload: Cow::Borrowed(payload),
        event_time,
        trace_id: message.property("trace-id").map(Cow::Borrowed),
        schema_version,
        ..Candidate::default()
    })
}

/// The event type: that of the filter that says most, unless the message names another that takes its topic.
fn chosen<'a, 'r>(message: &Message, taken: &'a [Taken<'r>]) -> Result<&'a Taken<'r>, Refusal> {
    let Some(named) = message.property("event-type") else {
        let [first, rest @ ..] = taken else { return Err(Refusal::invalid(Vec::new())) };
        if rest.iter().any(|other| other.route.filter == first.route.filter) {
            let why = format!(
                "several event types take this topic ({}): name one by the user property event-type",
                names(taken)
            );
            return Err(Refusal::invalid(vec![FieldError::new("topic", "one-type", &message.topic, why)]));
        }
        return Ok(first);
    };
    taken.iter().find(|taken| taken.route.event_type == named).ok_or_else(|| foreign(named, taken))
}

/// A whole event, of a type that takes the topic.
fn among<'m>(candidate: Candidate<'m>, taken: &[Taken<'_>]) -> Result<Candidate<'m>, Refusal> {
    if taken.iter().any(|taken| taken.route.event_type == candidate.event_type) {
        Ok(candidate)
    } else {
        Err(foreign(&candidate.event_type, taken))
    }
}

fn foreign(event_type: &str, taken: &[Taken<'_>]) -> Refusal {
    let why = format!("does not come in by this topic; these do: {}", names(taken));
    Refusal::invalid(vec![FieldError::new("/event_type", "topic", event_type, why)])
}

fn names(taken: &[Taken<'_>]) -> String {
    let mut names: Vec<&str> = taken.iter().map(|taken| taken.route.event_type.as_str()).collect();
    names.dedup();
    names.join(", ")
}

fn binary<'m>(message: &'m Message, text: &'m str) -> Result<Candidate<'m>, Refusal> {
    const ATTRIBUTES: [(&str, &str); 9] = [
        ("specversion", "ce-specversion"),
        ("id", "ce-id"),
        ("source", "ce-source"),
        ("type", "ce-type"),
        ("subject", "ce-subject"),
        ("partitionkey", "ce-partitionkey"),
        ("time", "ce-time"),
        ("dataschema", "ce-dataschema"),
        ("traceparent", "ce-traceparent"),
    ];
    let attributes = ATTRIBUTES.iter().filter_map(|(name, header)| Some((*header, message.property(name)?.as_bytes())));
    cloudevents::binary(attributes, text)
}

fn key(message: &Message) -> Result<GivenKey<'_>, Refusal> {
    message.property("idempotency-key").map_or(Ok(GivenKey::OfEvent), |key| idempotency_key(key).map(GivenKey::Header))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crds::registration::MqttSource;

    use super::*;
    use crate::registry::{Catalog, testing};

    fn routes(declared: &[(&str, &str)]) -> Routes {
        let mut catalog = Catalog::default();
        for (event_type, filter) in declared {
            let mut loaded = testing::event_type(event_type);
            loaded.spec.mqtt = vec![MqttSource { topic_filter: (*filter).to_owned(), aggregate_id: "{1}".to_owned() }];
            catalog.event_types.insert((*event_type).to_owned(), Arc::new(loaded));
        }
        Routes::of(&catalog)
    }

    fn message(payload: &str, properties: &[(&str, &str)]) -> Message {
        Message {
            topic: "devices/d1/reading".to_owned(),
            payload: payload.to_owned().into(),
            properties: properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Message::default()
        }
    }

    fn refusal(message: &Message, routes: &Routes) -> String {
        read(message, routes, 100).expect_err("refused").detail()
    }

    #[test]
    fn the_payload_is_the_events_and_the_topic_names_the_rest() {
        let routes = routes(&[("sensor.reading", "devices/+/reading")]);
        let properties = [
            ("event-time", "2026-01-31T12:00:00Z"),
            ("trace-id", "t"),
            ("schema-version", "2"),
            ("idempotency-key", "k"),
        ];
        let message = message(" 20.5\n", &properties);
        let Read { candidate, key, traceparent } = read(&message, &routes, 100).expect("an event");
        assert_eq!(
            (&*candidate.event_type, &*candidate.aggregate_id, &*candidate.payload),
            ("sensor.reading", "d1", "20.5")
        );
        assert_eq!(candidate.event_time.map(|t| t.to_rfc3339()).as_deref(), Some("2026-01-31T12:00:00+00:00"));
        assert_eq!((candidate.trace_id.as_deref(), candidate.schema_version), (Some("t"), Some(2)));
        assert_eq!((key, traceparent), (GivenKey::Header("k"), None));
    }

    #[test]
    fn a_whole_event_is_read_by_its_content_type() {
        let routes = routes(&[("sensor.reading", "devices/+/reading")]);
        let envelope = r#"{"event_type":"sensor.reading","aggregate_id":"other","payload":1}"#;
        let mut whole = message(envelope, &[]);
        whole.content_type = Some(ENVELOPE.to_owned());
        assert_eq!(read(&whole, &routes, 100).expect("an event").candidate.aggregate_id, "other");
        let by_property = message(envelope, &[("content-type", ENVELOPE)]);
        assert_eq!(read(&by_property, &routes, 100).expect("an event").candidate.aggregate_id, "other");
        let structured =
            r#"{"specversion":"1.0","id":"1","source":"s","type":"sensor.reading","subject":"d2","data":1}"#;
        let structured = message(structured, &[("content-type", "application/cloudevents+json; charset=utf-8")]);
        assert_eq!(read(&structured, &routes, 100).expect("an event").candidate.aggregate_id, "d2");
        let attributes =
            [("specversion", "1.0"), ("id", "1"), ("source", "s"), ("type", "sensor.reading"), ("subject", "d3")];
        let binary = message("{}", &attributes);
        let binary = read(&binary, &routes, 100).expect("an event").candidate;
        assert_eq!((&*binary.aggregate_id, binary.cloud.is_some()), ("d3", true));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_a_way_out() {
        let routes = routes(&[("a", "devices/+/reading"), ("b", "devices/+/reading"), ("c", "devices/#")]);
        let said = |payload: &str, properties: &[(&str, &str)]| refusal(&message(payload, properties), &routes);
        assert_eq!(
            said("1", &[]),
            "topic: several event types take this topic (a, b, c): name one by the user property event-type (got devices/d1/reading)"
        );
        assert_eq!(
            said("1", &[("event-type", "x")]),
            "event_type: does not come in by this topic; these do: a, b, c (got x)"
        );
        assert!(read(&message("1", &[("event-type", "b")]), &routes, 100).is_ok());
        assert!(said("hot", &[]).starts_with("the body: must be JSON"), "{}", said("hot", &[]));
        assert_eq!(said("1", &[("content-type", "image/png")]).split(':').next(), Some("content-type"));
        assert!(said("1", &[("event-type", "a"), ("event-time", "soon")]).contains("RFC 3339"));
        assert_eq!(said(&"1".repeat(101), &[]), "the body: must have at most 100 bytes (got 101)");
        let elsewhere = Message { topic: "elsewhere".to_owned(), ..message("1", &[]) };
        assert!(refusal(&elsewhere, &routes).starts_with("topic: is taken by no event type"));
        let binary = Message { payload: vec![0xff, 0xfe].into(), ..message("", &[]) };
        assert!(refusal(&binary, &routes).contains("must be UTF-8"));
        let foreign = message(r#"{"event_type":"x","aggregate_id":"y","payload":1}"#, &[("content-type", ENVELOPE)]);
        assert_eq!(refusal(&foreign, &routes), "event_type: does not come in by this topic; these do: a, b, c (got x)");
    }
}
