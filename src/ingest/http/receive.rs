//! Takes a request in: bounds first, then the body, then what it says it is.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Request};
use futures::StreamExt;

use super::bodies::{Bodies, Held};
use crate::ingest::cloudevents::is_json;
use crate::ingest::refusal::{FieldError, Reason, Refusal};
use crate::ingest::text::{idempotency_key, utf8};
use crate::ingest::{Ingest, Limits, is_traceparent};

/// Of a body that is too large, this much more is read and dropped, so that its sender sees the answer.
const DISCARDED_BYTES: usize = 16 << 20;

/// What a body holds, from its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Our own form.
    Json,
    /// Our own form, an event a line.
    Lines,
    CloudEvent,
    CloudEvents,
    /// A CloudEvent whose attributes are in the header.
    Binary,
}

/// A request that is within bounds.
pub struct Received {
    pub headers: HeaderMap,
    pub form: Form,
    body: Bytes,
    _held: Held,
}

impl Received {
    /// The body as text.
    pub fn text(&self) -> Result<&str, Refusal> {
        utf8(&self.body)
    }

    /// The trace that the request belongs to.
    pub fn traceparent(&self) -> Option<&str> {
        self.headers.get("traceparent")?.to_str().ok().filter(|text| is_traceparent(text))
    }

    /// The header `Idempotency-Key`.
    pub fn idempotency_key(&self) -> Result<Option<&str>, Refusal> {
        let Some(value) = self.headers.get("idempotency-key") else { return Ok(None) };
        match value.to_str() {
            Ok(key) => idempotency_key(key).map(Some),
            // It is refused, and shown.
            Err(_) => idempotency_key(&String::from_utf8_lossy(value.as_bytes())).map(|_| None),
        }
    }
}

/// Reads a request whose body may have `max_bytes`, and any of the `forms`.
pub async fn receive(
    request: Request<Body>,
    ingest: &Ingest,
    max_bytes: impl Fn(Form) -> usize,
    forms: &[Form],
) -> Result<Received, Refusal> {
    let (parts, body) = request.into_parts();
    let limits = &ingest.limits;
    check_header(&parts.headers, limits)?;
    let form = form(&parts.headers)?;
    if !forms.contains(&form) {
        let message = match form {
            Form::Lines => "goes to /api/v1/events/batch",
            _ => "holds one event and goes to /api/v1/events",
        };
        return Err(media_type("content-type", value(&parts.headers, CONTENT_TYPE.as_str()), message));
    }
    let mut held = Held::default();
    let body = Incoming { body, max: max_bytes(form), bodies: &ingest.bodies, held: &mut held };
    let body = body.read(&parts.headers, limits.request_time).await?;
    Ok(Received { headers: parts.headers, form, body, _held: held })
}

fn check_header(headers: &HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    let refuse = |rule, value: usize, message| {
        Err(Refusal::new(Reason::Headers, FieldError::new("header", rule, &value.to_string(), message)))
    };
    if headers.len() > limits.header_fields {
        return refuse("max-fields", headers.len(), format!("must have at most {} fields", limits.header_fields));
    }
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if bytes > limits.header_bytes {
        return refuse("max-bytes", bytes, format!("must have at most {} bytes", limits.header_bytes));
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            let shown = String::from_utf8_lossy(encoding.as_bytes());
            Err(media_type("content-encoding", &shown, "compressed bodies are not taken"))
        }
        _ => Ok(()),
    }
}

fn media_type(field: &str, value: &str, message: &str) -> Refusal {
    Refusal::new(Reason::MediaType, FieldError::new(field, "media-type", value, message))
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// What the body holds. A body without a content type is taken as JSON.
fn form(headers: &HeaderMap) -> Result<Form, Refusal> {
    let content_type = match headers.get(CONTENT_TYPE) {
        None => "application/json",
        Some(given) => given.to_str().unwrap_or("?"),
    };
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.filter_map(|p| p.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("charset"));
    if charset.is_some_and(|(_, set)| !set.trim_matches('"').eq_ignore_ascii_case("utf-8")) {
        return Err(media_type("content-type", content_type, "the charset must be utf-8"));
    }
    match essence.as_str() {
        "application/cloudevents+json" => Ok(Form::CloudEvent),
        "application/cloudevents-batch+json" => Ok(Form::CloudEvents),
        other if headers.contains_key("ce-specversion") && is_json(other) => Ok(Form::Binary),
        "application/json" => Ok(Form::Json),
        "application/x-ndjson" | "application/ndjson" => Ok(Form::Lines),
        _ => Err(media_type(
            "content-type",
            content_type,
            "must be application/json, application/x-ndjson (batches), application/cloudevents+json or \
             application/cloudevents-batch+json",
        )),
    }
}

/// A body on its way in.
struct Incoming<'a> {
    body: Body,
    max: usize,
    bodies: &'a Bodies,
    held: &'a mut Held,
}

impl Incoming<'_> {
    async fn read(self, headers: &HeaderMap, within: Duration) -> Result<Bytes, Refusal> {
        let announced = value(headers, CONTENT_LENGTH.as_str()).parse().unwrap_or(0_usize);
        tokio::time::timeout(within, self.collect(announced)).await.unwrap_or_else(|_| {
            let message = format!("must arrive within {} s", within.as_secs());
            Err(Refusal::new(Reason::Timeout, FieldError::new("", "max-time", "", message)))
        })
    }

    async fn collect(self, announced: usize) -> Result<Bytes, Refusal> {
        let Self { body, max, bodies, held } = self;
        let mut frames = body.into_data_stream();
        let mut whole: Vec<u8> = Vec::new();
        let mut only: Option<Bytes> = None;
        let (mut total, mut crowded) = (0, false);
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|e| {
                Refusal::new(Reason::Malformed, FieldError::new("", "body", "", format!("did not arrive whole: {e}")))
            })?;
            total += frame.len();
            if total > max {
                if announced.max(total) > max + DISCARDED_BYTES {
                    break;
                }
                continue;
            }
            // The rest is read and dropped, so that its sender sees the answer.
            if crowded || !bodies.take(held, frame.len()) {
                (crowded, whole, only, *held) = (true, Vec::new(), None, Held::default());
                continue;
            }
            match (&mut only, whole.is_empty()) {
                (None, true) => only = Some(frame),
                (first, _) => {
                    whole.reserve(announced.clamp(total, max).saturating_sub(whole.len()));
                    whole.extend_from_slice(&first.take().unwrap_or_default());
                    whole.extend_from_slice(&frame);
                }
            }
        }
        if total > max {
            let shown = format!("{} bytes", announced.max(total));
            let message = format!("must have at most {max} bytes");
            return Err(Refusal::new(Reason::TooLarge, FieldError::new("", "max-bytes", &shown, message)));
        }
        if crowded {
            return Err(no_room());
        }
        Ok(only.unwrap_or_else(|| whole.into()))
    }
}

fn no_room() -> Refusal {
    let message = "too many bytes of requests are being taken in: send it again a little later";
    Refusal::new(Reason::QueueFull, FieldError::new("", "bodies", "", message))
}
