//! The service by HTTP, on port 8081.

mod events;
mod parameters;
mod problem;
mod projections;
mod series;
mod streams;

use axum::Router;
use axum::routing::get;
use utoipa::OpenApi;

use super::Query;
use crate::operate::http::{docs, measured};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cornjacket query",
        description = "What events have become: projections, time series, and the events themselves.",
        license(name = "Apache-2.0")
    ),
    paths(
        projections::types,
        projections::list,
        projections::one,
        streams::projection,
        series::list,
        series::one,
        series::export,
        events::list,
        events::one,
        streams::events
    )
)]
struct Description;

/// The description of these endpoints.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// All endpoints of the service, with `/openapi.json` and `/docs`; the operational ones are merged in by the role.
pub fn routes(query: Query) -> Router {
    let description = serde_json::to_string(&openapi()).unwrap_or_default();
    let api = Router::new()
        .route("/api/v1/projections", get(projections::types))
        .route("/api/v1/projections/{projection_type}", get(projections::list))
        .route("/api/v1/projections/{projection_type}/stream", get(streams::projection))
        .route("/api/v1/projections/{projection_type}/{aggregate_id}", get(projections::one))
        .route("/api/v1/timeseries", get(series::list))
        .route("/api/v1/timeseries/{name}", get(series::one))
        .route("/api/v1/timeseries/{name}/export", get(series::export))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/events/stream", get(streams::events))
        .route("/api/v1/events/{event_id}", get(events::one))
        .with_state(query);
    measured(api.merge(docs(description)), "query")
}
