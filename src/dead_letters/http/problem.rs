//! Refusals as clients get them: `{"error": …}` as everywhere, with the fields of RFC 9457 beside it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tracing::error;
use uuid::Uuid;

use crate::dead_letters::BadFilter;
use crate::operate::http::{BAD_PARAMETER, Class};

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    #[error("{0}")]
    Bad(String),
    #[error("no dead letter has the id {0} here")]
    NotFound(Uuid),
    #[error("the dead letter {0} is {1} already: {2}")]
    Resolved(Uuid, String, &'static str),
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
}

impl From<BadFilter> for LetterError {
    fn from(bad: BadFilter) -> Self {
        Self::Bad(bad.to_string())
    }
}

impl IntoResponse for LetterError {
    fn into_response(self) -> Response {
        let class = match &self {
            Self::Bad(_) => BAD_PARAMETER,
            Self::NotFound(_) => Class::new(
                StatusCode::NOT_FOUND,
                "urn:cornjacket:problem:dead-letter-not-found",
                "no such dead letter",
                None,
            ),
            Self::Resolved(..) => Class::new(
                StatusCode::CONFLICT,
                "urn:cornjacket:problem:dead-letter-resolved",
                "nothing left to do",
                None,
            ),
            Self::Database(cause) => Class::of_database(cause),
        };
        let mut message = self.to_string();
        if let Self::Database(cause) = &self {
            error!(%cause, status = class.status.as_u16(), "dead letters cannot be read");
            class.title.clone_into(&mut message);
        }
        class.answer(message, None)
    }
}
