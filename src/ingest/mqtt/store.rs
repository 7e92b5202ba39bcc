//! The SQL of MQTT: dead letters of messages that became no event, and which deliveries are stored.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::timeout;
use uuid::Uuid;

use super::message::Message;
use super::window::{Delivery, NEWEST};

/// Who writes these letters.
pub const CONSUMER: &str = "mqtt-ingress";
/// Longest wait for the database.
const ANSWER: Duration = Duration::from_secs(5);
/// Events that are looked through for deliveries of one client, the newest first.
const LOOKED_THROUGH: i64 = 50_000;
/// Of a payload so much is kept, in bytes: what is larger was no event anyhow.
const KEPT_BYTES: usize = 1 << 20;

/// A message that became no event.
#[derive(Clone, Debug)]
pub struct Letter {
    pub event_id: Uuid,
    pub message: Value,
    pub cause: String,
}

impl Letter {
    /// Keeps a message as it came: its payload as text, or in base64 where it is none.
    pub fn new(event_id: Uuid, message: &Message, cause: &str) -> Self {
        let kept = &message.payload[..message.payload.len().min(KEPT_BYTES)];
        let storable = |text: &str| !text.contains('\0');
        let payload = match std::str::from_utf8(kept) {
            Ok(text) if storable(text) => json!({"text": text}),
            _ => json!({"base64": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, kept)}),
        };
        let properties = message.properties.iter().filter(|(key, value)| storable(key) && storable(value));
        let message = json!({
            "topic": message.topic.replace('\0', ""),
            "content_type": message.content_type.as_deref().filter(|text| storable(text)),
            "user_properties": properties.collect::<Vec<_>>(),
            "payload": payload,
            "payload_bytes": message.payload.len(),
        });
        Self { event_id, message, cause: cause.replace('\0', "\u{fffd}") }
    }
}

/// Keeps letters; one that is there already is none the worse.
pub async fn keep(pool: &PgPool, letters: &[Letter]) -> Result<(), sqlx::Error> {
    let writing = sqlx::query(
        "INSERT INTO dlq (dlq_id, consumer, event_id, event_payload, error_message)
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::jsonb[], $5::text[]) ON CONFLICT DO NOTHING",
    )
    .bind(letters.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .bind(letters.iter().map(|_| CONSUMER).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.event_id).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.message.clone()).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.cause.as_str()).collect::<Vec<_>>())
    .execute(pool);
    timeout(ANSWER, writing).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
    Ok(())
}

/// The newest deliveries of a client that are stored, the oldest first.
pub async fn stored(pool: &PgPool, client: &str) -> Result<Vec<Delivery>, sqlx::Error> {
    let reading = sqlx::query_scalar(
        "SELECT delivery FROM (
             SELECT event_id, metadata->'mqtt'->>'delivery' AS delivery FROM
                 (SELECT event_id, metadata FROM event_store ORDER BY event_id DESC LIMIT $3) recent
             UNION ALL
             SELECT outbox_id, event_payload->'metadata'->'mqtt'->>'delivery' FROM
                 (SELECT outbox_id, event_payload FROM outbox ORDER BY outbox_id DESC LIMIT $3) waiting
         ) known
         WHERE starts_with(delivery, $1 || '/') ORDER BY event_id DESC LIMIT $2",
    )
    .bind(client)
    .bind(i64::try_from(NEWEST).unwrap_or(i64::MAX))
    .bind(LOOKED_THROUGH)
    .fetch_all(pool);
    let newest_first: Vec<String> = timeout(ANSWER, reading).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
    Ok(newest_first.iter().rev().filter_map(|text| text.parse().ok()).collect())
}
