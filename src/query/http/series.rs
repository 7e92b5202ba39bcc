//! `/api/v1/timeseries`: buckets of time, rows as they are, and exports.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query as QueryString, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures::stream::unfold;
use serde::Serialize;
use utoipa::ToSchema;

use super::parameters::{Paging, Parameters, checked_name, cut_to_page};
use super::projections::unreadable;
use crate::operate::http::{Problem, cursor};
use crate::query::series::export::{Export, Format};
use crate::query::series::fill::filled;
use crate::query::series::request::{Aggregate, Buckets, Fill, Range, columns};
use crate::query::series::store::{self, Selection};
use crate::query::series::{self, Place, Point, Row, SeriesType};
use crate::query::waiting::until_written;
use crate::query::{Query, QueryError};
use crate::registry::LoadedSeries;

/// The time series there are.
#[derive(Serialize, ToSchema)]
pub struct SeriesList {
    pub series: Vec<SeriesType>,
}

/// Values by buckets of time.
#[derive(Serialize, ToSchema)]
pub struct SeriesPoints {
    pub name: String,
    /// Null: all of them together.
    pub aggregate_id: Option<String>,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub step: String,
    pub agg: Aggregate,
    pub fill: Fill,
    /// In order of time, each with `time`, when the bucket begins, and a field a column.
    #[schema(value_type = Vec<Object>)]
    pub points: Vec<Point>,
}

/// A page of rows.
#[derive(Serialize, ToSchema)]
pub struct SeriesRows {
    pub name: String,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// By aggregate id, time and event id, each with these and a field a column.
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<Row>,
    pub limit: i64,
    /// The `cursor` of the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// Points or rows, as asked for.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum SeriesAnswer {
    Points(SeriesPoints),
    Rows(SeriesRows),
}

/// The time series there are, with their columns
#[utoipa::path(
    get, path = "/api/v1/timeseries", operation_id = "list_timeseries", tag = "Time series",
    responses((status = 200, body = SeriesList)),
)]
pub async fn list(State(query): State<Query>) -> Result<Json<SeriesList>, QueryError> {
    Ok(Json(SeriesList { series: series::all(&query).await? }))
}

/// A time series by buckets of time, or its rows
///
/// With `step`, values are put together by buckets on multiples of it since 1970-01-01T00:00:00Z; a bucket at the edge of
/// the range holds what is in the range. An answer has at most 10 000 points. `rate` is how much a value rises a second:
/// the rises between successive readings of an aggregate within the range whose later one is in the bucket, by the time
/// between them; a reading below the one before began anew at 0. Without `step`, the rows themselves in pages.
#[utoipa::path(
    get, path = "/api/v1/timeseries/{name}", operation_id = "get_timeseries", tag = "Time series",
    params(
        ("name" = String, Path, description = "The projection type, for example sensor_readings"),
        ("aggregate_id" = Option<String>, Query, description = "Only this aggregate; default: all together"),
        ("from" = Option<String>, Query, description = "From this time on, such as 2026-01-31T12:00:00Z; default: a day before to"),
        ("to" = Option<String>, Query, description = "Up to this time, exclusive; default: now"),
        ("step" = Option<String>, Query, description = "Length of a bucket, as 30s, 5m, 1h or 1d; without it the answer is rows"),
        ("agg" = Option<Aggregate>, Query, description = "avg (default), min, max, sum, count, last or rate; goes with step"),
        ("fill" = Option<Fill>, Query, description = "Buckets without a value: none (default) leaves those without rows out, null, previous, zero; goes with step"),
        ("column" = Option<String>, Query, description = "Columns, separated by commas; default: all that agg is for"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000, description = "Rows in a page; default 100"),
        ("cursor" = Option<String>, Query, description = "Empty for the first page, then next_cursor of the page before"),
        ("after_event" = Option<uuid::Uuid>, Query, description = "Answer only when the row of this event is written (read your writes)"),
        ("timeout" = Option<String>, Query, description = "How long to wait for after_event, as 5s or 500ms; default 5s, at most 30s"),
    ),
    responses(
        (status = 200, body = SeriesAnswer),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter, or too many points"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such time series, or after_event names an unknown event"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "The event's row was not written in time"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Its table is not made yet, or the database is away"),
    ),
)]
pub async fn one(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    QueryString(pairs): QueryString<Vec<(String, String)>>,
) -> Result<Json<SeriesAnswer>, QueryError> {
    let asked = ["aggregate_id", "from", "to", "step", "agg", "fill", "column", "limit", "cursor"];
    let known = [&asked[..], &["after_event", "timeout"]].concat();
    let parameters = Parameters::new(pairs, &known)?;
    let loaded = named(&query, path)?;
    if let Some((event_id, timeout)) = parameters.after_event()? {
        until_written(&query, &loaded, event_id, timeout).await.map_err(of_table)?;
    }
    let range = Range::of_a_day(parameters.get("from"), parameters.get("to"), Utc::now())?;
    match parameters.get("step") {
        Some(step) => points(&query, &loaded, &parameters, Buckets::of(range, step)?, step).await,
        None => rows(&query, &loaded, &parameters, range).await,
    }
    .map(Json)
}

fn named(query: &Query, path: Result<Path<String>, PathRejection>) -> Result<Arc<LoadedSeries>, QueryError> {
    let Path(name) = path.map_err(|e| unreadable(&e))?;
    series::named(query, &checked_name("name", &name)?)
}

/// Parameters that mean nothing for what is asked for are refused: an answer is never other than it seems.
fn only_with(parameters: &Parameters, names: &[&str], rule: &str) -> Result<(), QueryError> {
    let given = names.iter().find_map(|name| parameters.get(name).map(|value| (*name, value)));
    given.map_or(Ok(()), |(name, value)| Err(QueryError::parameter(name, value, rule)))
}

async fn points(
    query: &Query,
    loaded: &LoadedSeries,
    parameters: &Parameters,
    buckets: Buckets,
    step: &str,
) -> Result<SeriesAnswer, QueryError> {
    only_with(parameters, &["limit", "cursor"], "does not go with step: points are bounded by step and range")?;
    let agg = parameters.parsed("agg")?.unwrap_or(Aggregate::Avg);
    let fill: Fill = parameters.parsed("fill")?.unwrap_or_default();
    let selection = selected(loaded, parameters, Some(agg))?;
    let found = store::buckets(query.series(), &selection, &buckets, agg).await.map_err(of_table)?;
    Ok(SeriesAnswer::Points(SeriesPoints {
        name: loaded.spec.projection_type.clone(),
        from: buckets.range.from,
        to: buckets.range.to,
        step: step.to_owned(),
        agg,
        fill,
        points: filled(found, &selection.names(), &buckets, fill),
        aggregate_id: selection.aggregate_id,
    }))
}

async fn rows(
    query: &Query,
    loaded: &LoadedSeries,
    parameters: &Parameters,
    range: Range,
) -> Result<SeriesAnswer, QueryError> {
    only_with(parameters, &["agg", "fill"], "needs step, the length of a bucket, for example step=1h")?;
    let limit = parameters.integer("limit", 100, 1..=1000)?;
    let selection = selected(loaded, parameters, None)?;
    let name = loaded.spec.projection_type.clone();
    let aggregate_id = selection.aggregate_id.as_deref().unwrap_or("\n");
    let scope = format!("timeseries\n{name}\n{aggregate_id}");
    let behind = match parameters.paging::<Place>(&scope)? {
        Paging::Plain | Paging::First => None,
        Paging::Behind(place) => Some(place),
    };
    let read = store::rows(query.series(), &selection, range, behind.as_ref(), limit + 1).await.map_err(of_table)?;
    let (rows, more) = cut_to_page(read, limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| cursor::encode(&scope, &row.place));
    Ok(SeriesAnswer::Rows(SeriesRows { name, from: range.from, to: range.to, rows, limit, next_cursor }))
}

fn selected(
    loaded: &LoadedSeries,
    parameters: &Parameters,
    aggregate: Option<Aggregate>,
) -> Result<Selection, QueryError> {
    Ok(Selection {
        table: loaded.series.table.clone(),
        aggregate_id: parameters.name("aggregate_id")?,
        columns: columns(&loaded.series, parameters.get("column"), aggregate)?,
    })
}

/// The controllers make a table, or a column of it, some moments after it was registered.
fn of_table(error: impl Into<QueryError>) -> QueryError {
    let error = error.into();
    let QueryError::Database(cause) = &error else { return error };
    match cause.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        Some("42P01" | "42703" | "3F000") => QueryError::SeriesPending,
        _ => error,
    }
}

/// All rows of a time series, as a stream
///
/// By aggregate id, time and event id, as a JSON object a line or as CSV: by `format`, else by the `Accept` header, else
/// NDJSON. A stream that breaks off was not whole.
#[utoipa::path(
    get, path = "/api/v1/timeseries/{name}/export", operation_id = "export_timeseries", tag = "Time series",
    params(
        ("name" = String, Path, description = "The projection type, for example sensor_readings"),
        ("format" = Option<String>, Query, description = "ndjson or csv"),
        ("aggregate_id" = Option<String>, Query, description = "Only this aggregate; default: all"),
        ("from" = Option<String>, Query, description = "From this time on; default: from the first row"),
        ("to" = Option<String>, Query, description = "Up to this time, exclusive; default: to the last row"),
        ("column" = Option<String>, Query, description = "Columns, separated by commas; default: all"),
    ),
    responses(
        (status = 200, content_type = "application/x-ndjson", body = String),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A bad parameter"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such time series"),
        (status = 406, body = Problem, content_type = "application/problem+json", description = "The Accept header names neither format"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Too many streams are open, or the table is not made yet"),
    ),
)]
pub async fn export(
    State(query): State<Query>,
    path: Result<Path<String>, PathRejection>,
    QueryString(pairs): QueryString<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, QueryError> {
    let parameters = Parameters::new(pairs, &["format", "aggregate_id", "from", "to", "column"])?;
    let loaded = named(&query, path)?;
    let format = format(&parameters, &headers)?;
    let range = Range::of_all(parameters.get("from"), parameters.get("to"))?;
    let selection = selected(&loaded, &parameters, None)?;
    let export = Export::open(query, selection, range, format).await.map_err(of_table)?;
    let pages = unfold(export, |mut export| async { Some((export.next().await?, export)) });
    Ok(([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(pages)).into_response())
}

fn format(parameters: &Parameters, headers: &HeaderMap) -> Result<Format, QueryError> {
    match parameters.get("format") {
        Some("ndjson") => return Ok(Format::Ndjson),
        Some("csv") => return Ok(Format::Csv),
        Some(text) => return Err(QueryError::parameter("format", text, "must be ndjson or csv")),
        None => {}
    }
    let Some(accept) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) else {
        return Ok(Format::Ndjson);
    };
    Format::accepted(accept).ok_or_else(|| QueryError::NotAcceptable(accept.to_owned()))
}
