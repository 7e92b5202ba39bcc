//! `/api/v1/deliveries`: what was delivered, what was not and why, and once more.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Service;
use super::actions::{Nothing, known};
use super::problem::{ActionError, storable};
use crate::actions::store::lists::{self, AttemptRow, DeliveryRow, Filter};
use crate::operate::http::{JsonBody, Problem};

const STATUSES: [&str; 6] = ["pending", "delivered", "failed", "suppressed", "expired", "cancelled"];
/// Deliveries that one statement makes again.
const RETRIED_AT_ONCE: i64 = 1_000;

/// Which deliveries are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// metadata.name of the WebhookAction
    pub action: Option<String>,
    /// pending, delivered, failed, suppressed, expired or cancelled
    pub status: Option<String>,
    pub event_id: Option<Uuid>,
    pub aggregate_id: Option<String>,
    /// Made at or after this time (RFC 3339)
    pub from: Option<DateTime<Utc>>,
    /// Made before this time (RFC 3339)
    pub to: Option<DateTime<Utc>>,
    /// Deliveries in a page, 1 to 100; default 20
    pub limit: Option<i64>,
    /// next_cursor of the page before
    pub cursor: Option<Uuid>,
}

/// A page of deliveries, newest first.
#[derive(Serialize, ToSchema)]
pub struct DeliveryPage {
    pub deliveries: Vec<DeliveryRow>,
    pub limit: i64,
    /// The `cursor` of the next page; null on the last.
    pub next_cursor: Option<Uuid>,
}

/// A delivery with all that happened to it.
#[derive(Serialize, ToSchema)]
pub struct DeliveryDetail {
    #[serde(flatten)]
    pub delivery: DeliveryRow,
    /// What is sent.
    #[schema(value_type = Object)]
    pub body: Option<Box<RawValue>>,
    pub history: Vec<AttemptRow>,
}

/// Which deliveries are made again: those that `ids` names, or all that the rest describes.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Names up to 1000 of them.
    pub ids: Option<Vec<Uuid>>,
    pub action: Option<String>,
    /// Default: failed.
    pub status: Option<String>,
    pub aggregate_id: Option<String>,
    /// Made at or after this time.
    pub from: Option<DateTime<Utc>>,
    /// Made before this time.
    pub to: Option<DateTime<Utc>>,
    /// Must be true where nothing else says which: all failed deliveries of all actions.
    #[serde(default)]
    pub all: bool,
}

/// How many deliveries are made again.
#[derive(Serialize, ToSchema)]
pub struct Retried {
    pub retried: usize,
}

/// Deliveries, newest first
#[utoipa::path(
    get, path = "/api/v1/deliveries", operation_id = "list_deliveries", tag = "Deliveries", params(Listing),
    responses((status = 200, body = DeliveryPage), (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter")),
)]
pub async fn list(
    State(service): State<Service>,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<DeliveryPage>, ActionError> {
    let Query(asked) = listing?;
    let limit = asked.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(ActionError::Bad(format!("limit: must be 1 to 100, is {limit}")));
    }
    let filter = Filter {
        action: action(&service, asked.action).await?,
        status: asked.status.map(status).transpose()?,
        event_id: asked.event_id,
        aggregate_id: asked.aggregate_id.map(|id| storable("aggregate_id", id)).transpose()?,
        from: asked.from,
        to: asked.to,
        ids: None,
    };
    let mut deliveries = lists::deliveries(&service.pool, &filter, asked.cursor, limit + 1).await?;
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = deliveries.len() > size;
    deliveries.truncate(size);
    let next_cursor = deliveries.last().filter(|_| more).map(|last| last.delivery_id);
    Ok(Json(DeliveryPage { deliveries, limit, next_cursor }))
}

/// One delivery, with its attempts
#[utoipa::path(
    get, path = "/api/v1/deliveries/{delivery_id}", operation_id = "get_delivery", tag = "Deliveries",
    params(("delivery_id" = Uuid, Path, description = "Also the header webhook-id")),
    responses((status = 200, body = DeliveryDetail), (status = 404, body = Problem, content_type = "application/problem+json", description = "No such delivery")),
)]
pub async fn one(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<DeliveryDetail>, ActionError> {
    let id = read_id(&id)?;
    let delivery = lists::delivery(&service.pool, id).await?.ok_or_else(|| ActionError::NoDelivery(id.to_string()))?;
    let body = lists::body(&service.pool, id).await?.and_then(|body| RawValue::from_string(body).ok());
    Ok(Json(DeliveryDetail { delivery, body, history: lists::attempts(&service.pool, id).await? }))
}

/// Make a delivery again
#[utoipa::path(
    post, path = "/api/v1/deliveries/{delivery_id}/retry", operation_id = "retry_delivery", tag = "Deliveries", request_body = Nothing,
    params(("delivery_id" = Uuid, Path, description = "Of a delivery that ended; it may have been delivered")),
    responses(
        (status = 200, body = DeliveryRow),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It cannot be made again"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such delivery")
    ),
)]
pub async fn retry_one(
    State(service): State<Service>,
    Path(id): Path<String>,
    JsonBody(Nothing {}): JsonBody<Nothing>,
) -> Result<Json<DeliveryRow>, ActionError> {
    let id = read_id(&id)?;
    let filter = Filter { ids: Some(vec![id]), ..Filter::default() };
    let retried = again(&service, &filter).await?;
    let delivery = lists::delivery(&service.pool, id).await?.ok_or_else(|| ActionError::NoDelivery(id.to_string()))?;
    if retried == 0 {
        return Err(ActionError::Bad(format!(
            "the delivery {id} is {} and cannot be made again: it must have ended, have something to send, and its action must be loaded",
            delivery.status
        )));
    }
    Ok(Json(delivery))
}

/// Make many deliveries again
#[utoipa::path(
    post, path = "/api/v1/deliveries/retry", operation_id = "retry_deliveries", tag = "Deliveries", request_body = Retry,
    responses((status = 200, body = Retried), (status = 400, body = Problem, content_type = "application/problem+json", description = "It says nothing of which")),
)]
pub async fn retry(
    State(service): State<Service>,
    JsonBody(asked): JsonBody<Retry>,
) -> Result<Json<Retried>, ActionError> {
    let says_which = asked.ids.is_some()
        || asked.action.is_some()
        || asked.aggregate_id.is_some()
        || asked.from.is_some()
        || asked.to.is_some();
    if !says_which && !asked.all {
        return Err(ActionError::Bad(
            "say which: ids, action, aggregate_id, from, to, or \"all\": true for all that failed".to_owned(),
        ));
    }
    if asked.ids.as_ref().is_some_and(|ids| ids.len() > 1_000) {
        return Err(ActionError::Bad("ids: at most 1000 at a time".to_owned()));
    }
    let status = match (asked.status, &asked.ids) {
        (Some(given), _) if ["pending", "suppressed"].contains(&given.as_str()) => {
            return Err(ActionError::Bad(format!("status: what is {given} cannot be made again")));
        }
        (Some(given), _) => Some(status(given)?),
        (None, None) => Some("failed".to_owned()),
        (None, Some(_)) => None,
    };
    let filter = Filter {
        action: action(&service, asked.action).await?,
        status,
        event_id: None,
        aggregate_id: asked.aggregate_id.map(|id| storable("aggregate_id", id)).transpose()?,
        from: asked.from,
        to: asked.to,
        ids: asked.ids,
    };
    Ok(Json(Retried { retried: again(&service, &filter).await? }))
}

async fn again(service: &Service, filter: &Filter) -> Result<usize, ActionError> {
    let endpoints = service.endpoints.borrow().clone();
    let grants: Vec<(&str, i32)> =
        endpoints.by_name.values().map(|endpoint| (endpoint.name(), endpoint.spec.retry.max_attempts)).collect();
    let asked_at = lists::now(&service.pool).await?;
    let mut retried = 0;
    loop {
        let actions = lists::retry(&service.pool, filter, (&grants, asked_at), RETRIED_AT_ONCE).await?;
        service.made.add(actions.iter().map(String::as_str));
        retried += actions.len();
        if actions.len() < usize::try_from(RETRIED_AT_ONCE).unwrap_or(usize::MAX) {
            return Ok(retried);
        }
    }
}

/// An action that there is, or of which there are deliveries still.
async fn action(service: &Service, given: Option<String>) -> Result<Option<String>, ActionError> {
    let Some(name) = given else { return Ok(None) };
    let name = storable("action", name)?;
    let filter = Filter { action: Some(name.clone()), ..Filter::default() };
    if lists::deliveries(&service.pool, &filter, None, 1).await?.is_empty() {
        known(service, &name).await?;
    }
    Ok(Some(name))
}

fn status(given: String) -> Result<String, ActionError> {
    if STATUSES.contains(&given.as_str()) {
        return Ok(given);
    }
    let shown: String = given.chars().take(40).collect();
    Err(ActionError::Bad(format!("status: '{shown}' is none of {}", STATUSES.join(", "))))
}

fn read_id(text: &str) -> Result<Uuid, ActionError> {
    text.parse().map_err(|_| ActionError::NoDelivery(text.chars().take(100).collect()))
}
