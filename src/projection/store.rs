//! SQL of the projection rows. Which table a catch-up writes to is a [`Target`].

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::fold::Row;
use super::working::{RowKey, Subject};

/// Which rows are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those that queries see.
    Live,
    /// Those of a rebuild beside them.
    Beside,
}

/// The rows named; `$table` is that of a [`Target`].
macro_rules! load_from {
    ($table:literal) => {
        concat!(
            "SELECT k.n, p.aggregate_id, CASE WHEN k.needs THEN p.state END AS state, p.last_event_id,
                    p.last_event_timestamp, p.shard, p.position, p.positions
               FROM unnest($1::int[], $2::text[], $3::text[], $4::bool[]) AS k (n, type, key, needs)
               JOIN ",
            $table,
            " p ON p.projection_type = k.type AND p.aggregate_id = k.key"
        )
    };
}

/// Rows as they were read.
#[derive(Debug, Default)]
pub struct Loaded {
    pub rows: HashMap<RowKey, Row>,
    /// Bytes of their states, as they came.
    pub state_bytes: usize,
}

/// Reads the rows named. Of projections with a key of their own, of which several shards may feed one row, the whole
/// projection is locked first until the transaction ends, in the order of their names; other rows are this reader's
/// alone, since it holds their shard.
pub async fn load(
    connection: &mut PgConnection,
    target: Target,
    subjects: &[Subject],
    keys: &[&RowKey],
) -> Result<Loaded, sqlx::Error> {
    let mut loaded = Loaded::default();
    if keys.is_empty() {
        return Ok(loaded);
    }
    lock_shared_rows(connection, subjects, keys).await?;
    let (mut numbers, mut types, mut names, mut needs) = (vec![], vec![], vec![], vec![]);
    for (number, key) in keys {
        numbers.push(i32::try_from(*number).unwrap_or(i32::MAX));
        types.push(subjects[*number].projection_type.as_str());
        names.push(key.as_str());
        needs.push(subjects[*number].program.needs_state());
    }
    let sql = match target {
        Target::Live => load_from!("projections"),
        Target::Beside => load_from!("projections_rebuild"),
    };
    let mut rows = sqlx::query(sql).bind(numbers).bind(types).bind(names).bind(needs).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        loaded.state_bytes += row.try_get_raw("state")?.as_bytes().map_or(0, <[u8]>::len);
        loaded.rows.insert(key_of(&row)?, into_row(&row)?);
    }
    Ok(loaded)
}

fn key_of(row: &PgRow) -> Result<RowKey, sqlx::Error> {
    Ok((usize::try_from(row.try_get::<i32, _>("n")?).unwrap_or(usize::MAX), row.try_get("aggregate_id")?))
}

fn into_row(row: &PgRow) -> Result<Row, sqlx::Error> {
    Ok(Row {
        state: row.try_get::<Option<Value>, _>("state")?.unwrap_or(Value::Null),
        last_event_id: row.try_get("last_event_id")?,
        last_event_timestamp: row.try_get("last_event_timestamp")?,
        shard: row.try_get("shard")?,
        position: row.try_get("position")?,
        positions: row.try_get::<Option<Json<_>>, _>("positions")?.map(|positions| positions.0),
    })
}

async fn lock_shared_rows(
    connection: &mut PgConnection,
    subjects: &[Subject],
    keys: &[&RowKey],
) -> Result<(), sqlx::Error> {
    let shared: HashSet<usize> = keys.iter().map(|k| k.0).filter(|n| subjects[*n].program.has_own_key()).collect();
    let mut names: Vec<&str> = shared.iter().map(|n| subjects[*n].projection_type.as_str()).collect();
    names.sort_unstable();
    for name in names {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('cornjacket projection ' || $1, 0))")
            .bind(name)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Writes rows, beside what `$also` does with them (`w`); those that are there where `$guard` lets it. Indexed columns of a row that is there stay as they are, so
/// that its update needs no index entry (heap-only tuple). A row never goes back: while a catch-up begins, a batch that was
/// open before may still write. (Rows fed by several shards are locked, see [`load`].)
macro_rules! write_into {
    ($table:literal, $also:expr) => {
        write_into!(
            $table,
            $also,
            concat!(
                $table,
                ".position < EXCLUDED.position OR ",
                $table,
                ".shard <> EXCLUDED.shard OR EXCLUDED.positions IS NOT NULL"
            )
        )
    };
    ($table:literal, $also:expr, $guard:expr) => {
        concat!(
            "WITH w AS MATERIALIZED (
               SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::jsonb[], $5::uuid[], $6::timestamptz[],
                                    $7::smallint[], $8::bigint[], $9::jsonb[])
                      AS w (id, type, key, state, event, at, shard, position, positions))",
            $also,
            " INSERT INTO ",
            $table,
            " (projection_id, projection_type, aggregate_id, state, last_event_id, last_event_timestamp, updated_at,
               shard, position, positions, changed_by)
             SELECT w.id, w.type, w.key, w.state, w.event, w.at, now(), w.shard, w.position, w.positions,
                    pg_current_xact_id() FROM w
             ON CONFLICT (projection_type, aggregate_id) DO UPDATE SET
                    state = EXCLUDED.state, last_event_id = EXCLUDED.last_event_id,
                    last_event_timestamp = EXCLUDED.last_event_timestamp, updated_at = EXCLUDED.updated_at,
                    shard = EXCLUDED.shard, position = EXCLUDED.position, positions = EXCLUDED.positions,
                    changed_by = EXCLUDED.changed_by
              WHERE ",
            $guard
        )
    };
}

/// Streams learn of the rows from the log of changes; a crash of PostgreSQL emptied the table of the epoch.
macro_rules! log_changes {
    () => {
        ", epoch AS (INSERT INTO projection_epoch SELECT WHERE NOT EXISTS (SELECT FROM projection_epoch)
                 ON CONFLICT DO NOTHING),
       log AS (INSERT INTO projection_changes (projection_type, keys) SELECT type, array_agg(key) FROM w GROUP BY type
               ON CONFLICT (projection_type, changed_by) DO UPDATE SET keys = projection_changes.keys || EXCLUDED.keys) "
    };
}

const WRITE_LIVE: &str = write_into!("projections", log_changes!());
const WRITE_ANEW: &str = write_into!("projections", log_changes!(), "true");

/// Writes rows, in the order given: one statement a batch.
pub async fn write(
    connection: &mut PgConnection,
    target: Target,
    subjects: &[Subject],
    rows: &[(&RowKey, &Row)],
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = match target {
        Target::Live => WRITE_LIVE,
        Target::Beside => write_into!("projections_rebuild", ""),
    };
    write_by(sql, connection, subjects, rows).await
}

/// Writes live rows whatever is there: who does so keeps everybody else from them, from before they were read on.
pub async fn write_anew(
    connection: &mut PgConnection,
    subjects: &[Subject],
    rows: &[(&RowKey, &Row)],
) -> Result<(), sqlx::Error> {
    if rows.is_empty() { Ok(()) } else { write_by(WRITE_ANEW, connection, subjects, rows).await }
}

async fn write_by(
    sql: &'static str,
    connection: &mut PgConnection,
    subjects: &[Subject],
    rows: &[(&RowKey, &Row)],
) -> Result<(), sqlx::Error> {
    sqlx::query(sql)
        .bind(rows.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(key, _)| subjects[key.0].projection_type.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(key, _)| key.1.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| Json(&row.state)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.last_event_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.last_event_timestamp).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.shard).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.position).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.positions.as_ref().map(Json)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes the rows of a projection.
pub async fn clear(connection: &mut PgConnection, target: Target, projection_type: &str) -> Result<(), sqlx::Error> {
    let sql = match target {
        Target::Live => "DELETE FROM projections WHERE projection_type = $1",
        Target::Beside => "DELETE FROM projections_rebuild WHERE projection_type = $1",
    };
    sqlx::query(sql).bind(projection_type).execute(connection).await?;
    Ok(())
}

/// Puts the rebuilt rows in the place of the live ones, in the transaction of the caller: readers see the old rows
/// until it commits. A key that had a row keeps its `projection_id`.
pub async fn swap(connection: &mut PgConnection, projection_type: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM projections p WHERE p.projection_type = $1 AND NOT EXISTS (
           SELECT FROM projections_rebuild r WHERE r.projection_type = $1 AND r.aggregate_id = p.aggregate_id)",
    )
    .bind(projection_type)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO projections (projection_id, projection_type, aggregate_id, state, last_event_id,
                last_event_timestamp, updated_at, shard, position, positions, changed_by)
         SELECT projection_id, projection_type, aggregate_id, state, last_event_id, last_event_timestamp, updated_at,
                shard, position, positions, pg_current_xact_id()
           FROM projections_rebuild WHERE projection_type = $1
         ON CONFLICT (projection_type, aggregate_id) DO UPDATE SET
                state = EXCLUDED.state, last_event_id = EXCLUDED.last_event_id,
                last_event_timestamp = EXCLUDED.last_event_timestamp, updated_at = EXCLUDED.updated_at,
                shard = EXCLUDED.shard, position = EXCLUDED.position, positions = EXCLUDED.positions,
                changed_by = EXCLUDED.changed_by",
    )
    .bind(projection_type)
    .execute(&mut *connection)
    .await?;
    // Too many to name: streams look at the rows.
    sqlx::query(
        "INSERT INTO projection_changes (projection_type, keys) VALUES ($1, NULL)
         ON CONFLICT (projection_type, changed_by) DO UPDATE SET keys = NULL",
    )
    .bind(projection_type)
    .execute(&mut *connection)
    .await?;
    clear(connection, Target::Beside, projection_type).await
}

/// Forgets of the log of changes what is older, and begins an epoch where a crash of PostgreSQL ended the last one.
/// Streams that are further behind look at the rows.
pub async fn forget_changes(connection: &mut PgConnection, seconds: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO projection_epoch SELECT WHERE NOT EXISTS (SELECT FROM projection_epoch) ON CONFLICT DO NOTHING",
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "WITH ends AS MATERIALIZED (
           SELECT DISTINCT ON (projection_type) projection_type, changed_by FROM projection_changes
            WHERE changed_at < now() - $1 * interval '1 second' ORDER BY projection_type, changed_by DESC),
         old AS (
           DELETE FROM projection_changes c USING ends e
            WHERE c.projection_type = e.projection_type AND c.changed_by < e.changed_by
              AND c.changed_at < now() - $1 * interval '1 second')
         UPDATE projection_changes c SET keys = NULL FROM ends e
          WHERE c.projection_type = e.projection_type AND c.changed_by = e.changed_by AND c.keys IS NOT NULL",
    )
    .bind(seconds)
    .execute(connection)
    .await?;
    Ok(())
}
