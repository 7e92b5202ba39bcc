//! Reads of the event store and the outbox, by `INGESTION_DATABASE_URL`. Nothing here writes.

use std::collections::BTreeMap;

use sqlx::{FromRow, PgPool, Row};
use uuid::Uuid;

use super::merge::Found;
use super::{Beginning, Event, Positions, Wanted, first_id_at};
use crate::event::{Shard, shard_of};
use crate::query::wait::{Place, Whereabouts};

/// Most positions of one shard that a page of a stream looks at.
const WINDOW: i64 = 2_000;

/// Where an event is, as of one snapshot: an event on its way from the outbox to the store is never in neither.
pub async fn locate(pool: &PgPool, event_id: Uuid) -> sqlx::Result<Whereabouts> {
    let row = sqlx::query(
        "SELECT e.shard, e.position, e.event_type, e.aggregate_id,
                EXISTS (SELECT 1 FROM outbox o WHERE o.outbox_id = $1) AS waiting
         FROM (SELECT 1) one LEFT JOIN event_store e ON e.event_id = $1",
    )
    .bind(event_id)
    .fetch_one(pool)
    .await?;
    let Some(shard) = row.try_get::<Option<Shard>, _>("shard")? else {
        return Ok(if row.try_get("waiting")? { Whereabouts::Accepted } else { Whereabouts::Unknown });
    };
    Ok(Whereabouts::Stored(Place {
        shard,
        position: row.try_get("position")?,
        event_type: row.try_get("event_type")?,
        aggregate_id: row.try_get("aggregate_id")?,
    }))
}

pub async fn one(pool: &PgPool, event_id: Uuid) -> sqlx::Result<Option<Event>> {
    sqlx::query_as(
        "SELECT event_id, event_type, aggregate_id, timestamp, payload, metadata, ingested_at, shard, position
         FROM event_store WHERE event_id = $1",
    )
    .bind(event_id)
    .fetch_optional(pool)
    .await
}

/// The events of an aggregate behind a position, in order.
pub async fn of_aggregate(
    pool: &PgPool,
    aggregate_id: &str,
    event_type: Option<&str>,
    behind: i64,
    limit: i64,
) -> sqlx::Result<Vec<Event>> {
    sqlx::query_as(
        "SELECT event_id, event_type, aggregate_id, timestamp, payload, metadata, ingested_at, shard, position
         FROM event_store
         WHERE aggregate_id = $1 AND position > $2 AND ($3::text IS NULL OR event_type = $3)
         ORDER BY position LIMIT $4",
    )
    .bind(aggregate_id)
    .bind(behind)
    .bind(event_type)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The newest position of every shard.
pub async fn heads(pool: &PgPool) -> sqlx::Result<Positions> {
    let rows: Vec<(Shard, i64)> = sqlx::query_as("SELECT shard, position FROM outbox_shard").fetch_all(pool).await?;
    let mut heads = Positions::default();
    for (shard, position) in rows {
        heads.reach(shard, position);
    }
    Ok(heads)
}

/// The position behind which a stream begins, for every shard.
pub async fn beginning(pool: &PgPool, from: Beginning) -> sqlx::Result<Positions> {
    let first = match from {
        Beginning::Now => return heads(pool).await,
        Beginning::Earliest => return earliest(pool).await,
        Beginning::Time(time) => first_id_at(time),
        Beginning::Event(event_id) => event_id,
    };
    // Shards that have nothing from there on begin at their head.
    let rows: Vec<(Shard, i64)> = sqlx::query_as(
        "SELECT s.shard, coalesce(f.first - 1, s.position)
         FROM outbox_shard s LEFT JOIN
              (SELECT shard, min(position) AS first FROM event_store WHERE event_id >= $1 GROUP BY shard) f USING (shard)",
    )
    .bind(first)
    .fetch_all(pool)
    .await?;
    Ok(collect(rows))
}

/// Behind what retention has dropped: one look into the index a shard.
async fn earliest(pool: &PgPool) -> sqlx::Result<Positions> {
    let rows: Vec<(Shard, i64)> = sqlx::query_as(
        "SELECT s.shard, coalesce((SELECT e.position - 1 FROM event_store e WHERE e.shard = s.shard
                                   ORDER BY e.position LIMIT 1), s.position)
         FROM outbox_shard s",
    )
    .fetch_all(pool)
    .await?;
    Ok(collect(rows))
}

fn collect(rows: Vec<(Shard, i64)>) -> Positions {
    let mut positions = Positions::default();
    for (shard, position) in rows {
        positions.reach(shard, position);
    }
    positions
}

/// What is wanted of the next positions of every shard that has news, at most `per_shard` events of each, and the bytes
/// of their payloads. Empty: no shard has.
pub async fn behind(
    pool: &PgPool,
    positions: &Positions,
    wanted: &Wanted,
    per_shard: i64,
) -> sqlx::Result<(Vec<Found>, usize)> {
    let rows = sqlx::query(
        "SELECT c.shard, c.upto, e.event_id, e.event_type, e.aggregate_id, e.timestamp, e.payload, e.metadata,
                e.ingested_at, e.position
         FROM (SELECT s.shard, r.position AS behind, least(s.position, r.position + $5) AS upto
               FROM outbox_shard s
               JOIN unnest($1::bigint[]) WITH ORDINALITY AS r (position, number) ON r.number = s.shard + 1
               WHERE s.position > r.position AND ($4::smallint IS NULL OR s.shard = $4)) c
         LEFT JOIN LATERAL (
               SELECT * FROM event_store e
               WHERE e.shard = c.shard AND e.position > c.behind AND e.position <= c.upto
                 AND ($2::text IS NULL OR e.event_type = $2) AND ($3::text IS NULL OR e.aggregate_id = $3)
               ORDER BY e.position LIMIT $6) e ON true
         ORDER BY c.shard, e.position",
    )
    .bind(positions.as_slice())
    .bind(wanted.event_type.as_deref())
    .bind(wanted.aggregate_id.as_deref())
    .bind(wanted.aggregate_id.as_deref().map(shard_of))
    .bind(WINDOW)
    .bind(per_shard)
    .fetch_all(pool)
    .await?;
    let mut found: BTreeMap<Shard, Found> = BTreeMap::new();
    let mut bytes = 0;
    for row in &rows {
        bytes += row.try_get_raw("payload")?.as_bytes().map_or(0, <[u8]>::len);
        let shard: Shard = row.try_get("shard")?;
        let looked_through = row.try_get("upto")?;
        let entry =
            found.entry(shard).or_insert_with(|| Found { shard, events: [].into(), looked_through, cut_off: false });
        if row.try_get::<Option<Uuid>, _>("event_id")?.is_some() {
            entry.events.push_back(Event::from_row(row)?);
        }
    }
    let full = usize::try_from(per_shard).unwrap_or(usize::MAX);
    let found = found
        .into_values()
        .map(|f| {
            let cut_off = f.events.len() >= full;
            Found { cut_off, ..f }
        })
        .collect();
    Ok((found, bytes))
}

/// Succeeds where the tables are there and can be read.
pub async fn probe(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("SELECT FROM outbox_shard, event_store LIMIT 0").execute(pool).await.map(drop)
}
