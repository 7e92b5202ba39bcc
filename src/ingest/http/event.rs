//! `POST /api/v1/events`: one event.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, WARNING};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::batch::{self, Options};
use super::problem::Problem;
use super::receive::{Form, Received, receive};
use crate::ingest::accept::{Admitted, Circumstances, GivenKey, admit};
use crate::ingest::envelope::{self, Candidate};
use crate::ingest::refusal::{FieldError, Reason, Refusal};
use crate::ingest::{Ingest, cloudevents};
use crate::outbox::{Accepted, RefusedBy};

/// An event. Other members are ignored; of several with one name the last counts.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the request; it is read by hand, so that every wrong field can be named")]
pub struct NewEvent {
    /// 1 to 255 characters, no spaces, no control characters: `^[^\s\p{Cc}]{1,255}$`.
    #[schema(example = "sensor.reading", min_length = 1, max_length = 255)]
    event_type: String,
    /// What the event is about; the events of one aggregate keep their order. 1 to 255 characters, no control
    /// characters.
    #[schema(example = "device-001", min_length = 1, max_length = 255)]
    aggregate_id: String,
    /// Any JSON but null, nested at most 64 deep; what the event type's schema asks for.
    #[schema(example = json!({"value": 72.5, "unit": "fahrenheit"}))]
    payload: Value,
    /// When it happened; default: now. At most 5 minutes ahead.
    #[schema(format = DateTime)]
    event_time: Option<String>,
    /// The caller's own trace id, at most 255 characters.
    trace_id: Option<String>,
    /// The version of the payload's schema; default: the newest that is not deprecated.
    schema_version: Option<i32>,
}

/// The event is stored.
#[derive(Serialize, ToSchema)]
pub struct EventAccepted {
    /// UUID v7.
    pub event_id: Uuid,
    #[schema(example = "accepted")]
    pub status: &'static str,
    /// Rules of the payload's schema that are broken, where the event type only warns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<FieldError>,
}

/// Store an event
///
/// Answered after the event is committed. Also takes CloudEvents 1.0: structured (`application/cloudevents+json`),
/// binary (`ce-` header fields) and batched (`application/cloudevents-batch+json`, answered as a batch).
#[utoipa::path(
    post, path = "/api/v1/events", tag = "ingest", request_body = NewEvent,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "1 to 255 visible ASCII characters: within 24 h the same event under the same key is stored once")),
    responses(
        (status = 202, description = "stored", body = EventAccepted),
        (status = 400, description = "the event breaks a rule", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "the body took too long to arrive", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "the body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "content type or encoding", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "the idempotency key was used for another event", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "the queue is full; see Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 431, description = "too many header fields", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "the database is away; see Retry-After", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn post(State(ingest): State<Arc<Ingest>>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let limits = &ingest.limits;
    let max = |form| if form == Form::CloudEvents { limits.batch_bytes } else { limits.event_bytes };
    let forms = [Form::Json, Form::CloudEvent, Form::Binary, Form::CloudEvents];
    let options = Options::read(request.uri().query());
    let answered = match receive(request, &ingest, max, &forms).await {
        Ok(received) if received.form == Form::CloudEvents => match options {
            Ok(options) => batch::store(&ingest, &received, options).await,
            Err(refusal) => Err(refusal),
        },
        Ok(received) => store(&ingest, &received).await,
        Err(refusal) => Err(refusal),
    };
    ingest.instruments.ack_seconds.record(started.elapsed());
    answered.unwrap_or_else(IntoResponse::into_response)
}

async fn store(ingest: &Ingest, received: &Received) -> Result<Response, Refusal> {
    let Admitted { entry, warnings } = admitted(ingest, received)?;
    let outcome = ingest.outbox.accept(vec![entry]).await.pop();
    let accepted = outcome.unwrap_or_else(|| Err(RefusedBy::Unavailable("no answer".to_owned())))?;
    ingest.count(accepted);
    Ok(answer(accepted, warnings))
}

fn admitted(ingest: &Ingest, received: &Received) -> Result<Admitted, Refusal> {
    let text = received.text()?;
    let key = received.idempotency_key()?.map_or(GivenKey::OfEvent, GivenKey::Header);
    admitted_now(ingest, received, &candidate(received, text)?, key)
}

/// Admits a candidate of a request: it gets its id and its time of acceptance.
pub(super) fn admitted_now(
    ingest: &Ingest,
    received: &Received,
    candidate: &Candidate<'_>,
    key: GivenKey<'_>,
) -> Result<Admitted, Refusal> {
    let now = ingest.clock.now();
    let event_id = ingest.ids.next(now);
    let catalog = ingest.catalog();
    if !catalog.loaded {
        let error = FieldError::new("", "registrations", "", "what is declared is being loaded");
        return Err(Refusal::new(Reason::Unavailable, error));
    }
    let known =
        Circumstances { event_id, now, key, traceparent: received.traceparent(), transport: "http", mqtt: None };
    admit(candidate, &catalog, ingest.rules, known)
}

fn candidate<'a>(received: &'a Received, text: &'a str) -> Result<Candidate<'a>, Refusal> {
    match received.form {
        Form::CloudEvent => cloudevents::structured(text),
        Form::Binary => cloudevents::binary(fields(&received.headers), text),
        _ => envelope::read(text),
    }
}

fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

fn answer(accepted: Accepted, warnings: Vec<FieldError>) -> Response {
    let event_id = accepted.event_id;
    if warnings.is_empty() {
        let body = format!(r#"{{"event_id":"{event_id}","status":"accepted"}}"#);
        return (StatusCode::ACCEPTED, [(CONTENT_TYPE, "application/json")], body).into_response();
    }
    let body = EventAccepted { event_id, status: "accepted", warnings };
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    response.headers_mut().insert(WARNING, HeaderValue::from_static(SCHEMA_WARNING));
    response
}

/// The header `Warning` of an event that its type lets pass.
pub(super) const SCHEMA_WARNING: &str = r#"299 - "the payload breaks its schema""#;
