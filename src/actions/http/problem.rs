//! Refusals as clients get them.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

use crate::actions::state::StateError;
use crate::database::is_outage;
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

/// As [`Problem`], before it is told.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    #[error("no action '{action}' is registered{}", meant.as_ref().map_or_else(|| ": GET /api/v1/actions lists those that are".to_owned(), |m| format!("; did you mean {m}?")))]
    NoAction { action: String, meant: Option<String> },
    #[error("no delivery has the id {0}: it may have been forgotten, they are kept for a while only")]
    NoDelivery(String),
    #[error("{0}")]
    Bad(String),
    #[error("the database is away: try again")]
    Database(#[from] sqlx::Error),
    #[error("the state that deliveries share is away: try again")]
    State(#[from] StateError),
}

/// A text that a column could have.
pub fn storable(field: &str, text: String) -> Result<String, ActionError> {
    if text.contains('\0') {
        return Err(ActionError::Bad(format!("{field}: must not contain the character U+0000")));
    }
    Ok(text)
}

impl From<QueryRejection> for ActionError {
    fn from(rejection: QueryRejection) -> Self {
        Self::Bad(rejection.body_text())
    }
}

impl From<JsonRejection> for ActionError {
    fn from(rejection: JsonRejection) -> Self {
        Self::Bad(rejection.body_text())
    }
}

impl IntoResponse for ActionError {
    fn into_response(self) -> Response {
        let (status, kind, title, retry_after) = match &self {
            Self::NoAction { .. } => {
                (StatusCode::NOT_FOUND, "urn:cornjacket:problem:unknown-action", "no such action", None)
            }
            Self::NoDelivery(_) => {
                (StatusCode::NOT_FOUND, "urn:cornjacket:problem:unknown-delivery", "no such delivery", None)
            }
            Self::Bad(_) => (StatusCode::BAD_REQUEST, "urn:cornjacket:problem:bad-parameter", "bad parameter", None),
            Self::Database(cause) if !is_outage(cause) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "urn:cornjacket:problem:internal", "internal error", None)
            }
            Self::Database(_) | Self::State(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "urn:cornjacket:problem:database-away", "try again", Some(1))
            }
        };
        if status.is_server_error() {
            error!(cause = %crds::cause::Chain(&self), status = status.as_u16(), "request failed");
        }
        let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
            "internal error: see the log".to_owned()
        } else {
            self.to_string()
        };
        let problem = Problem { detail: message.clone(), error: message, kind, title, status: status.as_u16() };
        http::problem(status, &problem, retry_after)
    }
}
