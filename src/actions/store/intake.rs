//! Deliveries are made of events.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::event::StoredEvent;

/// A delivery to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct New<'a> {
    pub delivery_id: Uuid,
    pub action: &'a str,
    pub event: &'a StoredEvent,
    /// `None`: a duplicate, of which nothing is sent.
    pub body: Option<String>,
}

/// Writes deliveries; one that is there already stays as it is.
pub async fn insert(connection: &mut PgConnection, new: &[New<'_>]) -> Result<u64, sqlx::Error> {
    let text = |of: fn(&StoredEvent) -> &str| -> Vec<&str> { new.iter().map(|new| of(new.event)).collect() };
    let traceparents: Vec<Option<&str>> = new.iter().map(|new| new.event.metadata["traceparent"].as_str()).collect();
    let written = sqlx::query(
        "INSERT INTO delivery (delivery_id, action, event_id, event_type, aggregate_id, shard, position, body, traceparent,
                               status, message, finished_at)
         SELECT n.delivery_id, n.action, n.event_id, n.event_type, n.aggregate_id, n.shard, n.position, n.body, n.traceparent,
                CASE WHEN n.body IS NULL THEN 'suppressed' ELSE 'pending' END,
                CASE WHEN n.body IS NULL THEN 'an event of the same key was accepted within the window' END,
                CASE WHEN n.body IS NULL THEN now() END
           FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::smallint[], $7::bigint[], $8::text[],
                       $9::text[])
                AS n (delivery_id, action, event_id, event_type, aggregate_id, shard, position, body, traceparent)
         ON CONFLICT DO NOTHING",
    )
    .bind(new.iter().map(|new| new.delivery_id).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.action).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.event.event_id).collect::<Vec<_>>())
    .bind(text(|event| &event.event_type))
    .bind(text(|event| &event.aggregate_id))
    .bind(new.iter().map(|new| new.event.shard).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.event.position).collect::<Vec<_>>())
    .bind(new.iter().map(|new| new.body.as_deref()).collect::<Vec<_>>())
    .bind(traceparents)
    .execute(connection)
    .await?;
    Ok(written.rows_affected())
}

/// What is committed now is kept, whatever happens to the server: the offset must not be ahead of the deliveries.
pub async fn be_durable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL synchronous_commit = on").execute(connection).await?;
    Ok(())
}
