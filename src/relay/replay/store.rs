//! SQL of the relay's replays. Events go from row to row within the database: no number loses a digit.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::event::Shard;

/// Where an event is in the event store, if it is there.
pub async fn place(connection: &mut PgConnection, event_id: Uuid) -> Result<Option<(Shard, i64)>, sqlx::Error> {
    sqlx::query_as("SELECT shard, position FROM event_store WHERE event_id = $1")
        .bind(event_id)
        .fetch_optional(connection)
        .await
}

/// Stores the event of a letter as the relay would, for the caller to undo.
pub async fn try_to_store(connection: &mut PgConnection, dlq_id: Uuid, shard: Shard) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO event_store (event_id, event_type, aggregate_id, timestamp, payload, metadata, ingested_at, shard,
                position)
         SELECT event_id, event_payload->>'event_type', event_payload->>'aggregate_id',
                (event_payload->>'timestamp')::timestamptz, event_payload->'payload', event_payload->'metadata',
                (event_payload->>'ingested_at')::timestamptz, $2, 0
           FROM dlq WHERE dlq_id = $1",
    )
    .bind(dlq_id)
    .bind(shard)
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts the event of a letter into the outbox, to be stored.
pub async fn put_back(connection: &mut PgConnection, dlq_id: Uuid, shard: Shard) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO outbox (outbox_id, event_payload, shard)
         SELECT event_id, event_payload, $2 FROM dlq WHERE dlq_id = $1 ON CONFLICT (outbox_id) DO NOTHING",
    )
    .bind(dlq_id)
    .bind(shard)
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts the event of a letter into the outbox, to be published under the position that it has in the event store.
pub async fn publish_again(
    connection: &mut PgConnection,
    dlq_id: Uuid,
    shard: Shard,
    position: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO outbox (outbox_id, event_payload, shard, position, late)
         SELECT event_id, event_payload, $2, $3, true FROM dlq WHERE dlq_id = $1 ON CONFLICT (outbox_id) DO NOTHING",
    )
    .bind(dlq_id)
    .bind(shard)
    .bind(position)
    .execute(connection)
    .await?;
    Ok(())
}
