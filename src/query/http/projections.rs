//! `/api/v1/projections`: one row, pages of rows, and the projections there are.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query as QueryString, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::parameters::{Paging, Parameters, checked_name};
use crate::operate::http::{Problem, cursor};
use crate::query::store::{self, Projection, ProjectionType, Selection};
use crate::query::waiting::until_passed;
use crate::query::{Query, QueryError, pages};

/// A page of rows by offset.
#[derive(Serialize, ToSchema)]
pub struct ProjectionPage {
    pub projections: Vec<Projection>,
    /// Rows that match, in all.
    pub total: i64,
    pub limit: i64,
    pub offset: i64,
}

/// A page of rows by cursor.
#[derive(Serialize, ToSchema)]
pub struct ProjectionCursorPage {
    pub projections: Vec<Projection>,
    pub limit: i64,
    /// The `cursor` of the next page; null on the last. A page may have fewer rows than the limit, or none, and a next:
    /// where few of many rows match, it holds what was found in some seconds.
    pub next_cursor: Option<String>,
}

/// A page of rows, as asked for.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum ProjectionRows {
    ByOffset(ProjectionPage),
    ByCursor(ProjectionCursorPage),
}

/// The projections there are.
#[derive(Serialize, ToSchema)]
pub struct ProjectionTypes {
    pub projection_types: Vec<ProjectionType>,
}

/// The state of one aggregate
///
/// An aggregate that is named `stream` is asked for as `%73tream`.
#[utoipa::path(
    get, path = "/api/v1/projections/{projection_type}/{aggregate_id}", operation_id = "get_projection", tag = "Projections",
    params(
        ("projection_type" = String, Path, description = "For example sensor_state"),
        ("aggregate_id" = String, Path, description = "The aggregate, or what the projection's key makes of an event"),
        ("after_event" = Option<uuid::Uuid>, Query, description = "Answer only when the projection has passed this event (read your writes)"),
        ("timeout" = Option<String>, Query, description = "How long to wait for after_event, as 5s or 500ms; default 5s, at most 30s"),
    ),
    responses(
        (status = 200, body = Projection),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such row, or after_event names an unknown event"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "The projection did not pass the event in time"),
    ),
)]
pub async fn one(
    State(query): State<Query>,
    path: Result<Path<(String, String)>, PathRejection>,
    QueryString(pairs): QueryString<Vec<(String, String)>>,
) -> Result<Json<Projection>, QueryError> {
    let Path((projection_type, aggregate_id)) = path.map_err(|e| unreadable(&e))?;
    let parameters = Parameters::new(pairs, &["after_event", "timeout"])?;
    let projection_type = checked_name("projection_type", &projection_type)?;
    let aggregate_id = checked_name("aggregate_id", &aggregate_id)?;
    wait(&query, &projection_type, &parameters).await?;
    let found = store::one(query.projections(), &projection_type, &aggregate_id).await?;
    found.map(Json).ok_or_else(|| missing(&query, projection_type, aggregate_id))
}

/// Why there is no row. Rows of a projection that is declared no longer stay readable, so the row is looked for first.
fn missing(query: &Query, projection_type: String, aggregate_id: String) -> QueryError {
    let declared = &query.catalog().projections;
    if declared.contains_key(&projection_type) {
        return QueryError::NoRow { projection_type, aggregate_id };
    }
    if query.catalog().series.contains_key(&projection_type) {
        return QueryError::IsSeries { name: projection_type };
    }
    let meant = crds::nearest(&projection_type, declared.keys().map(String::as_str)).map(str::to_owned);
    QueryError::NoProjection { projection_type, meant }
}

/// The path is no UTF-8.
pub(super) fn unreadable(why: &PathRejection) -> QueryError {
    QueryError::parameter("path", &why.body_text(), "cannot be a name: percent-encode it as UTF-8")
}

/// The rows of a projection
///
/// Ordered by aggregate id. With `cursor` (empty for the first page) the answer has `next_cursor` instead of `total`
/// and `offset`, every page costs the same, and rows that are there throughout come exactly once.
#[utoipa::path(
    get, path = "/api/v1/projections/{projection_type}", operation_id = "list_projections", tag = "Projections",
    params(
        ("projection_type" = String, Path, description = "For example sensor_state"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Rows in a page; default 20"),
        ("offset" = Option<i64>, Query, minimum = 0, description = "Rows to skip; default 0"),
        ("cursor" = Option<String>, Query, description = "Empty for the first page, then next_cursor of the page before"),
        ("filter" = Option<Vec<String>>, Query, description = "field:operator:value on the state, for example value:gt:70 or address.city:eq:Oslo; operators eq, ne, gt, gte, lt, lte, exists; may be repeated, all must hold"),
        ("after_event" = Option<uuid::Uuid>, Query, description = "Answer only when the projection has passed this event (read your writes)"),
        ("timeout" = Option<String>, Query, description = "How long to wait for after_event, as 5s or 500ms; default 5s, at most 30s"),
    ),
    responses(
        (status = 200, body = ProjectionRows),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "The projection did not pass the event in time"),
    ),
)]
pub async fn list(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    QueryString(pairs): QueryString<Vec<(String, String)>>,
) -> Result<Json<ProjectionRows>, QueryError> {
    let Path(projection_type) = path.map_err(|e| unreadable(&e))?;
    let known = ["limit", "offset", "cursor", "filter", "after_event", "timeout"];
    let parameters = Parameters::new(pairs, &known)?;
    let limit = parameters.integer("limit", 20, 1..=100)?;
    let offset = parameters.integer("offset", 0, 0..=i64::MAX)?;
    let projection_type = checked_name("projection_type", &projection_type)?;
    let (conditions, filters) = parameters.filters()?;
    let scope = format!("projections\n{projection_type}\n{filters}");
    let paging = parameters.paging::<String>(&scope)?;
    if let (Paging::First | Paging::Behind(_), Some(text)) = (&paging, parameters.get("offset")) {
        return Err(QueryError::parameter("offset", text, "does not go with cursor: give one of the two"));
    }
    wait(&query, &projection_type, &parameters).await?;
    let selection = Selection { projection_type, aggregate_id: None, conditions };
    let key = match paging {
        Paging::Plain => {
            let (projections, total) = store::page_at(query.projections(), &selection, limit, offset).await?;
            return Ok(Json(ProjectionRows::ByOffset(ProjectionPage { projections, total, limit, offset })));
        }
        Paging::First => None,
        Paging::Behind(key) => Some(key),
    };
    let page = pages::behind(query.projections(), &selection, limit, key.as_deref(), query.filtered_page()).await?;
    let next_cursor = page.next.map(|key| cursor::encode(&scope, &key));
    let projections = page.rows;
    Ok(Json(ProjectionRows::ByCursor(ProjectionCursorPage { projections, limit, next_cursor })))
}

/// The projections there are, and how far each has come
#[utoipa::path(
    get, path = "/api/v1/projections", operation_id = "list_projection_types", tag = "Projections",
    responses((status = 200, body = ProjectionTypes)),
)]
pub async fn types(State(query): State<Query>) -> Result<Json<ProjectionTypes>, QueryError> {
    let mut projection_types = store::types(query.projections()).await?;
    for name in query.catalog().projections.keys() {
        if !projection_types.iter().any(|known| known.projection_type == *name) {
            projection_types.push(pending(name));
        }
    }
    projection_types.sort_by(|a, b| a.projection_type.cmp(&b.projection_type));
    Ok(Json(ProjectionTypes { projection_types }))
}

/// Registered, and not taken up by the handler yet.
fn pending(name: &str) -> ProjectionType {
    ProjectionType {
        projection_type: name.to_owned(),
        status: "pending".to_owned(),
        rebuilding: false,
        behind: 0,
        message: None,
        dead_letters: 0,
        updated_at: None,
    }
}

async fn wait(query: &Query, projection_type: &str, parameters: &Parameters) -> Result<(), QueryError> {
    match parameters.after_event()? {
        Some((event_id, timeout)) => until_passed(query, projection_type, event_id, timeout).await,
        None => Ok(()),
    }
}
