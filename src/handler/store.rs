//! SQL of the handler: progress of projections, and the group's bus.

use chrono::{DateTime, Utc};
use crds::registration::Projection;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};

use crate::bus::GROUP_LOCK;
use crate::event::SHARDS;

/// A row of `projection_progress`.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Progress {
    pub projection_type: String,
    pub live_hash: Option<String>,
    pub live_spec: Option<Json<Projection>>,
    pub target_hash: Option<String>,
    pub status: String,
    pub beside: bool,
    pub cursors: Vec<i64>,
    pub applied_through: Vec<i64>,
    pub behind: i64,
    /// Events accepted before this were dropped before they could be read into the rows being built.
    pub history_from: Option<DateTime<Utc>>,
    /// The same of the rows served.
    pub live_history_from: Option<DateTime<Utc>>,
    /// Events at or below these positions are in no row: the projection began after them. None: it began at the first;
    /// empty: where it began was not noted.
    pub begins_after: Option<Vec<i64>>,
    /// Seconds since the row was last written.
    pub age_seconds: f64,
    /// Seconds until it may be handed back to the bus; none or less: now.
    pub settles_in: f64,
}

impl Progress {
    /// Whether the group's batches feed its rows: the old definition's while another is built beside them, also
    /// where that has halted. Once something was missed (see [`detach`] and [`halt_fed`]) they are fed no more.
    pub fn is_fed(&self) -> bool {
        let built_beside = self.beside && matches!(self.status.as_str(), "catching_up" | "halted");
        self.live_spec.is_some() && (self.status == "live" || built_beside)
    }

    pub fn is_catching_up(&self) -> bool {
        self.status == "catching_up"
    }

    /// The name under which a catch-up keeps partitions from being dropped.
    pub fn reader_name(&self) -> String {
        format!("projection:{}", self.projection_type)
    }
}

const COLUMNS: &str =
    "SELECT projection_type, live_hash, live_spec, target_hash, status, beside, cursors, applied_through,
       behind, history_from, live_history_from, begins_after, extract(epoch FROM now() - updated_at)::float8 AS age_seconds,
       coalesce(extract(epoch FROM hand_over_from - now()), 0)::float8 AS settles_in
  FROM projection_progress ORDER BY projection_type";

/// All rows. Under the group's lock they do not change until the transaction ends.
pub async fn progress(connection: &mut PgConnection) -> Result<Vec<Progress>, sqlx::Error> {
    sqlx::query_as(COLUMNS).fetch_all(connection).await
}

/// All rows, each locked until the transaction ends: what works on one is waited for.
pub async fn lock_progress(connection: &mut PgConnection) -> Result<Vec<Progress>, sqlx::Error> {
    sqlx::query("SELECT FROM projection_progress ORDER BY projection_type FOR UPDATE")
        .execute(&mut *connection)
        .await?;
    progress(connection).await
}

/// Locks one projection that is catching up, if no other instance works on it; `None` otherwise.
pub async fn lock_catching_up(
    connection: &mut PgConnection,
    projection_type: &str,
) -> Result<Option<Progress>, sqlx::Error> {
    sqlx::query_as(
        "SELECT projection_type, live_hash, live_spec, target_hash, status, beside, cursors, applied_through, behind,
                history_from, live_history_from, begins_after, extract(epoch FROM now() - updated_at)::float8 AS age_seconds,
       coalesce(extract(epoch FROM hand_over_from - now()), 0)::float8 AS settles_in
           FROM projection_progress WHERE projection_type = $1 AND status = 'catching_up' FOR UPDATE SKIP LOCKED",
    )
    .bind(projection_type)
    .fetch_optional(connection)
    .await
}

/// The row of one projection.
pub async fn progress_of(
    connection: &mut PgConnection,
    projection_type: &str,
) -> Result<Option<Progress>, sqlx::Error> {
    let rows = progress(connection).await?;
    Ok(rows.into_iter().find(|row| row.projection_type == projection_type))
}

/// The same, locked until the transaction ends: a catch-up that works on it is waited for, but not for long.
pub async fn lock_progress_of(
    connection: &mut PgConnection,
    projection_type: &str,
) -> Result<Option<Progress>, sqlx::Error> {
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *connection).await?;
    sqlx::query("SELECT FROM projection_progress WHERE projection_type = $1 FOR UPDATE")
        .bind(projection_type)
        .execute(&mut *connection)
        .await?;
    sqlx::query("SET LOCAL lock_timeout = 0").execute(&mut *connection).await?;
    progress_of(connection, projection_type).await
}

/// Waits until no batch is under way, and keeps new ones out until the transaction ends.
pub async fn lock_group(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(GROUP_LOCK).execute(connection).await?;
    Ok(())
}

/// Lets the statements of this transaction take as long as they need: those on all rows of a large projection.
pub async fn take_long(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL statement_timeout = 0").execute(connection).await?;
    Ok(())
}

/// Says, until the transaction ends, that rows of a projection are being replaced.
pub async fn begin_replacing(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock_shared(hashtextextended('cornjacket replacing', 0))")
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether no rows are being replaced; then none will be until the transaction ends.
pub async fn keep_from_replacing(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('cornjacket replacing', 0))")
        .fetch_one(connection)
        .await
}

/// Writes a row as it is to be.
pub async fn save(
    connection: &mut PgConnection,
    progress: &Progress,
    message: Option<&str>,
) -> Result<(), sqlx::Error> {
    debug_assert_eq!((progress.cursors.len(), progress.applied_through.len()), (SHARDS, SHARDS));
    sqlx::query(
        "INSERT INTO projection_progress (projection_type, live_hash, live_spec, target_hash, status, beside, cursors,
                applied_through, behind, history_from, live_history_from, begins_after, message)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (projection_type) DO UPDATE SET live_hash = EXCLUDED.live_hash, live_spec = EXCLUDED.live_spec,
                target_hash = EXCLUDED.target_hash, status = EXCLUDED.status, beside = EXCLUDED.beside,
                cursors = EXCLUDED.cursors, applied_through = EXCLUDED.applied_through, behind = EXCLUDED.behind,
                history_from = EXCLUDED.history_from, live_history_from = EXCLUDED.live_history_from,
                begins_after = EXCLUDED.begins_after, message = EXCLUDED.message, updated_at = now()",
    )
    .bind(&progress.projection_type)
    .bind(&progress.live_hash)
    .bind(&progress.live_spec)
    .bind(&progress.target_hash)
    .bind(&progress.status)
    .bind(progress.beside)
    .bind(&progress.cursors)
    .bind(&progress.applied_through)
    .bind(progress.behind)
    .bind(progress.history_from)
    .bind(progress.live_history_from)
    .bind(&progress.begins_after)
    .bind(message)
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves the cursors of a projection that is catching up, and notes what it found gone.
pub async fn move_cursors(connection: &mut PgConnection, progress: &Progress) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE projection_progress SET cursors = $2, behind = $3, history_from = $4, updated_at = now()
          WHERE projection_type = $1",
    )
    .bind(&progress.projection_type)
    .bind(&progress.cursors)
    .bind(progress.behind)
    .bind(progress.history_from)
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that the rows served of these projections (name and hash of the definition served), where the group feeds them,
/// hold all events up to these positions. Never goes back. Returns of how many that is news; a row that another
/// transaction works on is left for the next time.
pub async fn advance_applied(
    pool: &PgPool,
    positions: &[i64],
    projections: &[(String, String)],
) -> Result<u64, sqlx::Error> {
    debug_assert_eq!(positions.len(), SHARDS);
    let (names, hashes): (Vec<&str>, Vec<&str>) = projections.iter().map(|(n, h)| (n.as_str(), h.as_str())).unzip();
    let done = sqlx::query(
        "WITH fed AS (
           SELECT p.projection_type FROM projection_progress p
             JOIN unnest($2::text[], $3::text[]) AS w (name, hash) ON w.name = p.projection_type AND w.hash = p.live_hash
            WHERE p.status = 'live'
              AND EXISTS (SELECT FROM unnest(p.applied_through, $1::bigint[]) AS u (was, will) WHERE u.was < u.will)
            ORDER BY p.projection_type FOR UPDATE OF p SKIP LOCKED)
         UPDATE projection_progress p SET applied_through =
                  ARRAY(SELECT greatest(u.was, u.will)
                          FROM unnest(p.applied_through, $1::bigint[]) WITH ORDINALITY AS u (was, will, n) ORDER BY u.n)
           FROM fed WHERE p.projection_type = fed.projection_type AND p.status = 'live'",
    )
    .bind(positions)
    .bind(names)
    .bind(hashes)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Sends projections (`None`: all) that the group feeds through the event store once: what the bus lost, or what another
/// bus delivered last, is read from there. Rows know their positions, so nothing is folded twice. Rows that others are
/// built beside stay as they are until these are done. They return to the bus after `settle_seconds` at the earliest.
pub async fn detach(
    connection: &mut PgConnection,
    only: Option<&[&str]>,
    settle_seconds: f64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE projection_progress SET status = CASE WHEN status = 'halted' THEN status ELSE 'catching_up' END,
                live_spec = CASE WHEN beside THEN NULL ELSE live_spec END,
                target_hash = CASE WHEN beside THEN target_hash ELSE live_hash END,
                cursors = CASE WHEN beside THEN cursors ELSE applied_through END,
                hand_over_from = now() + $2 * interval '1 second', updated_at = now()
          WHERE ((status = 'live' AND live_hash IS NOT NULL) OR (beside AND live_spec IS NOT NULL))
            AND ($1::text[] IS NULL OR projection_type = ANY($1))",
    )
    .bind(only)
    .bind(settle_seconds)
    .execute(&mut *connection)
    .await?;
    Ok(done.rows_affected())
}

/// Keeps all that are catching up from returning to the bus for as long.
pub async fn unsettle(connection: &mut PgConnection, seconds: f64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE projection_progress SET hand_over_from = now() + $1 * interval '1 second' WHERE status = 'catching_up'",
    )
    .bind(seconds)
    .execute(connection)
    .await?;
    Ok(())
}

/// Halts a projection at an event that its batches cannot fold. Where a changed definition is built beside its rows, that
/// goes on: it may be the mend. The rows served stay as they are until it is done.
pub async fn halt_fed(connection: &mut PgConnection, projection_type: &str, message: &str) -> Result<(), sqlx::Error> {
    let beside = sqlx::query(
        "UPDATE projection_progress SET live_spec = NULL, message = $2 WHERE projection_type = $1 AND beside",
    )
    .bind(projection_type)
    .bind(format!("the rows served stay as they are until the changed definition is built: {message}"))
    .execute(&mut *connection)
    .await?;
    if beside.rows_affected() == 0 {
        halt(connection, projection_type, message).await?;
    }
    Ok(())
}

/// Halts what a projection is catching up to, or its batches, at an event that it cannot fold.
pub async fn halt(connection: &mut PgConnection, projection_type: &str, message: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE projection_progress SET target_hash = coalesce(target_hash, live_hash), message = $2, updated_at = now(),
                cursors = CASE WHEN status = 'live' THEN applied_through ELSE cursors END, status = 'halted'
          WHERE projection_type = $1",
    )
    .bind(projection_type)
    .bind(message)
    .execute(connection)
    .await?;
    Ok(())
}

/// Records which bus the group reads; returns the one it read before, if any.
pub async fn choose_bus(connection: &mut PgConnection, group: &str, bus: &str) -> Result<Option<String>, sqlx::Error> {
    let before = sqlx::query_scalar("SELECT bus FROM consumer_group WHERE consumer_group = $1 FOR UPDATE")
        .bind(group)
        .fetch_optional(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO consumer_group (consumer_group, bus) VALUES ($1, $2)
         ON CONFLICT (consumer_group) DO UPDATE SET bus = EXCLUDED.bus",
    )
    .bind(group)
    .bind(bus)
    .execute(connection)
    .await?;
    Ok(before)
}

/// Forgets the cursors of all catch-ups but those named.
pub async fn forget_readers_but(ingestion: &PgPool, kept: Vec<String>) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM event_store_reader WHERE reader LIKE 'projection:%' AND NOT reader = ANY($1)")
        .bind(kept)
        .execute(ingestion)
        .await?;
    Ok(())
}

/// Forgets the cursors that kept partitions for a projection's catch-up.
pub async fn forget_reader(ingestion: &PgPool, reader: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM event_store_reader WHERE reader = $1").bind(reader).execute(ingestion).await?;
    Ok(())
}
