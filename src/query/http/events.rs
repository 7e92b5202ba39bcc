//! `/api/v1/events`: one event, and those of an aggregate.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query as QueryString, State};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::parameters::{Paging, Parameters, cut_to_page};
use crate::operate::http::{Problem, cursor};
use crate::query::events::{Event, store};
use crate::query::wait::Whereabouts;
use crate::query::{Query, QueryError};

/// A page of events.
#[derive(Serialize, ToSchema)]
pub struct EventPage {
    /// In order.
    pub events: Vec<Event>,
    pub limit: i64,
    /// The `cursor` of the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// The events of an aggregate
///
/// In order, oldest first, as far back as the event store keeps them (7 days by default).
#[utoipa::path(
    get, path = "/api/v1/events", operation_id = "list_events", tag = "Events",
    params(
        ("aggregate_id" = String, Query, description = "For example device-001"),
        ("event_type" = Option<String>, Query, description = "Only events of this type"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Events in a page; default 20"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses(
        (status = 200, body = EventPage),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter"),
    ),
)]
pub async fn list(
    State(query): State<Query>,
    QueryString(pairs): QueryString<Vec<(String, String)>>,
) -> Result<Json<EventPage>, QueryError> {
    let parameters = Parameters::new(pairs, &["aggregate_id", "event_type", "limit", "cursor"])?;
    let limit = parameters.integer("limit", 20, 1..=100)?;
    let aggregate_id = parameters.name("aggregate_id")?.ok_or_else(|| {
        QueryError::parameter(
            "aggregate_id",
            "",
            "must be given; for the events of all aggregates use /api/v1/events/stream",
        )
    })?;
    let event_type = parameters.name("event_type")?;
    let scope = format!("events\n{aggregate_id}\n{event_type:?}");
    let behind = match parameters.paging::<i64>(&scope)? {
        Paging::Behind(position) => position,
        Paging::Plain | Paging::First => 0,
    };
    let events = store::of_aggregate(query.events(), &aggregate_id, event_type.as_deref(), behind, limit + 1).await?;
    let (events, more) = cut_to_page(events, limit);
    let next_cursor = events.last().filter(|_| more).map(|event| cursor::encode(&scope, &event.position));
    Ok(Json(EventPage { events, limit, next_cursor }))
}

/// One event
#[utoipa::path(
    get, path = "/api/v1/events/{event_id}", operation_id = "get_event", tag = "Events",
    params(("event_id" = Uuid, Path, description = "As the answer to its acceptance gave it")),
    responses(
        (status = 200, body = Event),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not an event id"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Unknown, dropped by retention, or (with Retry-After) not stored yet"),
    ),
)]
pub async fn one(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Event>, QueryError> {
    let Ok(Path(text)) = path else { return Err(QueryError::EventNotFound) };
    let event_id: Uuid = text.parse().map_err(|_| QueryError::parameter("event_id", &text, "must be a UUID"))?;
    if let Some(event) = store::one(query.events(), event_id).await? {
        return Ok(Json(event));
    }
    match store::locate(query.events(), event_id).await? {
        Whereabouts::Unknown => Err(QueryError::EventNotFound),
        Whereabouts::Accepted | Whereabouts::Stored(_) => Err(QueryError::EventNotStored(event_id)),
    }
}
