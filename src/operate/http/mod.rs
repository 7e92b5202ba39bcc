//! `/healthz`, `/readyz`, `/health` and `/metrics`, and `/`, which names them.

pub mod cursor;
mod docs;
mod fallback;
mod json_body;
mod measure;
mod problem;
mod serve;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

pub use docs::docs;
pub use json_body::JsonBody;
pub use measure::measured;
pub use problem::{BAD_PARAMETER, Class, PROBLEM, Problem, problem};
pub use serve::serve;

use super::Readiness;

/// What the operational endpoints answer from.
#[derive(Clone)]
pub struct Operations {
    /// The role, as named in the answers: `ingest`, `relay`, …
    pub role: &'static str,
    pub readiness: Readiness,
    pub metrics: PrometheusHandle,
}

/// The operational endpoints of a role, to be merged into its own routes.
pub fn routes(operations: Operations) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(healthz))
        .route("/readyz", get(ready))
        .route("/health", get(ready))
        .route("/metrics", get(scrape))
        .with_state(operations)
}

/// Who answers here, and what there is to ask.
async fn index(State(operations): State<Operations>) -> Response {
    let described: &[&str] = if ["ingest", "query", "relay", "handler", "actions"].contains(&operations.role) {
        &["/docs", "/openapi.json"]
    } else {
        &[]
    };
    let paths = [described, &["/healthz", "/readyz", "/health", "/metrics"]].concat();
    Json(json!({"service": operations.role, "version": env!("CARGO_PKG_VERSION"), "paths": paths})).into_response()
}

/// The process lives. Nothing that a restart could not mend is reported here.
async fn healthz(State(operations): State<Operations>) -> Response {
    Json(json!({"status": "ok", "role": operations.role})).into_response()
}

/// The role does its work: 200, or 503 with what is pending.
async fn ready(State(operations): State<Operations>) -> Response {
    let pending = operations.readiness.pending();
    let (code, status) =
        if pending.is_empty() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    (code, Json(json!({"status": status, "role": operations.role, "pending": pending}))).into_response()
}

async fn scrape(State(operations): State<Operations>) -> Response {
    ([("content-type", "text/plain; version=0.0.4")], operations.metrics.render()).into_response()
}
