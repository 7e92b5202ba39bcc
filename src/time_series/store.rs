//! SQL of the writer of time series: tables and partitions, progress and rows.

pub mod partitions;
pub mod statement;

use std::collections::BTreeMap;

use crds::registration::TimeSeries;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::batch::Batch;
use super::program::Row;
use crate::event::Shard;

/// A table as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// As `series_table` has it.
    pub layout: String,
    /// The type of each column, as `format_type` writes it.
    pub columns: BTreeMap<String, String>,
}

/// The table of a projection, if the controllers have made it.
pub async fn made(pool: &PgPool, table: &str, projection_type: &str) -> Result<Option<Made>, sqlx::Error> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT t.layout, a.attname::text, format_type(a.atttypid, a.atttypmod)
           FROM series_table t
           JOIN pg_attribute a ON a.attrelid = to_regclass(format('timeseries.%I', t.table_name))
          WHERE t.table_name = $1 AND t.projection_type = $2 AND a.attnum > 0 AND NOT a.attisdropped",
    )
    .bind(table)
    .bind(projection_type)
    .fetch_all(pool)
    .await?;
    let layout = rows.first().map(|row| row.0.clone());
    let columns = rows.into_iter().map(|(_, name, column_type)| (name, column_type)).collect();
    Ok(layout.map(|layout| Made { layout, columns }))
}

/// Lets one instance look after the tables at a time, until the transaction ends.
pub async fn lock_upkeep(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('cornjacket series upkeep', 0))")
        .fetch_one(connection)
        .await
}

/// Says that a series runs by this registration. One that was halted at it stays so.
pub async fn begin(pool: &PgPool, projection_type: &str, table: &str, hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO series_progress (projection_type, table_name, hash, status) VALUES ($1, $2, $3, 'running')
         ON CONFLICT (projection_type) DO UPDATE SET table_name = EXCLUDED.table_name, hash = EXCLUDED.hash,
                status = CASE WHEN series_progress.status = 'halted' AND series_progress.hash = EXCLUDED.hash
                              THEN 'halted' ELSE 'running' END,
                message = CASE WHEN series_progress.hash = EXCLUDED.hash THEN series_progress.message END,
                updated_at = now()",
    )
    .bind(projection_type)
    .bind(table)
    .bind(hash)
    .execute(pool)
    .await?;
    Ok(())
}

/// Why a series is halted at this registration, if it is. The transaction need not be flushed to disk at commit: rows and
/// cursors are lost or kept together, and what is lost is read again.
pub async fn open_batch(
    connection: &mut PgConnection,
    projection_type: &str,
    hash: &str,
) -> Result<Option<String>, sqlx::Error> {
    let halted: Option<(String, Option<String>)> = sqlx::query_as(
        "SELECT set_config('synchronous_commit', 'off', true),
                (SELECT coalesce(message, '') FROM series_progress
                  WHERE projection_type = $1 AND hash = $2 AND status = 'halted')",
    )
    .bind(projection_type)
    .bind(hash)
    .fetch_optional(connection)
    .await?;
    Ok(halted.and_then(|(_, message)| message))
}

/// Writes rows; the statement is the definition's.
pub async fn insert(connection: &mut PgConnection, statement: &str, batch: Batch) -> Result<(), sqlx::Error> {
    // Safe: made of quoted names.
    batch.bind(sqlx::query(AssertSqlSafe(statement.to_owned()))).execute(connection).await?;
    Ok(())
}

/// Stops a series at an event.
pub async fn halt(pool: &PgPool, projection_type: &str, hash: &str, message: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE series_progress SET status = 'halted', message = $3, updated_at = now()
          WHERE projection_type = $1 AND hash = $2",
    )
    .bind(projection_type)
    .bind(hash)
    .bind(message)
    .execute(pool)
    .await?;
    Ok(())
}

/// Says how far series have come: positions read, and those still to be read. An instance that had not heard of one yet may
/// have said that it was removed.
pub async fn report(pool: &PgPool, progress: &[(String, i64, i64)]) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = progress.iter().map(|(name, ..)| name.as_str()).collect();
    sqlx::query(
        "UPDATE series_progress p SET positions_read = n.read, behind = n.behind, updated_at = now(),
                status = CASE WHEN p.status = 'removed' THEN 'running' ELSE p.status END
           FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS n (name, read, behind)
          WHERE p.projection_type = n.name
            AND (p.status = 'removed' OR (p.positions_read, p.behind) IS DISTINCT FROM (n.read, n.behind))",
    )
    .bind(names)
    .bind(progress.iter().map(|(_, read, _)| *read).collect::<Vec<_>>())
    .bind(progress.iter().map(|(.., behind)| *behind).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// Says of all series but those named that nothing is written any more.
pub async fn retire_but(pool: &PgPool, kept: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE series_progress SET status = 'removed', updated_at = now()
          WHERE status <> 'removed' AND NOT projection_type = ANY($1)",
    )
    .bind(kept)
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets readers of the event store, but those named.
pub async fn forget_readers_but(ingestion: &PgPool, kept: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM event_store_reader WHERE reader LIKE 'timeseries:%' AND NOT reader = ANY($1)")
        .bind(kept)
        .execute(ingestion)
        .await?;
    Ok(())
}

/// Whether the row of an event is in a table.
pub async fn has_row(connection: &mut PgConnection, table: &str, row: &Row) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {} WHERE \"aggregate_id\" = $1 AND \"time\" = $2 AND \"event_id\" = $3)",
        TimeSeries::sql_table(table)
    );
    // Safe: the name is quoted.
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(&row.aggregate_id)
        .bind(row.time)
        .bind(row.event_id)
        .fetch_one(connection)
        .await
}

/// Whether the writer of a table has read an event's place; `None` where it reads none.
pub async fn has_read(
    connection: &mut PgConnection,
    group: &str,
    (shard, position): (Shard, i64),
) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar("SELECT position >= $3 FROM series_cursor WHERE consumer_group = $1 AND shard = $2")
        .bind(group)
        .bind(shard)
        .bind(position)
        .fetch_optional(connection)
        .await
}

/// Whether a table has the columns of a definition, each of its type. More columns may be there: they stay empty.
pub fn fits(made: &Made, series: &TimeSeries) -> bool {
    series.columns.iter().all(|column| made.columns.get(&column.name).is_some_and(|is| is == column.column_type.sql()))
}
