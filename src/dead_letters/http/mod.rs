//! Dead letters by HTTP: for operators, on the ports of the roles that hold them, never on that of ingestion.

mod change;
mod letters;
mod problem;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use sqlx::PgPool;
use utoipa::OpenApi;

use crate::operate::http::{docs, measured};

/// Largest body of a request, in bytes: filters and a reason.
const BODY: usize = 64 << 10;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cornjacket dead letters",
        description = "What consumers gave up on: look at it, replay it, or discard it.",
        license(name = "Apache-2.0")
    ),
    paths(
        letters::list,
        letters::one,
        letters::summary,
        change::replay,
        change::replay_many,
        change::discard,
        change::discard_many
    )
)]
struct Description;

/// The description of these endpoints.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// The databases that hold letters: usually one.
#[derive(Clone)]
struct Databases {
    pools: std::sync::Arc<[PgPool]>,
}

/// All endpoints, without `/openapi.json` and `/docs`; for roles that describe other endpoints as well.
pub fn endpoints(pools: Vec<PgPool>, service: &'static str) -> Router {
    let api = Router::new()
        .route("/api/v1/dead-letters", get(letters::list))
        .route("/api/v1/dead-letters/summary", get(letters::summary))
        .route("/api/v1/dead-letters/replay", post(change::replay_many))
        .route("/api/v1/dead-letters/discard", post(change::discard_many))
        .route("/api/v1/dead-letters/{dlq_id}", get(letters::one))
        .route("/api/v1/dead-letters/{dlq_id}/replay", post(change::replay))
        .route("/api/v1/dead-letters/{dlq_id}/discard", post(change::discard))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(Databases { pools: pools.into() });
    measured(api, service)
}

/// All endpoints of these databases, with `/openapi.json` and `/docs`; the operational ones are merged in by the role.
pub fn routes(pools: Vec<PgPool>, service: &'static str) -> Router {
    endpoints(pools, service).merge(docs(serde_json::to_string(&openapi()).unwrap_or_default()))
}
