//! The HTTP face of ingest: requests in, answers out. Decisions are made in the files beside this folder.

mod batch;
mod batch_answer;
mod bodies;
mod event;
mod event_types;
mod openapi;
mod problem;
mod receive;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::Ingest;
use crate::operate::http::docs;

pub use bodies::Bodies;
pub use openapi::openapi;

/// What ingest serves, to be merged into a listener's routes: the interface, its description and a page to read it.
pub fn routes(ingest: Arc<Ingest>) -> Router {
    Router::new()
        .route("/api/v1/events", post(event::post))
        .route("/api/v1/events/batch", post(batch::post))
        .route("/api/v1/event-types", get(event_types::list))
        .route("/api/v1/event-types/{event_type}", get(event_types::one))
        .with_state(ingest)
        .merge(docs(openapi().to_json().unwrap_or_default()))
}
