//! SQL of replays into projections.

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::bus::embedded::store::{self as event_store, Page};
use crate::dead_letters::EVENT_HANDLER;
use crate::event::Shard;

/// Positions of events, as far as the event store has them.
pub async fn positions(ingestion: &PgPool, events: &[Uuid]) -> Result<HashMap<Uuid, i64>, sqlx::Error> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as("SELECT event_id, position FROM event_store WHERE event_id = ANY($1)")
        .bind(events)
        .fetch_all(ingestion)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Of these shards, those in which the event behind the position given was dropped with its partition. To be asked after
/// events were read: what was gone before is found missing.
pub async fn lost(ingestion: &PgPool, after: &[(Shard, i64)]) -> Result<Vec<Shard>, sqlx::Error> {
    let (shards, positions): (Vec<Shard>, Vec<i64>) = after.iter().copied().unzip();
    sqlx::query_scalar(
        "SELECT c.shard FROM unnest($1::smallint[], $2::bigint[]) AS c (shard, position)
          WHERE (SELECT s.position FROM event_store s
                  WHERE s.shard = c.shard AND s.position = c.position + 1 LIMIT 1) IS NULL",
    )
    .bind(shards)
    .bind(positions)
    .fetch_all(ingestion)
    .await
}

/// The last positions of the letters of a projection, by lane.
pub async fn last_letters(
    connection: &mut PgConnection,
    projection: &str,
    lanes: &[String],
) -> Result<HashMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT aggregate_id, max(position) FROM dlq
          WHERE consumer = $1 AND subject = $2 AND aggregate_id = ANY($3) AND position IS NOT NULL
          GROUP BY aggregate_id",
    )
    .bind(EVENT_HANDLER)
    .bind(projection)
    .bind(lanes)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// What is to be read of one aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub aggregate_id: String,
    pub after: i64,
    pub through: i64,
}

const OF_AGGREGATES: &str = "
SELECT e.shard, e.position, e.event_id, e.event_type, e.aggregate_id, e.timestamp, e.payload, e.metadata, e.ingested_at
  FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS k (key, after, through, n)
 CROSS JOIN LATERAL (
   SELECT s.* FROM event_store s
    WHERE s.aggregate_id = k.key AND s.position > k.after AND s.position <= k.through
      AND (s.event_type = ANY($4) OR s.event_type ^@ ANY($5))
    ORDER BY s.position LIMIT $6) e
 ORDER BY k.n, e.position";

/// Events of aggregates, in the order given and by position, at most `each` of one. Where the page is cut, there
/// may be more of the last event's aggregate and of those behind it.
pub async fn of_aggregates(
    ingestion: &PgPool,
    stretches: &[Stretch],
    (event_types, prefixes): (&[String], &[String]),
    each: i64,
) -> Result<Page, sqlx::Error> {
    let rows = sqlx::query(OF_AGGREGATES)
        .bind(stretches.iter().map(|stretch| stretch.aggregate_id.as_str()).collect::<Vec<_>>())
        .bind(stretches.iter().map(|stretch| stretch.after).collect::<Vec<_>>())
        .bind(stretches.iter().map(|stretch| stretch.through).collect::<Vec<_>>())
        .bind(event_types)
        .bind(prefixes)
        .bind(each)
        .fetch(ingestion);
    event_store::page(rows).await
}
