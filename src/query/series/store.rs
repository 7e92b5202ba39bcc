//! Reads of the tables of time series. Statements are made of quoted names; values are bound. Nothing here writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use crds::registration::{Column, ColumnType, TimeSeries, sql_name};
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgPool, Row as _};

use super::request::{Aggregate, Buckets, Range};
use super::{Place, Point, Row, Value};
use crate::event::Shard;
use crate::query::store::within;

/// What a request reads from.
#[derive(Clone, Debug)]
pub struct Selection {
    pub table: String,
    /// Only this aggregate.
    pub aggregate_id: Option<String>,
    pub columns: Vec<Column>,
}

impl Selection {
    /// The names of its columns, in order.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.columns.iter().map(|column| Arc::from(column.name.as_str())).collect()
    }

    /// Of the aggregate in $1, or of all; between $2 and $3.
    fn scope(&self) -> &'static str {
        if self.aggregate_id.is_some() {
            "\"aggregate_id\" = $1 AND \"time\" >= $2 AND \"time\" < $3"
        } else {
            "$1::text IS NULL AND \"time\" >= $2 AND \"time\" < $3"
        }
    }
}

/// What the writer says of a series.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Progress {
    pub status: String,
    pub behind: i64,
    pub message: Option<String>,
}

/// How far each series is.
pub async fn progress(pool: &PgPool) -> sqlx::Result<BTreeMap<String, Progress>> {
    let rows: Vec<(String, String, i64, Option<String>)> =
        sqlx::query_as("SELECT projection_type, status, behind, message FROM series_progress").fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(name, status, behind, message)| (name, Progress { status, behind, message })).collect())
}

/// The last position of a shard whose event is in the table, if it makes a row.
pub async fn position(pool: &PgPool, table: &str, shard: Shard) -> sqlx::Result<i64> {
    let position: Option<i64> = sqlx::query_scalar(
        "SELECT position FROM series_cursor WHERE consumer_group = 'tsdb-writer:' || $1 AND shard = $2",
    )
    .bind(table)
    .bind(shard)
    .fetch_optional(pool)
    .await?;
    Ok(position.unwrap_or(0))
}

/// The buckets that have rows, in order of time.
pub async fn buckets(
    pool: &PgPool,
    selection: &Selection,
    buckets: &Buckets,
    aggregate: Aggregate,
) -> sqlx::Result<Vec<Point>> {
    // Safe: made of quoted names.
    let rows = sqlx::query(AssertSqlSafe(bucket_statement(selection, aggregate)))
        .bind(selection.aggregate_id.as_deref())
        .bind(buckets.range.from)
        .bind(buckets.range.to)
        .bind(buckets.step)
        .bind(buckets.first)
        .fetch_all(pool)
        .await?;
    let names = selection.names();
    rows.iter().map(|row| Ok(Point { time: row.try_get("time")?, values: values(row, &names)? })).collect()
}

/// $4 is the step, $5 when the first bucket begins.
fn bucket_statement(selection: &Selection, aggregate: Aggregate) -> String {
    let (table, scope) = (TimeSeries::sql_table(&selection.table), selection.scope());
    let inner = match aggregate {
        Aggregate::Last if selection.aggregate_id.is_some() => last_of_one(selection, &table),
        Aggregate::Last | Aggregate::Rate => joined(selection, aggregate, &table),
        _ => {
            let parts = selection.columns.iter().map(|column| plain(column, aggregate));
            format!(
                "SELECT {BUCKET} AS \"time\", {} FROM {table} WHERE {scope} AND $5::timestamptz IS NOT NULL GROUP BY 1",
                parts.collect::<Vec<_>>().join(", ")
            )
        }
    };
    format!("SELECT b.\"time\", row_to_json(b)::text AS row FROM ({inner}) b ORDER BY 1")
}

/// Aligned to the epoch, in UTC.
const BUCKET: &str = "date_bin($4::interval, \"time\", timestamptz 'epoch')";

fn plain(column: &Column, aggregate: Aggregate) -> String {
    let function = match aggregate {
        Aggregate::Avg => "avg",
        Aggregate::Min => "min",
        Aggregate::Max => "max",
        Aggregate::Sum => "sum",
        Aggregate::Count | Aggregate::Last | Aggregate::Rate => "count",
    };
    let name = sql_name(&column.name);
    // Texts in the order of their code points, whatever the database's language.
    let collation = if column.column_type == ColumnType::Text && function != "count" { " COLLATE \"C\"" } else { "" };
    format!("{function}({name}{collation}) AS {name}")
}

/// A look into the index a bucket: how many rows a bucket has does not matter.
fn last_of_one(selection: &Selection, table: &str) -> String {
    let inside = "\"aggregate_id\" = $1 AND \"time\" >= greatest(g, $2) AND \"time\" < least(g + $4::interval, $3)";
    let parts = selection.columns.iter().map(|column| {
        let name = sql_name(&column.name);
        format!(
            "(SELECT {name} FROM {table} WHERE {inside} AND {name} IS NOT NULL \
             ORDER BY \"time\" DESC, \"event_id\" DESC LIMIT 1) AS {name}"
        )
    });
    format!(
        "SELECT g AS \"time\", {} FROM generate_series($5::timestamptz, $3 - interval '1 microsecond', $4::interval) g \
         WHERE EXISTS (SELECT FROM {table} WHERE {inside})",
        parts.collect::<Vec<_>>().join(", ")
    )
}

/// Each column is looked at by itself, since each has other rows without a value.
fn joined(selection: &Selection, aggregate: Aggregate, table: &str) -> String {
    let scope = selection.scope();
    let of = |column: &Column| match aggregate {
        Aggregate::Rate => rate(&sql_name(&column.name), table, scope),
        _ => last_of_all(&sql_name(&column.name), table, scope),
    };
    let joins = selection.columns.iter().enumerate().map(|(n, column)| {
        let part = of(column);
        format!(" LEFT JOIN ({part}) c{n} USING (\"time\")")
    });
    let names = selection.columns.iter().enumerate().map(|(n, column)| format!("c{n}.{}", sql_name(&column.name)));
    format!(
        "SELECT \"time\", {} FROM (SELECT DISTINCT {BUCKET} AS \"time\" FROM {table} \
         WHERE {scope} AND $5::timestamptz IS NOT NULL) b{}",
        names.collect::<Vec<_>>().join(", "),
        joins.collect::<String>()
    )
}

fn last_of_all(name: &str, table: &str, scope: &str) -> String {
    format!(
        "SELECT DISTINCT ON (1) {BUCKET} AS \"time\", {name} FROM {table} WHERE {scope} AND {name} IS NOT NULL \
         ORDER BY 1, {table}.\"time\" DESC, {table}.\"event_id\" DESC"
    )
}

/// Pairs of successive values of an aggregate; each belongs to the bucket of its later one. A value that fell began anew
/// at 0.
fn rate(name: &str, table: &str, scope: &str) -> String {
    let pairs = format!(
        "SELECT \"time\", {name}::float8 AS v, lag({name}::float8) OVER w AS before, \"time\" - lag(\"time\") OVER w AS passed \
         FROM {table} WHERE {scope} AND {name} IS NOT NULL \
         WINDOW w AS (PARTITION BY \"aggregate_id\" ORDER BY \"time\", \"event_id\")"
    );
    format!(
        "SELECT {BUCKET} AS \"time\", sum(CASE WHEN v >= before THEN v - before ELSE v END) \
         / nullif(extract(epoch FROM sum(passed))::float8, 0) AS {name} \
         FROM ({pairs}) p WHERE passed IS NOT NULL GROUP BY 1"
    )
}

/// Rows behind a place, in order of aggregate, time and event.
pub async fn rows(
    pool: &PgPool,
    selection: &Selection,
    range: Range,
    behind: Option<&Place>,
    limit: i64,
) -> sqlx::Result<Vec<Row>> {
    let mut transaction = within(pool, super::request::PAGE).await?;
    // Safe: made of quoted names.
    let rows = sqlx::query(AssertSqlSafe(row_statement(selection, behind.is_some())))
        .bind(selection.aggregate_id.as_deref())
        .bind(range.from)
        .bind(range.to)
        .bind(limit)
        .bind(behind.map(|place| place.aggregate_id.as_str()))
        .bind(behind.map(|place| place.time))
        .bind(behind.map(|place| place.event_id))
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    let names = selection.names();
    rows.iter().map(|row| Ok(Row { place: read_place(row)?, values: values(row, &names)? })).collect()
}

fn row_statement(selection: &Selection, behind: bool) -> String {
    let names: Vec<String> = selection.columns.iter().map(|column| format!("t.{}", sql_name(&column.name))).collect();
    let behind = if behind {
        "(\"aggregate_id\", \"time\", \"event_id\") > ($5::text COLLATE \"C\", $6::timestamptz, $7::uuid)"
    } else {
        "$5::text IS NULL AND $6::timestamptz IS NULL AND $7::uuid IS NULL"
    };
    format!(
        "SELECT t.\"aggregate_id\", t.\"time\", t.\"event_id\", row_to_json((SELECT r FROM (SELECT {}) r))::text AS row \
         FROM {} t WHERE {} AND {behind} ORDER BY \"aggregate_id\", \"time\", \"event_id\" LIMIT $4",
        names.join(", "),
        TimeSeries::sql_table(&selection.table),
        selection.scope()
    )
}

fn read_place(row: &PgRow) -> sqlx::Result<Place> {
    let (aggregate_id, event_id) = (row.try_get("aggregate_id")?, row.try_get("event_id")?);
    let time: DateTime<Utc> = row.try_get("time")?;
    Ok(Place { aggregate_id, time, event_id })
}

/// The values of a row, in the order of the names.
fn values(row: &PgRow, names: &[Arc<str>]) -> sqlx::Result<Vec<(Arc<str>, Value)>> {
    let text: &str = row.try_get("row")?;
    let unread = |error| sqlx::Error::Decode(Box::new(error));
    let mut all: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).map_err(unread)?;
    Ok(names.iter().map(|name| (name.clone(), all.remove(&**name).unwrap_or_default())).collect())
}
