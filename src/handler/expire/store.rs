//! SQL of rows past their projection's retention.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use crate::projection::store::Target;

/// What became of a page of rows.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Page {
    /// The key of its last row; `None`: there was none.
    pub last: Option<String>,
    pub expired: i64,
}

/// Looks at the rows above a key, in order, at most `limit`, and deletes those that are past the retention. None is looked
/// at of a projection that is halted or has far to read. A row that is being written is not waited for.
pub(super) async fn expire(
    pool: &PgPool,
    projection_type: &str,
    retention_seconds: i64,
    after: &str,
    limit: i64,
) -> Result<Page, sqlx::Error> {
    sqlx::query_as(
        "WITH page AS MATERIALIZED (
           SELECT aggregate_id, updated_at FROM projections
            WHERE projection_type = $1 AND aggregate_id > $3
              AND EXISTS (SELECT FROM projection_progress p WHERE p.projection_type = $1 AND p.live_hash IS NOT NULL
                             AND (p.status = 'live' OR (p.status = 'catching_up' AND (p.beside OR p.behind = 0))))
            ORDER BY aggregate_id LIMIT $4),
         expired AS MATERIALIZED (
           SELECT projection_id FROM projections
            WHERE projection_type = $1 AND updated_at < now() - $2 * interval '1 second'
              AND aggregate_id = ANY(ARRAY(SELECT aggregate_id FROM page
                                            WHERE updated_at < now() - $2 * interval '1 second'))
              FOR UPDATE SKIP LOCKED),
         gone AS (DELETE FROM projections WHERE projection_id = ANY(ARRAY(SELECT projection_id FROM expired)) RETURNING 1)
         SELECT (SELECT aggregate_id FROM page ORDER BY aggregate_id DESC LIMIT 1) AS last,
                (SELECT count(*) FROM gone) AS expired",
    )
    .bind(projection_type)
    .bind(retention_seconds)
    .bind(after)
    .bind(limit)
    // Planned with its values: a plan for any limit would sort all rows for each page.
    .persistent(false)
    .fetch_one(pool)
    .await
}

/// Dates rows that a catch-up wrote: by when the last event in each was accepted, not by when it was read.
pub async fn date(
    connection: &mut PgConnection,
    target: Target,
    projection_type: &str,
    rows: &[(&str, DateTime<Utc>)],
) -> Result<(), sqlx::Error> {
    let (keys, times): (Vec<&str>, Vec<DateTime<Utc>>) = rows.iter().copied().unzip();
    let sql = match target {
        Target::Live => {
            "UPDATE projections r SET updated_at = least(r.updated_at, d.at)
               FROM unnest($2::text[], $3::timestamptz[]) AS d (key, at)
              WHERE r.projection_type = $1 AND r.aggregate_id = d.key"
        }
        Target::Beside => {
            "UPDATE projections_rebuild r SET updated_at = least(r.updated_at, d.at)
               FROM unnest($2::text[], $3::timestamptz[]) AS d (key, at)
              WHERE r.projection_type = $1 AND r.aggregate_id = d.key"
        }
    };
    sqlx::query(sql).bind(projection_type).bind(keys).bind(times).execute(connection).await?;
    Ok(())
}

/// Deletes what is past the retention of rows that were built beside those served.
pub async fn drop_rebuilt(
    connection: &mut PgConnection,
    projection_type: &str,
    retention_seconds: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM projections_rebuild
          WHERE projection_type = $1 AND updated_at < now() - $2 * interval '1 second'",
    )
    .bind(projection_type)
    .bind(retention_seconds)
    .execute(connection)
    .await?;
    Ok(())
}
