//! What a batch is answered.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WARNING};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::event::SCHEMA_WARNING;
use super::problem::Problem;
use crate::ingest::Instruments;
use crate::ingest::refusal::{FieldError, Reason, Refusal};
use crate::operate::http;

/// What became of one event, and the rules it broke that only warn.
pub(super) type Stored = (Result<Uuid, Refusal>, Vec<FieldError>);

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    pub accepted: usize,
    pub refused: usize,
    /// Why, where nothing was accepted: the answer is an error then.
    #[serde(flatten)]
    pub problem: Option<Problem>,
    /// One for each event, in their order.
    pub results: Vec<ItemAnswer>,
}

/// What became of one event of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemAnswer {
    /// From 0.
    pub index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// `accepted` or `refused`.
    pub status: &'static str,
    /// The status code that the event alone would have been answered with.
    pub code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<FieldError>,
}

/// One answer for all: 202, 207 where some are stored, else what the first was refused with.
pub(super) fn answer(results: Vec<Stored>) -> Response {
    let total = results.len();
    let accepted = results.iter().filter(|(result, _)| result.is_ok()).count();
    let first = results.iter().filter_map(|(result, _)| result.as_ref().err()).find(|r| r.reason != Reason::WithBatch);
    let cause = first.filter(|_| accepted == 0).map(|refusal| (refusal.reason, Problem::from(refusal)));
    let warns = results.iter().any(|(_, warnings)| !warnings.is_empty());
    let status = match &cause {
        Some((reason, _)) => StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        None if accepted == total => StatusCode::ACCEPTED,
        None => StatusCode::MULTI_STATUS,
    };
    // Also where others were stored, or were refused for good: some may be taken later.
    let retry_after = results.iter().filter_map(|(result, _)| result.as_ref().err()?.reason.retry_after()).max();
    let results =
        results.into_iter().enumerate().map(|(index, (result, warnings))| item(index, result, warnings)).collect();
    let body = BatchAnswer { accepted, refused: total - accepted, problem: cause.map(|(_, problem)| problem), results };
    let mut response = match body.problem {
        Some(_) => http::problem(status, &body, retry_after),
        None => (status, Json(body)).into_response(),
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if warns {
        response.headers_mut().insert(WARNING, HeaderValue::from_static(SCHEMA_WARNING));
    }
    response
}

fn item(index: usize, result: Result<Uuid, Refusal>, warnings: Vec<FieldError>) -> ItemAnswer {
    match result {
        Ok(event_id) => ItemAnswer {
            index,
            event_id: Some(event_id),
            status: "accepted",
            code: 202,
            error: None,
            errors: Vec::new(),
            warnings,
        },
        Err(refusal) => {
            Instruments::refused(refusal.reason, 1);
            let (error, code) = (Some(refusal.detail()), refusal.reason.status());
            ItemAnswer { index, event_id: None, status: "refused", code, error, errors: refusal.errors, warnings }
        }
    }
}
