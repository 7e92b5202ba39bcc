//! Errors have one form on every port: `{"error": …}` with the fields of RFC 9457 beside it, as `application/problem+json`.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::database::is_outage;

/// Content type of every answer that is an error.
pub const PROBLEM: &str = "application/problem+json";

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

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    pub status: StatusCode,
    /// `urn:cornjacket:problem:` and its name, for programs.
    pub kind: &'static str,
    /// The same for people.
    pub title: &'static str,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<u32>,
}

/// A parameter, or a field of the body.
pub const BAD_PARAMETER: Class =
    Class::new(StatusCode::BAD_REQUEST, "urn:cornjacket:problem:bad-parameter", "bad parameter", None);

const AWAY: Class = Class::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "urn:cornjacket:problem:database-away",
    "the database is away: try again",
    Some(1),
);

const INTERNAL: Class = Class::new(
    StatusCode::INTERNAL_SERVER_ERROR,
    "urn:cornjacket:problem:internal",
    "internal error: see the log",
    None,
);

impl Class {
    pub const fn new(status: StatusCode, kind: &'static str, title: &'static str, retry_after: Option<u32>) -> Self {
        Self { status, kind, title, retry_after }
    }

    /// That of an error of the database. The title says all that a client may know of it.
    pub fn of_database(cause: &sqlx::Error) -> Self {
        let code = cause.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref() {
            Some("57014") => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "urn:cornjacket:problem:too-slow",
                "the query took too long: ask for less, or walk the rows with a cursor (an empty cursor= begins)",
                None,
            ),
            Some("22003") => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "urn:cornjacket:problem:out-of-range",
                "the result is larger than a number may be: ask for a shorter range, or for min and max",
                None,
            ),
            _ if is_outage(cause) => AWAY,
            _ => INTERNAL,
        }
    }

    /// The answer. `detail`: what to do about it, where `error` does not say it.
    pub fn answer(self, error: String, detail: Option<String>) -> Response {
        let detail = detail.unwrap_or_else(|| error.clone());
        let body = Problem { error, kind: self.kind, title: self.title, status: self.status.as_u16(), detail };
        problem(self.status, &body, self.retry_after)
    }
}

/// An answer that is an error. `retry_after`: seconds after which the same request may succeed.
pub fn problem(status: StatusCode, body: &impl Serialize, retry_after: Option<u32>) -> Response {
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
