//! Refusals as clients get them: `{"error": …}` as everywhere, with the fields of RFC 9457 beside it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::dead_letters::BadFilter;
use crate::operate::http;

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
    /// As `error`.
    pub detail: String,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    #[error("{0}")]
    Bad(String),
    #[error("no dead letter has the id {0} here")]
    NotFound(Uuid),
    #[error("the dead letter {0} is {1} already: {2}")]
    Resolved(Uuid, String, &'static str),
    #[error("the database is away: try again")]
    Database(#[from] sqlx::Error),
}

impl From<BadFilter> for LetterError {
    fn from(bad: BadFilter) -> Self {
        Self::Bad(bad.to_string())
    }
}

impl IntoResponse for LetterError {
    fn into_response(self) -> Response {
        let (status, kind, title, retry_after) = match &self {
            Self::Bad(_) => (StatusCode::BAD_REQUEST, "urn:cornjacket:problem:bad-parameter", "bad parameter", None),
            Self::NotFound(_) => {
                (StatusCode::NOT_FOUND, "urn:cornjacket:problem:dead-letter-not-found", "no such dead letter", None)
            }
            Self::Resolved(..) => {
                (StatusCode::CONFLICT, "urn:cornjacket:problem:dead-letter-resolved", "nothing left to do", None)
            }
            Self::Database(cause) => {
                error!(%cause, "dead letters cannot be read");
                let title = "the database is away: try again";
                (StatusCode::SERVICE_UNAVAILABLE, "urn:cornjacket:problem:database-away", title, Some(1))
            }
        };
        let error = self.to_string();
        let problem = Problem { detail: error.clone(), error, kind, title, status: status.as_u16() };
        http::problem(status, &problem, retry_after)
    }
}
