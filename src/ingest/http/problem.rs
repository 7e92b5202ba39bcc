//! A refusal as an answer: `{"error": …}` for every client, with the fields of RFC 9457 beside it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ingest::Instruments;
use crate::ingest::refusal::{FieldError, Refusal};
use crate::operate::http;

/// Why a request is refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// All broken rules in one line.
    pub error: String,
    /// `urn:cornjacket:problem:` and the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// The same as `error`.
    pub detail: String,
    /// The broken rules one by one.
    pub errors: Vec<FieldError>,
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        let detail = refusal.detail();
        Self {
            error: detail.clone(),
            kind: format!("urn:cornjacket:problem:{}", refusal.reason.label()),
            title: refusal.reason.title().to_owned(),
            status: refusal.reason.status(),
            detail,
            errors: refusal.errors.clone(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Instruments::refused(self.reason, 1);
        let status = StatusCode::from_u16(self.reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.reason.retry_after();
        http::problem(status, &Problem::from(&self), retry_after)
    }
}
