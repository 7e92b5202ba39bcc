//! `/api/v1/actions`: endpoints, switched off and on, and tried.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Service;
use super::problem::{ActionError, storable};
use crate::actions::store::endpoints;
use crate::actions::store::lists::{self, ActionRow};
use crate::event::StoredEvent;
use crate::operate::http::{JsonBody, Problem};

/// The actions there are.
#[derive(Serialize, ToSchema)]
pub struct Actions {
    pub actions: Vec<ActionRow>,
}

/// Why an endpoint is switched off.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Disable {
    /// For people.
    pub reason: String,
}

/// Nothing; it stands for a body, so that no web page can send the request by a form.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// An event to try an endpoint with.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Default: `cornjacket.test`.
    pub event_type: Option<String>,
    /// Default: `test`.
    pub aggregate_id: Option<String>,
    /// Default: a short text.
    pub payload: Option<Value>,
}

/// A delivery that was made.
#[derive(Serialize, ToSchema)]
pub struct Made {
    pub delivery_id: Uuid,
}

/// All actions
#[utoipa::path(get, path = "/api/v1/actions", operation_id = "list_actions", tag = "Actions", responses((status = 200, body = Actions)))]
pub async fn list(State(service): State<Service>) -> Result<Json<Actions>, ActionError> {
    Ok(Json(Actions { actions: lists::actions(&service.pool, None).await? }))
}

/// One action
#[utoipa::path(
    get, path = "/api/v1/actions/{action}", operation_id = "get_action", tag = "Actions",
    params(("action" = String, Path, description = "metadata.name of the WebhookAction")),
    responses((status = 200, body = ActionRow), (status = 404, body = Problem, content_type = "application/problem+json", description = "No such action")),
)]
pub async fn one(State(service): State<Service>, Path(action): Path<String>) -> Result<Json<ActionRow>, ActionError> {
    Ok(Json(known(&service, &action).await?))
}

/// Switch an endpoint off
///
/// Nothing is delivered until it is enabled; deliveries wait, within the bounds of its rateLimit.
#[utoipa::path(
    post, path = "/api/v1/actions/{action}/disable", operation_id = "disable_action", tag = "Actions", request_body = Disable,
    params(("action" = String, Path, description = "metadata.name of the WebhookAction")),
    responses((status = 200, body = ActionRow), (status = 404, body = Problem, content_type = "application/problem+json", description = "No such action")),
)]
pub async fn disable(
    State(service): State<Service>,
    Path(action): Path<String>,
    JsonBody(Disable { reason }): JsonBody<Disable>,
) -> Result<Json<ActionRow>, ActionError> {
    known(&service, &action).await?;
    if !(1..=500).contains(&reason.chars().count()) || reason.contains('\0') {
        return Err(ActionError::Bad("reason: must have 1 to 500 characters".to_owned()));
    }
    switch(&service, &action, Some(&reason)).await
}

/// Switch an endpoint on
///
/// Its breaker begins closed; what waits is delivered.
#[utoipa::path(
    post, path = "/api/v1/actions/{action}/enable", operation_id = "enable_action", tag = "Actions", request_body = Nothing,
    params(("action" = String, Path, description = "metadata.name of the WebhookAction")),
    responses((status = 200, body = ActionRow), (status = 404, body = Problem, content_type = "application/problem+json", description = "No such action")),
)]
pub async fn enable(
    State(service): State<Service>,
    Path(action): Path<String>,
    JsonBody(Nothing {}): JsonBody<Nothing>,
) -> Result<Json<ActionRow>, ActionError> {
    known(&service, &action).await?;
    service.state.reset(&action).await?;
    endpoints::forget_health(&service.pool, &action).await?;
    switch(&service, &action, None).await
}

/// Try an endpoint
///
/// One delivery of an event that nobody else gets, whatever the action's source and `when` are.
#[utoipa::path(
    post, path = "/api/v1/actions/{action}/test", operation_id = "test_action", tag = "Actions", request_body = Test,
    params(("action" = String, Path, description = "metadata.name of the WebhookAction")),
    responses(
        (status = 202, body = Made, description = "GET /api/v1/deliveries/{delivery_id} says how it went"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "The action cannot evaluate the event"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such action")
    ),
)]
pub async fn test(
    State(service): State<Service>,
    Path(action): Path<String>,
    JsonBody(test): JsonBody<Test>,
) -> Result<(StatusCode, Json<Made>), ActionError> {
    let endpoint = service.endpoints.borrow().by_name.get(&action).cloned();
    let Some(endpoint) = endpoint else {
        known(&service, &action).await?;
        return Err(ActionError::Bad(format!("the action '{action}' is not loaded: see its status")));
    };
    let event = event_of(test)?;
    let body =
        endpoint.program.body(&event).map_err(|e| ActionError::Bad(format!("the action cannot evaluate it: {e}")))?;
    let delivery_id = lists::try_out(&service.pool, &action, &event, body).await?;
    service.made.add([action.as_str()].into_iter());
    Ok((StatusCode::ACCEPTED, Json(Made { delivery_id })))
}

fn event_of(test: Test) -> Result<StoredEvent, ActionError> {
    let name = |field: &str, given: Option<String>, default: &str| match given {
        None => Ok(default.to_owned()),
        Some(name) if (1..=255).contains(&name.chars().count()) && !name.chars().any(char::is_control) => Ok(name),
        Some(_) => {
            Err(ActionError::Bad(format!("{field}: must have 1 to 255 characters, none of them a control character")))
        }
    };
    let now = Utc::now();
    Ok(StoredEvent {
        shard: 0,
        // Before everything else of its aggregate.
        position: 0,
        event_id: Uuid::now_v7(),
        event_type: name("event_type", test.event_type, "cornjacket.test")?,
        aggregate_id: name("aggregate_id", test.aggregate_id, "test")?,
        timestamp: now,
        payload: test.payload.unwrap_or_else(|| json!({"text": "a test of this endpoint"})),
        metadata: json!({"source": "test"}),
        ingested_at: now,
    })
}

async fn switch(service: &Service, action: &str, off: Option<&str>) -> Result<Json<ActionRow>, ActionError> {
    if endpoints::switch(&service.pool, action, off).await? {
        info!(action, reason = off, "{} by an operator", if off.is_some() { "disabled" } else { "enabled" });
    }
    service.made.add([action].into_iter());
    Ok(Json(known(service, action).await?))
}

pub(super) async fn known(service: &Service, action: &str) -> Result<ActionRow, ActionError> {
    let action = storable("action", action.to_owned())?;
    if let Some(row) = lists::actions(&service.pool, Some(&action)).await?.pop() {
        return Ok(row);
    }
    let endpoints = service.endpoints.borrow();
    let meant = crds::nearest(&action, endpoints.by_name.keys().map(String::as_str)).map(str::to_owned);
    Err(ActionError::NoAction { action: action.chars().take(100).collect(), meant })
}
