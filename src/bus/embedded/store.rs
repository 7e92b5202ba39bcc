//! SQL of the embedded bus, and of every other reader of the event store.

use chrono::{DateTime, Utc};
use futures::{Stream, TryStreamExt};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool, Postgres, Row, Transaction};
use uuid::Uuid;

use crate::bus::reader::Wanted;
use crate::event::{SHARDS, Shard, ShardSet, StoredEvent};
use crate::pace::{Budget, MAX_BATCH_BYTES};

/// The cursors of a consumer group, in the table of the service that owns it.
#[derive(Clone, Copy, Debug)]
pub struct Cursors {
    group: &'static str,
    table: &'static str,
    begin: &'static str,
}

/// Those of the event handler, whose batches share a lock (see [`crate::bus::GROUP_LOCK`]).
pub const EVENT_HANDLER: Cursors = Cursors {
    group: crate::bus::EVENT_HANDLER,
    table: "bus_cursor",
    begin: crate::bus::reader::BEGIN_UNDER_GROUP_LOCK,
};

impl Cursors {
    /// Of a group that locks nothing but its cursors. The table has the columns of `bus_cursor`.
    pub const fn of(group: &'static str, table: &'static str) -> Self {
        Self { group, table, begin: "BEGIN" }
    }

    pub fn group(&self) -> &'static str {
        self.group
    }

    pub(super) async fn begin(&self, pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        pool.begin_with(self.begin).await
    }

    /// The statement, about this table. Both are constants of this program.
    fn sql(&self, statement: &'static str) -> AssertSqlSafe<String> {
        AssertSqlSafe(statement.replace("{cursor}", self.table))
    }

    /// Makes those that do not exist yet, at the positions given by shard. Returns how many that were.
    pub async fn make(&self, pool: &PgPool, positions: &[i64]) -> Result<u64, sqlx::Error> {
        debug_assert_eq!(positions.len(), SHARDS);
        let sql = self.sql(
            "INSERT INTO {cursor} (consumer_group, shard, position)
             SELECT $1, (number - 1)::smallint, position FROM unnest($2::bigint[]) WITH ORDINALITY AS p (position, number)
             ON CONFLICT DO NOTHING",
        );
        Ok(sqlx::query(sql).bind(self.group).bind(positions).execute(pool).await?.rows_affected())
    }

    /// Locks those that no other instance holds.
    pub(super) async fn lock(
        &self,
        connection: &mut PgConnection,
        shards: ShardSet,
    ) -> Result<Vec<(Shard, i64)>, sqlx::Error> {
        let sql = self.sql(
            "SELECT shard, position FROM {cursor} WHERE consumer_group = $1 AND shard = ANY($2)
              ORDER BY shard FOR UPDATE SKIP LOCKED",
        );
        sqlx::query_as(sql).bind(self.group).bind(shards.to_vec()).fetch_all(connection).await
    }

    /// Moves them to the positions given.
    pub(super) async fn advance(
        &self,
        connection: &mut PgConnection,
        positions: &[(Shard, i64)],
    ) -> Result<(), sqlx::Error> {
        let (shards, positions): (Vec<Shard>, Vec<i64>) = positions.iter().copied().unzip();
        let sql = self.sql(
            "UPDATE {cursor} c SET position = m.position
               FROM unnest($2::smallint[], $3::bigint[]) AS m (shard, position)
              WHERE c.consumer_group = $1 AND c.shard = m.shard",
        );
        sqlx::query(sql).bind(self.group).bind(shards).bind(positions).execute(connection).await?;
        Ok(())
    }

    /// The group's positions by shard.
    pub async fn positions(&self, pool: &PgPool) -> Result<Vec<i64>, sqlx::Error> {
        let sql = self.sql("SELECT shard, position FROM {cursor} WHERE consumer_group = $1");
        let rows: Vec<(Shard, i64)> = sqlx::query_as(sql).bind(self.group).fetch_all(pool).await?;
        Ok(by_shard(&rows))
    }
}

/// The last position given in each shard of the event store.
pub async fn heads(pool: &PgPool) -> Result<Vec<i64>, sqlx::Error> {
    let rows: Vec<(Shard, i64)> = sqlx::query_as("SELECT shard, position FROM outbox_shard").fetch_all(pool).await?;
    Ok(by_shard(&rows))
}

/// The position in each shard up to which every event was published and confirmed (Kafka).
pub async fn published(pool: &PgPool) -> Result<Vec<i64>, sqlx::Error> {
    let rows: Vec<(Shard, i64)> = sqlx::query_as(
        "SELECT s.shard, coalesce((SELECT o.position - 1 FROM outbox o
                                    WHERE o.shard = s.shard AND o.position IS NOT NULL ORDER BY o.position LIMIT 1),
                                  s.position)
           FROM outbox_shard s",
    )
    .fetch_all(pool)
    .await?;
    Ok(by_shard(&rows))
}

/// Registers how far a reader has come, so that nothing unread is dropped.
pub async fn report_reader(pool: &PgPool, reader: &str, positions: &[i64]) -> Result<(), sqlx::Error> {
    debug_assert_eq!(positions.len(), SHARDS);
    sqlx::query(
        "INSERT INTO event_store_reader (reader, positions) VALUES ($1, $2)
         ON CONFLICT (reader) DO UPDATE SET positions = EXCLUDED.positions, updated_at = now()",
    )
    .bind(reader)
    .bind(positions)
    .execute(pool)
    .await?;
    Ok(())
}

fn by_shard(rows: &[(Shard, i64)]) -> Vec<i64> {
    let mut positions = vec![0; SHARDS];
    for (shard, position) in rows {
        if let Some(slot) = usize::try_from(*shard).ok().and_then(|at| positions.get_mut(at)) {
            *slot = *position;
        }
    }
    positions
}

/// Whether the event behind one of these positions is not there any more, though positions have no gap: it was dropped
/// with its partition. Then, from when on there are events (now, where none is left).
pub async fn history_lost(pool: &PgPool, after: &[(Shard, i64)]) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let (shards, positions): (Vec<Shard>, Vec<i64>) = after.iter().copied().unzip();
    // A question a shard, each answered by the index.
    sqlx::query_scalar(
        "SELECT coalesce((SELECT ingested_at FROM event_store ORDER BY event_id LIMIT 1), now())
          WHERE EXISTS (SELECT FROM unnest($1::smallint[], $2::bigint[]) AS c (shard, position)
                 WHERE (SELECT s.position FROM event_store s
                         WHERE s.shard = c.shard AND s.position = c.position + 1 LIMIT 1) IS NULL)",
    )
    .bind(shards)
    .bind(positions)
    .fetch_optional(pool)
    .await
}

const READ: &str = "
SELECT e.shard, e.position, e.event_id, e.event_type, e.aggregate_id, e.timestamp,
       CASE WHEN e.wanted THEN e.payload END AS payload, CASE WHEN e.wanted THEN e.metadata END AS metadata, e.ingested_at
  FROM unnest($1::smallint[], $2::bigint[]) AS c (shard, position)
 CROSS JOIN LATERAL (
   SELECT s.*, (s.event_type = ANY($4) OR s.event_type ^@ ANY($5)) AS wanted
     FROM event_store s WHERE s.shard = c.shard AND s.position > c.position
    ORDER BY s.position LIMIT $3) e
 ORDER BY e.shard, e.position";

type Stored = (Shard, i64, Uuid, String, String, DateTime<Utc>, Option<Value>, Option<Value>, DateTime<Utc>);

/// Events of the store, ordered by shard and position.
#[derive(Debug, Default)]
pub struct Page {
    pub events: Vec<StoredEvent>,
    /// They are as many bytes as a batch may have: the last event's shard, and those behind it, may have more.
    pub cut: bool,
}

impl Page {
    /// The shards that it ends before.
    pub fn unreached(&self, asked: ShardSet) -> ShardSet {
        match self.events.last() {
            Some(last) if self.cut => asked.iter().filter(|shard| *shard > last.shard).collect(),
            _ => ShardSet::EMPTY,
        }
    }
}

/// Reads events above the positions given, at most `per_shard` of each shard and, with the one that exceeds it,
/// [`MAX_BATCH_BYTES`] in all.
pub async fn read(pool: &PgPool, above: &[(Shard, i64)], per_shard: i64, wanted: &Wanted) -> Result<Page, sqlx::Error> {
    if above.is_empty() {
        return Ok(Page::default());
    }
    let (shards, positions): (Vec<Shard>, Vec<i64>) = above.iter().copied().unzip();
    let rows = sqlx::query(READ)
        .bind(shards)
        .bind(positions)
        .bind(per_shard)
        .bind(&wanted.event_types)
        .bind(&wanted.prefixes)
        .fetch(pool);
    page(rows).await
}

/// Rows of the event store as events, within [`MAX_BATCH_BYTES`] and the one that exceeds it. Columns: those of [`READ`].
pub async fn page(mut rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Unpin) -> Result<Page, sqlx::Error> {
    let (mut page, mut budget) = (Page::default(), Budget::new(MAX_BATCH_BYTES));
    // Row by row: what is beyond the bound is never in memory.
    while let Some(row) = rows.try_next().await? {
        if !budget.take(row.try_get_raw("payload")?.as_bytes().map_or(0, <[u8]>::len)) {
            page.cut = true;
            break;
        }
        page.events.push(into_event(Stored::from_row(&row)?));
    }
    Ok(page)
}

fn into_event(
    (shard, position, event_id, event_type, aggregate_id, timestamp, payload, metadata, ingested_at): Stored,
) -> StoredEvent {
    let (payload, metadata) = (payload.unwrap_or(Value::Null), metadata.unwrap_or(Value::Null));
    StoredEvent { shard, position, event_id, event_type, aggregate_id, timestamp, payload, metadata, ingested_at }
}
