//! SQL of publishing.

use futures::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::event::{SHARDS, Shard, ShardSet};
use crate::pace::{Budget, MAX_BATCH_BYTES};

/// A stored event that waits to be published.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Positioned {
    pub outbox_id: Uuid,
    pub shard: Shard,
    pub position: i64,
    pub event_type: String,
    pub aggregate_id: String,
    pub traceparent: Option<String>,
    /// The bus refused it before: events of higher positions may be published already.
    pub late: bool,
    /// The envelope as JSON text.
    pub envelope: String,
    /// Bytes of the envelope as the outbox keeps it.
    pub size: i32,
}

/// Rows in the order of shard and position.
#[derive(Debug, Default)]
pub struct Page {
    pub rows: Vec<Positioned>,
    /// Shards that may have more rows behind these.
    pub more: ShardSet,
    /// They are as many bytes as a batch may have.
    pub cut: bool,
}

/// Takes the right to publish shards, until the transaction ends. Advisory, so that it is not the lock of appending.
pub async fn lock(connection: &mut PgConnection, shards: ShardSet) -> Result<ShardSet, sqlx::Error> {
    let mine: Vec<Shard> = sqlx::query_scalar(
        "SELECT s FROM unnest($1::smallint[]) AS s WHERE pg_try_advisory_xact_lock(1667891202, s::int)",
    )
    .bind(shards.to_vec())
    .fetch_all(connection)
    .await?;
    Ok(mine.into_iter().collect())
}

/// The rows above the floors (by shard), in batches bounded by rows and by bytes. What the outbox keeps is compressed:
/// the database bounds that, so that it need not unpack more, and the client bounds what is in memory.
const POSITIONED: &str = "
SELECT o.outbox_id, o.shard, o.position, o.event_payload->>'event_type' AS event_type,
       o.event_payload->>'aggregate_id' AS aggregate_id, o.event_payload->'metadata'->>'traceparent' AS traceparent,
       o.late, o.event_payload::text AS envelope, o.size
  FROM unnest($1::smallint[], $2::bigint[]) AS c (shard, floor)
 CROSS JOIN LATERAL (
   SELECT n.*, sum(n.size) OVER (ORDER BY n.position ROWS UNBOUNDED PRECEDING) - n.size AS before FROM (
     SELECT o.*, pg_column_size(o.event_payload) AS size FROM outbox o
      WHERE o.shard = c.shard AND o.position > c.floor ORDER BY o.position LIMIT $3) n) o
 WHERE o.before < $4
 ORDER BY o.shard, o.position";

/// The rows to be published next of shards that the caller has locked: at most so many altogether.
pub async fn positioned(
    connection: &mut PgConnection,
    shards: ShardSet,
    floors: &[i64],
    rows: i64,
) -> Result<Page, sqlx::Error> {
    let share = |all: i64| (all / i64::try_from(shards.iter().count().clamp(1, SHARDS)).unwrap_or(1)).max(1);
    let (per_shard, bytes) = (share(rows), share(i64::try_from(MAX_BATCH_BYTES).unwrap_or(i64::MAX)));
    let floor = |shard| usize::try_from(shard).ok().and_then(|at| floors.get(at)).copied().unwrap_or(0);
    let mut found = sqlx::query_as::<_, Positioned>(POSITIONED)
        .bind(shards.to_vec())
        .bind(shards.iter().map(floor).collect::<Vec<i64>>())
        .bind(per_shard)
        .bind(bytes)
        .fetch(connection);
    let mut page = Page::default();
    let mut budget = Budget::new(MAX_BATCH_BYTES);
    let (mut last, mut count, mut size) = (-1, 0, 0);
    while let Some(row) = found.try_next().await? {
        if !budget.take(row.envelope.len()) {
            page.cut = true;
            // This shard and those behind it.
            page.more = page.more.union(shards.iter().filter(|shard| *shard >= row.shard).collect());
            break;
        }
        if row.shard != last {
            (last, count, size) = (row.shard, 0, 0);
        }
        (count, size) = (count + 1, size + i64::from(row.size));
        if count >= per_shard || size >= bytes {
            page.more.insert(last);
        }
        page.rows.push(row);
    }
    Ok(page)
}

/// Deletes rows whose publication was confirmed.
pub async fn published(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM outbox WHERE outbox_id = ANY($1)").bind(ids).execute(connection).await?;
    Ok(())
}

/// Counts an attempt at an event that its topic did not take.
pub async fn tried(connection: &mut PgConnection, shard: Shard, position: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE outbox SET retry_count = retry_count + 1 WHERE shard = $1 AND position = $2")
        .bind(shard)
        .bind(position)
        .execute(connection)
        .await?;
    Ok(())
}
