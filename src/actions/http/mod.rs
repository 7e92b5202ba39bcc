//! Deliveries and endpoints by HTTP, on port 8082: for operators.

mod actions;
mod deliveries;
mod problem;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use sqlx::PgPool;
use tokio::sync::watch;
use utoipa::OpenApi;

use super::endpoint::Endpoints;
use super::state::State;
use super::wake::Made;
use crate::dead_letters;
use crate::operate::http::{docs, measured};

/// What requests are answered from. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    pub(super) pool: PgPool,
    pub(super) endpoints: watch::Receiver<Arc<Endpoints>>,
    pub(super) state: State,
    pub(super) made: Made,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cornjacket actions",
        description = "Deliveries of events to endpoints: what was delivered, what was not and why, and what to do about it.",
        license(name = "Apache-2.0")
    ),
    paths(
        actions::list,
        actions::one,
        actions::disable,
        actions::enable,
        actions::test,
        deliveries::list,
        deliveries::one,
        deliveries::retry_one,
        deliveries::retry
    )
)]
struct Description;

/// The description of these endpoints.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// All endpoints of the service and those of the dead letters in these databases, with `/openapi.json` and `/docs`; the
/// operational ones are merged in by the role.
pub fn routes(service: Service, letters: Vec<PgPool>) -> Router {
    let mut described = openapi();
    described.merge(dead_letters::openapi());
    let description = serde_json::to_string(&described).unwrap_or_default();
    let api = Router::new()
        .route("/api/v1/actions", get(actions::list))
        .route("/api/v1/actions/{action}", get(actions::one))
        .route("/api/v1/actions/{action}/disable", post(actions::disable))
        .route("/api/v1/actions/{action}/enable", post(actions::enable))
        .route("/api/v1/actions/{action}/test", post(actions::test))
        .route("/api/v1/deliveries", get(deliveries::list))
        .route("/api/v1/deliveries/retry", post(deliveries::retry))
        .route("/api/v1/deliveries/{delivery_id}", get(deliveries::one))
        .route("/api/v1/deliveries/{delivery_id}/retry", post(deliveries::retry_one))
        .with_state(service);
    measured(api.merge(docs(description)), "actions").merge(dead_letters::endpoints(letters, "actions"))
}
