//! Refusals as clients get them: `{"error": …}` as ever, with the fields of RFC 9457 beside it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

use crate::operate::http;
use crate::query::{QueryError, cut};

/// Why a request was not answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// What is wrong, in one sentence.
    pub error: String,
    /// Names the kind of problem, for programs.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The same for people.
    pub title: &'static str,
    pub status: u16,
    /// As `error`, where that says what to do about it; else this does.
    pub detail: String,
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let (status, kind, title, retry_after) = classify(&self);
        let mut message = self.to_string();
        if let Self::Database(cause) = &self {
            error!(%cause, status = status.as_u16(), "query failed");
            title.clone_into(&mut message);
        }
        let detail = detail(&self).unwrap_or_else(|| message.clone());
        let problem = Problem { error: message, detail, kind, title, status: status.as_u16() };
        http::problem(status, &problem, retry_after)
    }
}

/// What to do about an error whose text is fixed by the contract.
fn detail(error: &QueryError) -> Option<String> {
    match error {
        QueryError::NoRow { projection_type, aggregate_id } => Some(format!(
            "{projection_type} has no row '{}': no event has made one, or one that was accepted is not folded yet; \
             after_event=<its event_id> waits for it",
            cut(aggregate_id)
        )),
        QueryError::NoProjection { projection_type, meant } => {
            let hint = meant.as_ref().map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            Some(format!(
                "no projection of the type '{}' is declared: GET /api/v1/projections lists those that are{hint}",
                cut(projection_type)
            ))
        }
        QueryError::IsSeries { name } => {
            Some(format!("'{}' is a time series and keeps no state: GET /api/v1/timeseries/{0}", cut(name)))
        }
        QueryError::NoSeries { name, meant } => {
            let hint = meant.as_ref().map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            Some(format!(
                "no time series '{}' is declared: GET /api/v1/timeseries lists those that are{hint}",
                cut(name)
            ))
        }
        _ => None,
    }
}

type Class = (StatusCode, &'static str, &'static str, Option<u32>);

fn classify(error: &QueryError) -> Class {
    match error {
        QueryError::NoRow { .. } => {
            (StatusCode::NOT_FOUND, "urn:cornjacket:problem:projection-not-found", "no such row", None)
        }
        QueryError::NoProjection { .. } | QueryError::IsSeries { .. } => {
            (StatusCode::NOT_FOUND, "urn:cornjacket:problem:unknown-projection", "no such projection", None)
        }
        QueryError::NoSeries { .. } => {
            (StatusCode::NOT_FOUND, "urn:cornjacket:problem:unknown-timeseries", "no such time series", None)
        }
        QueryError::SeriesPending => {
            (StatusCode::SERVICE_UNAVAILABLE, "urn:cornjacket:problem:timeseries-pending", "not made yet", Some(2))
        }
        QueryError::NotAcceptable(_) => {
            (StatusCode::NOT_ACCEPTABLE, "urn:cornjacket:problem:not-acceptable", "no such format", None)
        }
        QueryError::Stopping => {
            (StatusCode::SERVICE_UNAVAILABLE, "urn:cornjacket:problem:stopping", "the service stops", Some(1))
        }
        QueryError::EventNotFound | QueryError::UnknownEvent(_) => {
            (StatusCode::NOT_FOUND, "urn:cornjacket:problem:event-not-found", "event not found", None)
        }
        QueryError::EventNotStored(_) => {
            (StatusCode::NOT_FOUND, "urn:cornjacket:problem:event-not-stored", "event not stored yet", Some(1))
        }
        QueryError::NotPassed { .. } => (
            StatusCode::GATEWAY_TIMEOUT,
            "urn:cornjacket:problem:not-passed",
            "projection has not passed the event",
            Some(1),
        ),
        QueryError::Parameter { .. } | QueryError::BadEventId(_) => {
            (StatusCode::BAD_REQUEST, "urn:cornjacket:problem:bad-parameter", "bad parameter", None)
        }
        QueryError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "urn:cornjacket:problem:busy", "busy", Some(5)),
        QueryError::Standby => {
            (StatusCode::NOT_IMPLEMENTED, "urn:cornjacket:problem:standby", "not on a standby", None)
        }
        QueryError::Database(cause) => database(cause),
    }
}

fn database(cause: &sqlx::Error) -> Class {
    let code = cause.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match (cause, code.as_deref()) {
        (_, Some("57014")) => (
            StatusCode::GATEWAY_TIMEOUT,
            "urn:cornjacket:problem:too-slow",
            "the query took too long: ask for less, or walk the rows with a cursor (an empty cursor= begins)",
            None,
        ),
        (_, Some("22003")) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "urn:cornjacket:problem:out-of-range",
            "the result is larger than a number may be: ask for a shorter range, or for min and max",
            None,
        ),
        // Shutdown, crash, start-up, too many connections, a standby that needs what was being read.
        (_, Some(code)) if code.starts_with("57P") || code.starts_with("08") || ["53300", "40001"].contains(&code) => {
            AWAY
        }
        (_, Some(_)) | (sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }, None) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "urn:cornjacket:problem:internal", "internal error: see the log", None)
        }
        _ => AWAY,
    }
}

const AWAY: Class = (
    StatusCode::SERVICE_UNAVAILABLE,
    "urn:cornjacket:problem:database-away",
    "the database is away: try again",
    Some(1),
);
