//! CloudEvents 1.0: structured and binary mode, read into the same [`Candidate`] as our own form.
//!
//! `type` is the event type; `subject`, else the extension `partitionkey`, is the aggregate; `time` is the event time;
//! `source` and `id` make the idempotency key; a `dataschema` that ends in a number names the schema version (others
//! are ignored). No data is the empty object. Data must be JSON: `data_base64` is refused.

use std::borrow::Cow;
use std::str;

use percent_encoding::percent_decode_str;

use super::envelope::{Candidate, CloudIdentity, time};
use super::json::{Object, required};
use super::refusal::{FieldError, Refusal};
use super::text::json;

/// Payload of an event that has no data.
const NO_DATA: &str = "{}";

/// The attributes that matter here, each as text.
#[derive(Default)]
struct Attributes<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    partitionkey: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    dataschema: Option<Cow<'a, str>>,
    traceparent: Option<Cow<'a, str>>,
}

/// Reads an event in structured mode (`application/cloudevents+json`).
///
/// # Errors
/// The text is no CloudEvent, or one that cannot become an event.
pub fn structured(text: &str) -> Result<Candidate<'_>, Refusal> {
    let object = Object::parse(text)?;
    let mut errors = Vec::new();
    let mut get = |name| object.string(name, &mut errors);
    let attributes = Attributes {
        specversion: get("specversion"),
        id: get("id"),
        source: get("source"),
        event_type: get("type"),
        subject: get("subject"),
        partitionkey: get("partitionkey"),
        time: get("time"),
        dataschema: get("dataschema"),
        traceparent: get("traceparent"),
    };
    let content_type = get("datacontenttype");
    if let Some(content_type) = content_type.filter(|c| !is_json(c)) {
        errors.push(FieldError::new("/datacontenttype", "json", &content_type, "must be a JSON media type"));
    }
    if let Some(data) = object.get("data_base64") {
        errors.push(FieldError::new("/data_base64", "json", data, "binary data is not taken: send JSON in `data`"));
    }
    let data = object.get("data").unwrap_or(NO_DATA);
    candidate(attributes, Cow::Borrowed(data), "/", errors)
}

/// Reads an event in binary mode: attributes in `ce-` header fields, the data in the body. `headers` are their names
/// in lower case and their values.
///
/// # Errors
/// As for [`structured`]; the body is no JSON.
pub fn binary<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, body: &'a str) -> Result<Candidate<'a>, Refusal> {
    let mut errors = Vec::new();
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        let slot = match name {
            "ce-specversion" => &mut attributes.specversion,
            "ce-id" => &mut attributes.id,
            "ce-source" => &mut attributes.source,
            "ce-type" => &mut attributes.event_type,
            "ce-subject" => &mut attributes.subject,
            "ce-partitionkey" => &mut attributes.partitionkey,
            "ce-time" => &mut attributes.time,
            "ce-dataschema" => &mut attributes.dataschema,
            "ce-traceparent" => &mut attributes.traceparent,
            _ => continue,
        };
        match decode(value) {
            Ok(text) => *slot = Some(text),
            Err(error) => errors.push(FieldError { pointer: name.to_owned(), ..error }),
        }
    }
    let body = body.trim();
    let data = if body.is_empty() { NO_DATA } else { body };
    candidate(attributes, Cow::Borrowed(json(data)?), "ce-", errors)
}

/// A header value: percent-encoded UTF-8, perhaps in quotes.
fn decode(value: &[u8]) -> Result<Cow<'_, str>, FieldError> {
    let wrong = || {
        let shown = String::from_utf8_lossy(value);
        FieldError::new("", "percent-encoding", &shown, "must be percent-encoded UTF-8")
    };
    let text = str::from_utf8(value).map_err(|_| wrong())?;
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    percent_decode_str(text).decode_utf8().map_err(|_| wrong())
}

fn candidate<'a>(
    attributes: Attributes<'a>,
    payload: Cow<'a, str>,
    prefix: &str,
    mut errors: Vec<FieldError>,
) -> Result<Candidate<'a>, Refusal> {
    let at = |name: &str| format!("{prefix}{name}");
    let mut need = |name: &str, value: Option<Cow<'a, str>>| match value {
        Some(value) if !value.is_empty() => value,
        _ => {
            if !errors.iter().any(|e| e.pointer == at(name)) {
                errors.push(FieldError { pointer: at(name), ..required(name) });
            }
            Cow::Borrowed("")
        }
    };
    let version = need("specversion", attributes.specversion);
    let id = need("id", attributes.id);
    let source = need("source", attributes.source);
    let event_type = need("type", attributes.event_type);
    let aggregate_id = need("subject", attributes.subject.or(attributes.partitionkey));
    if !matches!(version.as_ref(), "1.0" | "") {
        errors.push(FieldError::new(at("specversion"), "specversion", &version, "must be 1.0"));
    }
    for (name, value) in [("id", &id), ("source", &source)] {
        if value.chars().any(char::is_control) {
            errors.push(FieldError::new(at(name), "characters", value, "must hold no control characters"));
        }
    }
    if source.contains(char::is_whitespace) {
        errors.push(FieldError::new(at("source"), "uri-reference", &source, "must be a URI reference, without spaces"));
    }
    let event_time = attributes.time.and_then(|text| time(&at("time"), &text, &mut errors));
    if !errors.is_empty() {
        return Err(Refusal::invalid(errors));
    }
    Ok(Candidate {
        event_type,
        aggregate_id,
        payload,
        event_time,
        trace_id: None,
        schema_version: attributes.dataschema.as_deref().and_then(schema_version),
        traceparent: attributes.traceparent.filter(|text| super::is_traceparent(text)),
        cloud: Some(CloudIdentity { source, id }),
    })
}

/// The number at the end of a `dataschema`: 2 of `https://example.com/schemas/reading/v2` or `urn:reading:2`.
fn schema_version(uri: &str) -> Option<i32> {
    let last = uri.rsplit(['/', ':', '#', '=']).next()?;
    last.strip_prefix(['v', 'V']).unwrap_or(last).parse().ok().filter(|v| *v > 0)
}

/// `application/json`, `text/json` and `*/*+json`, whatever the parameters.
pub(super) fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/json") || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structured_mode_is_read() {
        let event = structured(
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"sensor.reading","subject":"d1","data":{"value":1},
                "time":"2026-01-31T12:00:00Z","dataschema":"https://x/reading/v2","extension":7}"#,
        )
        .expect("is read");
        assert_eq!((event.event_type.as_ref(), event.aggregate_id.as_ref()), ("sensor.reading", "d1"));
        assert_eq!((event.payload.as_ref(), event.schema_version), (r#"{"value":1}"#, Some(2)));
        assert_eq!(event.cloud, Some(CloudIdentity { source: "/s".into(), id: "1".into() }));
    }

    #[test]
    fn binary_mode_is_decoded() {
        let headers: [(&str, &[u8]); 6] = [
            ("ce-specversion", b"1.0"),
            ("ce-id", b"a%20b"),
            ("ce-source", b"/s"),
            ("ce-type", b"t"),
            ("ce-partitionkey", "d%C3%BC".as_bytes()),
            ("content-type", b"application/json"),
        ];
        let event = binary(headers.into_iter(), "").expect("is read");
        assert_eq!((event.aggregate_id.as_ref(), event.payload.as_ref()), ("dü", "{}"));
        assert_eq!(event.cloud.expect("a CloudEvent").id, "a b");
    }

    #[test]
    fn every_missing_or_wrong_attribute_is_named() {
        let refusal =
            structured(r#"{"specversion":"0.3","id":"","source":"a b","data_base64":"AA=="}"#).expect_err("wrong");
        let named: Vec<_> = refusal.errors.iter().map(|e| (e.pointer.as_str(), e.rule.as_str())).collect();
        assert_eq!(
            named,
            [
                ("/data_base64", "json"),
                ("/id", "required"),
                ("/type", "required"),
                ("/subject", "required"),
                ("/specversion", "specversion"),
                ("/source", "uri-reference")
            ]
        );
        let headers: [(&str, &[u8]); 1] = [("ce-id", b"%FF")];
        let refusal = binary(headers.into_iter(), "1").expect_err("wrong");
        assert_eq!(
            (refusal.errors[0].pointer.as_str(), refusal.errors[0].rule.as_str()),
            ("ce-id", "percent-encoding")
        );
    }
}
