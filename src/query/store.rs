//! Reads of the projections and of the handler's progress. Nothing here writes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder, Row, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

use super::filter::{Comparison, Condition, nest};
use super::wait::{Bus, Place, Progress};

/// The handler's consumer group.
const GROUP: &str = "event-handler";
/// Values of filters up to this size, as JSON, are looked up in an index; `state_index_key` holds up to 1000 bytes.
const LOOKED_UP_BYTES: usize = 300;

/// The state of one aggregate, as clients get it: these fields, in this order.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct Projection {
    /// UUID v7.
    pub projection_id: Uuid,
    pub projection_type: String,
    /// The aggregate, or what the projection's `key` makes of an event.
    pub aggregate_id: String,
    /// The current state.
    #[sqlx(json)]
    #[schema(value_type = Object)]
    pub state: Box<RawValue>,
    /// The event that was folded into it last.
    pub last_event_id: Uuid,
    /// When that event occurred.
    pub last_event_timestamp: DateTime<Utc>,
    /// When the row was last written.
    pub updated_at: DateTime<Utc>,
}

/// How far a projection has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct ProjectionType {
    pub projection_type: String,
    /// live, catching_up, halted, removed (no longer registered); or pending, where the handler has not taken it up yet.
    pub status: String,
    /// True while a changed definition is built anew beside the rows that are served.
    pub rebuilding: bool,
    /// Positions of the event store still to be read when it was last looked at; 0 while live.
    pub behind: i64,
    /// Why it is halted.
    pub message: Option<String>,
    /// Events that it gave up on and that wait for a decision.
    pub dead_letters: i64,
    pub updated_at: Option<DateTime<Utc>>,
}

/// Which rows of a projection a request is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    pub projection_type: String,
    /// Only this aggregate.
    pub aggregate_id: Option<String>,
    pub conditions: Vec<Condition>,
}

/// The columns that clients get.
pub(super) const COLUMNS: &str = "p.projection_id, p.projection_type, p.aggregate_id, p.state, p.last_event_id, \
     p.last_event_timestamp, p.updated_at";

/// A transaction whose statements the server ends after a time.
pub(super) async fn within(pool: &PgPool, time: Duration) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut transaction = pool.begin().await?;
    let millis = time.as_millis().max(1).to_string();
    sqlx::query("SELECT set_config('statement_timeout', $1, true)").bind(millis).execute(&mut *transaction).await?;
    Ok(transaction)
}

/// Whether the server ended a statement because it took too long.
pub(super) fn was_ended(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("57014")
}

/// One row by its key.
pub async fn one(pool: &PgPool, projection_type: &str, aggregate_id: &str) -> sqlx::Result<Option<Projection>> {
    sqlx::query_as(
        "SELECT projection_id, projection_type, aggregate_id, state, last_event_id, last_event_timestamp, updated_at
         FROM projections WHERE projection_type = $1 AND aggregate_id = $2",
    )
    .bind(projection_type)
    .bind(aggregate_id)
    .fetch_optional(pool)
    .await
}

/// A page by offset, ordered by aggregate id, and how many rows there are in all.
pub async fn page_at(
    pool: &PgPool,
    selection: &Selection,
    limit: i64,
    offset: i64,
) -> sqlx::Result<(Vec<Projection>, i64)> {
    let mut count = QueryBuilder::new("SELECT count(*) FROM projections p WHERE ");
    push_selection(&mut count, selection);
    let reused = selection.conditions.is_empty();
    let total = count.build_query_scalar().persistent(reused).fetch_one(pool).await?;
    let mut page = QueryBuilder::new(format!("SELECT {COLUMNS} FROM projections p WHERE "));
    push_selection(&mut page, selection);
    page.push(" ORDER BY p.aggregate_id LIMIT ").push_bind(limit).push(" OFFSET ").push_bind(offset);
    Ok((page.build_query_as().persistent(reused).fetch_all(pool).await?, total))
}

/// Only constant text goes into the statement; names and values are bound. A plan that is to use an index on a field must
/// know them, so statements with conditions are planned each time (`persistent(false)`).
pub(super) fn push_selection(query: &mut QueryBuilder<Postgres>, selection: &Selection) {
    push_scope(query, selection);
    push_conditions(query, selection);
}

/// The projection and the aggregate, without the filters.
pub(super) fn push_scope(query: &mut QueryBuilder<Postgres>, selection: &Selection) {
    query.push("p.projection_type = ").push_bind(selection.projection_type.clone());
    if let Some(aggregate_id) = &selection.aggregate_id {
        query.push(" AND p.aggregate_id = ").push_bind(aggregate_id.clone());
    }
}

/// The filters, each behind an AND.
pub(super) fn push_conditions(query: &mut QueryBuilder<Postgres>, selection: &Selection) {
    for condition in &selection.conditions {
        push_condition(query, condition);
    }
}

/// The field itself is always compared; where it is at the top of the state, what an index on it can find is asked for
/// too, which follows from the former.
fn push_condition(query: &mut QueryBuilder<Postgres>, condition: &Condition) {
    match condition {
        Condition::Contains { path, value } => {
            query.push(" AND p.state @> ").push_bind(Json(nest(path, value)));
            push_index_key(query, path, "=", value);
        }
        Condition::Lacks { path, value } => {
            query.push(" AND NOT p.state @> ").push_bind(Json(nest(path, value)));
        }
        Condition::Exists { path, there } => {
            push_field(query.push(" AND "), path).push(if *there { " IS NOT NULL" } else { " IS NULL" });
        }
        Condition::Compares { path, operator, value } => {
            let operator = match operator {
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
            };
            push_field(query.push(" AND "), path).push(format_args!(" {operator} ")).push_bind(Json(value.clone()));
            push_field(query.push(" AND jsonb_typeof("), path);
            query.push(if value.is_number() { ") = 'number'" } else { ") = 'string'" });
            push_index_key(query, path, operator, value);
        }
    }
}

fn push_field<'q>(query: &'q mut QueryBuilder<Postgres>, path: &[String]) -> &'q mut QueryBuilder<Postgres> {
    match path {
        [field] => query.push("p.state -> ").push_bind(field.clone()),
        _ => query.push("p.state #> ").push_bind(path.to_vec()),
    }
}

/// Rows whose field is too long for an index are all found too: they are kept under an object, which sorts after every
/// scalar. A value that may be too long itself is not looked up.
fn push_index_key(query: &mut QueryBuilder<Postgres>, path: &[String], operator: &str, value: &Value) {
    let [field] = path else { return };
    if value.to_string().len() > LOOKED_UP_BYTES {
        return;
    }
    query.push(" AND (state_index_key(p.state -> ").push_bind(field.clone());
    query.push(format_args!(") {operator} ")).push_bind(Json(value.clone()));
    if !operator.starts_with('>') {
        query.push(" OR state_index_key(p.state -> ").push_bind(field.clone()).push(") = '{}'::jsonb");
    }
    query.push(")");
}

/// The projections that the handler knows.
pub async fn types(pool: &PgPool) -> sqlx::Result<Vec<ProjectionType>> {
    sqlx::query_as(
        "SELECT projection_type, p.status, beside AND target_hash IS NOT NULL AS rebuilding, behind, message, updated_at,
                (SELECT count(*) FROM dlq
                  WHERE consumer = $1 AND subject = projection_type AND dlq.status = 'pending') AS dead_letters
         FROM projection_progress p ORDER BY projection_type",
    )
    .bind(crate::dead_letters::EVENT_HANDLER)
    .fetch_all(pool)
    .await
}

/// How far a projection has come in the shard of an event. `None`: the handler does not know the projection.
pub async fn progress(
    pool: &PgPool,
    projection_type: &str,
    place: &Place,
    topic: Option<&str>,
) -> sqlx::Result<Option<Progress>> {
    let row = sqlx::query(
        "SELECT p.status, p.beside, p.status = 'live' OR (p.beside AND p.live_spec IS NOT NULL) AS fed, p.cursors[$3 + 1] AS cursor, p.applied_through[$3 + 1] AS applied,
                (SELECT g.bus FROM consumer_group g WHERE g.consumer_group = $2) AS bus,
                (SELECT c.position FROM bus_cursor c WHERE c.consumer_group = $2 AND c.shard = $3) AS embedded,
                (SELECT o.positions[$3 + 1] FROM bus_offset o
                  WHERE o.consumer_group = $2 AND o.topic = $4
                    AND o.partition = $5 % (SELECT max(n.partition) + 1 FROM bus_offset n
                                            WHERE n.consumer_group = $2 AND n.topic = $4)) AS kafka
         FROM projection_progress p WHERE p.projection_type = $1",
    )
    .bind(projection_type)
    .bind(GROUP)
    .bind(i32::from(place.shard))
    .bind(topic)
    .bind(place.key_hash())
    .fetch_optional(pool)
    .await?;
    row.map(|row| read_progress(&row)).transpose()
}

fn read_progress(row: &PgRow) -> sqlx::Result<Progress> {
    let bus = match row.try_get::<Option<String>, _>("bus")?.as_deref() {
        Some("kafka") => row.try_get::<Option<i64>, _>("kafka")?.map(Bus),
        Some(_) => row.try_get::<Option<i64>, _>("embedded")?.map(Bus),
        None => None,
    };
    Ok(Progress {
        status: row.try_get("status")?,
        beside: row.try_get("beside")?,
        fed: row.try_get("fed")?,
        cursor: row.try_get::<Option<i64>, _>("cursor")?.unwrap_or(0),
        applied: row.try_get::<Option<i64>, _>("applied")?.unwrap_or(0),
        bus,
    })
}

/// Succeeds where the tables are there and can be read.
pub async fn probe(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("SELECT FROM projections, projection_progress LIMIT 0").execute(pool).await.map(drop)
}
