//! Partitions of the tables: read, made and dropped.

use chrono::{DateTime, Utc};
use crds::registration::TimeSeries;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::time_series::partitions::{self, Partition, Span};

/// Those of a table, by when they begin.
pub async fn read(pool: &PgPool, table: &str) -> Result<Vec<Partition>, sqlx::Error> {
    of(&mut *pool.acquire().await?, table).await
}

async fn of(connection: &mut PgConnection, table: &str) -> Result<Vec<Partition>, sqlx::Error> {
    sqlx::query_as(
        r"SELECT name, substring(bounds FROM 'FROM \(''([^'']+)''\)')::timestamptz AS begins,
                 substring(bounds FROM 'TO \(''([^'']+)''\)')::timestamptz AS ends
            FROM (SELECT c.relname::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds
                    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                   WHERE i.inhparent = to_regclass(format('timeseries.%I', $1::text))) p
           ORDER BY begins",
    )
    .bind(table)
    .fetch_all(connection)
    .await
}

/// Makes the partitions that are missing, as `plan` says of those that are there. One process makes those of a table at a
/// time. A partition is made beside the table and then attached: neither readers nor writers wait for that.
pub async fn make(
    pool: &PgPool,
    table: &str,
    plan: &(dyn Fn(&[Partition]) -> Vec<Span> + Sync),
) -> Result<usize, sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN; SET LOCAL lock_timeout = '2s'").await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('cornjacket series ' || $1, 0))")
        .bind(table)
        .execute(&mut *tx)
        .await?;
    let spans = plan(&of(&mut tx, table).await?);
    for (begins, ends) in &spans {
        let (parent, name) = (TimeSeries::sql_table(table), TimeSeries::sql_table(&partitions::name(table, *begins)));
        // An index alone answers only about pages that were looked after: rows that were only ever inserted count, too.
        let make = format!(
            "CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS)
             WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_insert_threshold = 20000);
             ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{}') TO ('{}')",
            begins.to_rfc3339(),
            ends.to_rfc3339()
        );
        // Safe: names are quoted, and times are times.
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(spans.len())
}

/// Drops a partition. Whoever comes behind it would wait too, so it waits only briefly.
pub async fn drop(pool: &PgPool, name: &str) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN; SET LOCAL lock_timeout = '2s'").await?;
    // Safe: the name is quoted.
    sqlx::query(AssertSqlSafe(format!("DROP TABLE IF EXISTS {}", TimeSeries::sql_table(name))))
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

/// Drops the chunks of a hypertable that end before a time.
pub async fn drop_chunks(pool: &PgPool, table: &str, oldest: DateTime<Utc>) -> Result<usize, sqlx::Error> {
    let dropped: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM drop_chunks(to_regclass(format('timeseries.%I', $1::text)), older_than => $2::timestamptz)",
    )
    .bind(table)
    .bind(oldest)
    .fetch_one(pool)
    .await?;
    Ok(usize::try_from(dropped).unwrap_or(0))
}
