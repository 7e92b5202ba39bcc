//! SQL of the relay.
//!
//! A claim locks rows of `outbox_shard`, not events: SKIP LOCKED gives each relay shards that no other works on. The
//! statements below lock, take, number and store in one go; that is safe with several relays because what is taken
//! is what the statement itself really deleted (or updated), and the counter is read from the locked row's newest version.
//!
//! Whether the store has an event already is asked by a scalar subquery, which is always an index look-up a row: a join
//! could be planned as a scan of the whole store while its statistics are young.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::event::{Shard, ShardSet};

/// What one claim did in one shard.
#[derive(Clone, Copy, Debug, PartialEq, sqlx::FromRow)]
pub struct Moved {
    pub shard: Shard,
    /// Outbox rows found: where they are as many as were asked for, there may be more. Another relay may have taken
    /// some of them while this one waited.
    pub found: i64,
    /// Outbox rows taken.
    pub taken: i64,
    /// Of those, events that the store did not have yet.
    pub stored: i64,
    /// Bytes of what was taken, as the outbox keeps it.
    pub bytes: i64,
    /// The oldest was accepted this long ago, in seconds.
    pub oldest_seconds: Option<f64>,
}

/// Embedded bus: takes the oldest rows of each shard that is free, numbers them, stores them and deletes them.
///
/// `low_water` trails the newest row taken by 20 000 in `seq`, so that a row whose transaction committed late is still
/// found by the next claim; one that is later still is found by the sweep, which starts at 0.
const MOVE: &str = "
WITH claimed AS MATERIALIZED (
  SELECT shard, position, low_water FROM outbox_shard WHERE shard = ANY($1) ORDER BY shard FOR UPDATE SKIP LOCKED
), picked AS MATERIALIZED (
  SELECT c.shard, o.place, o.size FROM claimed c CROSS JOIN LATERAL (
    SELECT n.*, sum(n.size) OVER (ORDER BY n.seq ROWS UNBOUNDED PRECEDING) - n.size AS before FROM (
      SELECT o.ctid AS place, o.seq, pg_column_size(o.event_payload) AS size FROM outbox o
       WHERE o.shard = c.shard AND o.seq >= CASE WHEN $3 THEN 0 ELSE c.low_water END
       ORDER BY o.seq LIMIT $2) n) o
   WHERE o.before < $4
), found AS MATERIALIZED (
  SELECT shard, count(*) AS found, sum(size)::bigint AS bytes FROM picked GROUP BY shard
), taken AS (
  DELETE FROM outbox WHERE ctid = ANY(ARRAY(SELECT place FROM picked))
  RETURNING outbox_id, created_at, event_payload, shard, seq
), looked AS MATERIALIZED (
  SELECT t.*, (SELECT e.event_id FROM event_store e WHERE e.event_id = t.outbox_id) IS NOT NULL AS known FROM taken t
), fresh AS MATERIALIZED (
  SELECT l.*, row_number() OVER (PARTITION BY l.shard ORDER BY l.seq) AS n FROM looked l WHERE NOT l.known
), stored AS (
  INSERT INTO event_store (event_id, event_type, aggregate_id, timestamp, payload, metadata, ingested_at, shard, position)
  SELECT f.outbox_id, f.event_payload->>'event_type', f.event_payload->>'aggregate_id',
         (f.event_payload->>'timestamp')::timestamptz, f.event_payload->'payload', f.event_payload->'metadata',
         (f.event_payload->>'ingested_at')::timestamptz, f.shard, c.position + f.n
    FROM fresh f JOIN claimed c ON c.shard = f.shard ORDER BY f.shard, f.n
), per_shard AS MATERIALIZED (
  SELECT shard, count(*) AS taken, count(*) FILTER (WHERE NOT known) AS stored, max(seq) AS seq,
         min(created_at) AS oldest
    FROM looked GROUP BY shard
), counted AS (
  UPDATE outbox_shard s SET position = s.position + p.stored, low_water = greatest(s.low_water, p.seq - 20000)
    FROM per_shard p WHERE s.shard = p.shard
)
SELECT c.shard, coalesce(f.found, 0) AS found, coalesce(p.taken, 0) AS taken, coalesce(p.stored, 0) AS stored,
       coalesce(f.bytes, 0) AS bytes, extract(epoch FROM clock_timestamp() - p.oldest)::float8 AS oldest_seconds
  FROM claimed c LEFT JOIN found f ON f.shard = c.shard LEFT JOIN per_shard p ON p.shard = c.shard";

/// Kafka: as above, but the rows stay, with their position, until they are published. A row whose event the store has
/// already is deleted.
const APPEND: &str = "
WITH claimed AS MATERIALIZED (
  SELECT shard, position, low_water FROM outbox_shard WHERE shard = ANY($1) ORDER BY shard FOR UPDATE SKIP LOCKED
), picked AS MATERIALIZED (
  SELECT c.position AS base, o.* FROM claimed c CROSS JOIN LATERAL (
    SELECT n.*, sum(n.size) OVER (ORDER BY n.seq ROWS UNBOUNDED PRECEDING) - n.size AS before FROM (
      SELECT o.ctid AS place, o.outbox_id, o.shard, o.seq, o.created_at, pg_column_size(o.event_payload) AS size
        FROM outbox o
       WHERE o.shard = c.shard AND o.position IS NULL AND o.seq >= CASE WHEN $3 THEN 0 ELSE c.low_water END
       ORDER BY o.seq LIMIT $2) n) o
   WHERE o.before < $4
), looked AS MATERIALIZED (
  SELECT p.*, (SELECT e.event_id FROM event_store e WHERE e.event_id = p.outbox_id) IS NOT NULL AS known FROM picked p
), fresh AS MATERIALIZED (
  SELECT l.place, l.base + row_number() OVER (PARTITION BY l.shard ORDER BY l.seq) AS given
    FROM looked l WHERE NOT l.known
), placed AS (
  UPDATE outbox o SET position = f.given FROM fresh f WHERE o.ctid = f.place AND o.position IS NULL
  RETURNING o.outbox_id, o.event_payload, o.shard, o.position
), known AS (
  DELETE FROM outbox WHERE ctid = ANY(ARRAY(SELECT place FROM looked WHERE known))
), stored AS (
  INSERT INTO event_store (event_id, event_type, aggregate_id, timestamp, payload, metadata, ingested_at, shard, position)
  SELECT f.outbox_id, f.event_payload->>'event_type', f.event_payload->>'aggregate_id',
         (f.event_payload->>'timestamp')::timestamptz, f.event_payload->'payload', f.event_payload->'metadata',
         (f.event_payload->>'ingested_at')::timestamptz, f.shard, f.position
    FROM placed f ORDER BY f.shard, f.position
), per_shard AS MATERIALIZED (
  SELECT shard, count(*) AS taken, count(*) FILTER (WHERE NOT known) AS stored, max(seq) AS seq,
         sum(size)::bigint AS bytes, min(created_at) AS oldest
    FROM looked GROUP BY shard
), counted AS (
  UPDATE outbox_shard s SET position = s.position + p.stored, low_water = greatest(s.low_water, p.seq - 20000)
    FROM per_shard p WHERE s.shard = p.shard
)
SELECT c.shard, coalesce(p.taken, 0) AS found, coalesce(p.taken, 0) AS taken, coalesce(p.stored, 0) AS stored,
       coalesce(p.bytes, 0) AS bytes, extract(epoch FROM clock_timestamp() - p.oldest)::float8 AS oldest_seconds
  FROM claimed c LEFT JOIN per_shard p ON p.shard = c.shard";

/// Locks shards, so that statements after it in the same transaction see all that other relays have done to them.
const LOCK: &str = "SELECT shard FROM outbox_shard WHERE shard = ANY($1) ORDER BY shard FOR UPDATE SKIP LOCKED";

/// How a claim is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub shards: ShardSet,
    /// Most rows of one shard.
    pub per_shard: i64,
    /// A shard's rows are taken until they are as many bytes as this.
    pub bytes_per_shard: i64,
    /// Start at the beginning instead of the low-water mark.
    pub sweep: bool,
    /// Kafka: keep the rows, with their positions, for publishing.
    pub keep: bool,
}

/// Does a claim in one transaction. Shards missing in the answer are another relay's at the moment.
pub async fn claim(pool: &PgPool, claim: Claim) -> Result<Vec<Moved>, sqlx::Error> {
    if !claim.keep {
        return run(&mut *pool.acquire().await?, claim).await;
    }
    let mut tx = pool.begin().await?;
    let free: Vec<Shard> = sqlx::query_scalar(LOCK).bind(claim.shards.to_vec()).fetch_all(&mut *tx).await?;
    let moved = run(&mut tx, Claim { shards: free.into_iter().collect(), ..claim }).await?;
    tx.commit().await?;
    Ok(moved)
}

/// Does a claim in the transaction of the caller, if there is one.
pub async fn run(connection: &mut PgConnection, claim: Claim) -> Result<Vec<Moved>, sqlx::Error> {
    sqlx::query_as(if claim.keep { APPEND } else { MOVE })
        .bind(claim.shards.to_vec())
        .bind(claim.per_shard)
        .bind(claim.sweep)
        .bind(claim.bytes_per_shard)
        .fetch_all(connection)
        .await
}

/// Locks the shards that are free.
pub async fn lock(connection: &mut PgConnection, shards: ShardSet) -> Result<ShardSet, sqlx::Error> {
    let free: Vec<Shard> = sqlx::query_scalar(LOCK).bind(shards.to_vec()).fetch_all(connection).await?;
    Ok(free.into_iter().collect())
}

/// The oldest row of a shard that is not in the event store.
pub async fn oldest(connection: &mut PgConnection, shard: Shard) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT outbox_id FROM outbox WHERE shard = $1 AND position IS NULL ORDER BY seq LIMIT 1")
        .bind(shard)
        .fetch_optional(connection)
        .await
}

/// Moves an outbox row to the dead letters; the letter of one that was replayed and fails again is pending again.
pub async fn dead_letter(connection: &mut PgConnection, outbox_id: Uuid, cause: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH taken AS (
           DELETE FROM outbox WHERE outbox_id = $2 RETURNING event_payload, retry_count, shard, position)
         INSERT INTO dlq (dlq_id, consumer, event_id, event_payload, error_message, retry_count, shard, position)
         SELECT $1, 'relay', $2, event_payload, $3, retry_count, shard, position FROM taken
         ON CONFLICT (consumer, event_id, subject) WHERE event_id IS NOT NULL DO UPDATE SET
                status = 'pending', error_message = EXCLUDED.error_message, failed_at = now(),
                retry_count = dlq.retry_count + 1 + EXCLUDED.retry_count, replay_requested_at = NULL, resolved_at = NULL,
                reason = NULL, position = coalesce(EXCLUDED.position, dlq.position)",
    )
    .bind(Uuid::now_v7())
    .bind(outbox_id)
    .bind(cause)
    .execute(connection)
    .await?;
    Ok(())
}

/// Days (as UTC dates) that rows of the outbox were accepted on, by their ids.
pub async fn days_waiting(connection: &mut PgConnection) -> Result<Vec<chrono::NaiveDate>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT (to_timestamp(('x' || substr(replace(outbox_id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0)
                 AT TIME ZONE 'UTC')::date FROM outbox WHERE position IS NULL LIMIT 100",
    )
    .fetch_all(connection)
    .await
}
