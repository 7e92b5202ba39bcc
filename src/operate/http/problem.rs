//! Errors have one form on every port: `{"error": …}` with the fields of RFC 9457 beside it, as `application/problem+json`.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Content type of every answer that is an error.
pub const PROBLEM: &str = "application/problem+json";

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
