//! Refusals as clients get them: `{"error": …}` as ever, with the fields of RFC 9457 beside it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tracing::error;

use crate::operate::http::{BAD_PARAMETER, Class};
use crate::query::{QueryError, cut};

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let class = classify(&self);
        let mut message = self.to_string();
        if let Self::Database(cause) = &self {
            error!(%cause, status = class.status.as_u16(), "query failed");
            class.title.clone_into(&mut message);
        }
        class.answer(message, detail(&self))
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

fn classify(error: &QueryError) -> Class {
    match error {
        QueryError::NoRow { .. } => {
            Class::new(StatusCode::NOT_FOUND, "urn:cornjacket:problem:projection-not-found", "no such row", None)
        }
        QueryError::NoProjection { .. } | QueryError::IsSeries { .. } => {
            Class::new(StatusCode::NOT_FOUND, "urn:cornjacket:problem:unknown-projection", "no such projection", None)
        }
        QueryError::NoSeries { .. } => {
            Class::new(StatusCode::NOT_FOUND, "urn:cornjacket:problem:unknown-timeseries", "no such time series", None)
        }
        QueryError::SeriesPending => Class::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:cornjacket:problem:timeseries-pending",
            "not made yet",
            Some(2),
        ),
        QueryError::NotAcceptable(_) => {
            Class::new(StatusCode::NOT_ACCEPTABLE, "urn:cornjacket:problem:not-acceptable", "no such format", None)
        }
        QueryError::Stopping => {
            Class::new(StatusCode::SERVICE_UNAVAILABLE, "urn:cornjacket:problem:stopping", "the service stops", Some(1))
        }
        QueryError::EventNotFound | QueryError::UnknownEvent(_) => {
            Class::new(StatusCode::NOT_FOUND, "urn:cornjacket:problem:event-not-found", "event not found", None)
        }
        QueryError::EventNotStored(_) => Class::new(
            StatusCode::NOT_FOUND,
            "urn:cornjacket:problem:event-not-stored",
            "event not stored yet",
            Some(1),
        ),
        QueryError::NotPassed { .. } => Class::new(
            StatusCode::GATEWAY_TIMEOUT,
            "urn:cornjacket:problem:not-passed",
            "projection has not passed the event",
            Some(1),
        ),
        QueryError::Parameter { .. } | QueryError::BadEventId(_) => BAD_PARAMETER,
        QueryError::Busy { .. } => {
            Class::new(StatusCode::SERVICE_UNAVAILABLE, "urn:cornjacket:problem:busy", "busy", Some(5))
        }
        QueryError::Standby => {
            Class::new(StatusCode::NOT_IMPLEMENTED, "urn:cornjacket:problem:standby", "not on a standby", None)
        }
        QueryError::Database(cause) => Class::of_database(cause),
    }
}
