//! `GET /api/v1/event-types`: what is registered.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use crds::registration::Validation;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::ingest::Ingest;
use crate::operate::http;
use crate::registry::LoadedEventType;

/// All registered event types.
#[derive(Serialize, ToSchema)]
pub struct EventTypes {
    pub event_types: Vec<EventTypeSummary>,
}

/// A registered event type.
#[derive(Serialize, ToSchema)]
pub struct EventTypeSummary {
    pub event_type: String,
    pub description: Option<String>,
    pub owner: Option<String>,
    /// The bus topic that its events go to.
    pub topic: String,
    /// `enforce`, `warn` or `off`: what a payload that breaks its schema means.
    pub validation: &'static str,
    /// The schema version that events are validated against unless they name one; null without a schema.
    pub current_version: Option<i32>,
    /// Ascending.
    pub versions: Vec<VersionSummary>,
}

/// A version of a payload schema.
#[derive(Serialize, ToSchema)]
pub struct VersionSummary {
    pub version: i32,
    pub deprecated: bool,
    /// JSON Schema 2020-12. Only where one event type is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

/// A registered event type with its schemas.
#[derive(Serialize, ToSchema)]
pub struct EventTypeDetail {
    #[serde(flatten)]
    pub summary: EventTypeSummary,
    /// Payloads that keep to the schema.
    pub examples: Vec<Value>,
}

/// List event types
#[utoipa::path(
    get, path = "/api/v1/event-types", tag = "ingest",
    responses((status = 200, description = "the registered event types", body = EventTypes))
)]
pub async fn list(State(ingest): State<Arc<Ingest>>) -> Json<EventTypes> {
    let catalog = ingest.catalog();
    Json(EventTypes { event_types: catalog.event_types.values().map(|loaded| summary(loaded, false)).collect() })
}

/// Show an event type with its schemas
#[utoipa::path(
    get, path = "/api/v1/event-types/{event_type}", tag = "ingest",
    params(("event_type" = String, Path, description = "for example sensor.reading")),
    responses(
        (status = 200, description = "the event type", body = EventTypeDetail),
        (status = 404, description = "no such event type is registered", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn one(State(ingest): State<Arc<Ingest>>, Path(event_type): Path<String>) -> Response {
    let catalog = ingest.catalog();
    let Some(loaded) = catalog.event_types.get(&event_type) else {
        let title = "event type not found".to_owned();
        let kind = "urn:cornjacket:problem:event-type-not-found".to_owned();
        let status = StatusCode::NOT_FOUND;
        let (error, detail) = (title.clone(), title.clone());
        let body = Problem { error, kind, title, status: status.as_u16(), detail, errors: Vec::new() };
        return http::problem(status, &body, None);
    };
    let detail = EventTypeDetail { summary: summary(loaded, true), examples: loaded.spec.examples.clone() };
    Json(detail).into_response()
}

fn summary(loaded: &LoadedEventType, with_schemas: bool) -> EventTypeSummary {
    let spec = &loaded.spec;
    let version = |v: &crds::registration::SchemaVersion| VersionSummary {
        version: v.version,
        deprecated: v.deprecated,
        schema: with_schemas.then(|| v.schema.clone()),
    };
    EventTypeSummary {
        event_type: spec.event_type.clone(),
        description: spec.description.clone(),
        owner: spec.owner.clone(),
        topic: spec.topic.clone(),
        validation: match spec.validation {
            Validation::Enforce => "enforce",
            Validation::Warn => "warn",
            Validation::Off => "off",
        },
        current_version: loaded.schema_for(None).ok().flatten().map(|effective| effective.version),
        versions: spec.versions.iter().map(version).collect(),
    }
}
