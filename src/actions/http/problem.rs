//! Refusals as clients get them.

use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tracing::error;

use crate::actions::state::StateError;
use crate::operate::http::{BAD_PARAMETER, Class};

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    #[error("no action '{action}' is registered{}", meant.as_ref().map_or_else(|| ": GET /api/v1/actions lists those that are".to_owned(), |m| format!("; did you mean {m}?")))]
    NoAction { action: String, meant: Option<String> },
    #[error("no delivery has the id {0}: it may have been forgotten, they are kept for a while only")]
    NoDelivery(String),
    #[error("{0}")]
    Bad(String),
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    #[error("the state that deliveries share is away: try again")]
    State(#[from] StateError),
}

const STATE_AWAY: Class =
    Class::new(StatusCode::SERVICE_UNAVAILABLE, "urn:cornjacket:problem:state-away", "try again", Some(1));

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

impl IntoResponse for ActionError {
    fn into_response(self) -> Response {
        let class = match &self {
            Self::NoAction { .. } => {
                Class::new(StatusCode::NOT_FOUND, "urn:cornjacket:problem:unknown-action", "no such action", None)
            }
            Self::NoDelivery(_) => {
                Class::new(StatusCode::NOT_FOUND, "urn:cornjacket:problem:unknown-delivery", "no such delivery", None)
            }
            Self::Bad(_) => BAD_PARAMETER,
            Self::Database(cause) => Class::of_database(cause),
            Self::State(_) => STATE_AWAY,
        };
        if class.status.is_server_error() {
            error!(cause = %crds::cause::Chain(&self), status = class.status.as_u16(), "request failed");
        }
        let message = if matches!(self, Self::Database(_)) { class.title.to_owned() } else { self.to_string() };
        class.answer(message, None)
    }
}
