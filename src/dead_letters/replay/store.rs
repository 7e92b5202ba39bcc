//! SQL of replays. All of it runs in the transaction of the replay's effect.

use futures::TryStreamExt;
use serde_json::Value;
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::event::Shard;
use crate::pace::{Budget, MAX_BATCH_BYTES};

/// A letter of which a replay was asked for.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct Requested {
    pub dlq_id: Uuid,
    pub subject: Option<String>,
    /// Letters of one subject and lane are replayed in their order.
    #[sqlx(rename = "lane")]
    pub lane_name: String,
    pub event_id: Option<Uuid>,
    pub event_payload: Value,
    pub shard: Option<Shard>,
    pub position: Option<i64>,
    #[sqlx(rename = "replay_append")]
    pub append: bool,
    pub retry_count: i32,
}

/// Subject and name of a lane.
pub type Lane = (Option<String>, String);

impl Requested {
    pub fn lane(&self) -> Lane {
        (self.subject.clone(), self.lane_name.clone())
    }
}

/// Whether this transaction is the only one, until it ends, that replays letters of the consumer.
pub async fn alone(connection: &mut PgConnection, consumer: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('cornjacket replay ' || $1, 0))")
        .bind(consumer)
        .fetch_one(connection)
        .await
}

/// Whether any replay is asked for.
pub async fn any(connection: &mut PgConnection, consumer: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM dlq
          WHERE consumer = $1 AND status = 'pending' AND replay_requested_at IS NOT NULL)",
    )
    .bind(consumer)
    .fetch_one(connection)
    .await
}

/// The subjects of which replays are asked for.
pub async fn subjects(connection: &mut PgConnection, consumer: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT subject FROM dlq
          WHERE consumer = $1 AND status = 'pending' AND replay_requested_at IS NOT NULL AND subject IS NOT NULL
          ORDER BY subject",
    )
    .bind(consumer)
    .fetch_all(connection)
    .await
}

/// The letters to be replayed next, in the order of their lanes: by position where it is known, and before those
/// the ones of earlier releases, of which it is not. At most so many, and [`MAX_BATCH_BYTES`] of them with the one that
/// exceeds it. `lanes`: only those of them.
pub async fn requested(
    connection: &mut PgConnection,
    consumer: &str,
    subject: Option<&str>,
    lanes: Option<&[String]>,
    limit: i64,
) -> Result<Vec<Requested>, sqlx::Error> {
    let mut rows = sqlx::query(
        "SELECT dlq_id, subject, lane, event_id, event_payload, shard, position, replay_append, retry_count FROM dlq
          WHERE consumer = $1 AND ($2::text IS NULL OR subject = $2) AND ($4::text[] IS NULL OR lane = ANY($4))
            AND status = 'pending' AND replay_requested_at IS NOT NULL
          ORDER BY position NULLS FIRST, dlq_id LIMIT $3",
    )
    .bind(consumer)
    .bind(subject)
    .bind(limit)
    .bind(lanes)
    .persistent(false)
    .fetch(connection);
    let (mut letters, mut budget) = (Vec::new(), Budget::new(MAX_BATCH_BYTES));
    while let Some(row) = rows.try_next().await? {
        if !budget.take(row.try_get_raw("event_payload")?.as_bytes().map_or(0, <[u8]>::len)) {
            break;
        }
        letters.push(Requested::from_row(&row)?);
    }
    Ok(letters)
}

/// The first lanes in which replays of a subject's letters are asked for.
pub async fn lanes(
    connection: &mut PgConnection,
    consumer: &str,
    subject: &str,
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT lane FROM (
           SELECT lane FROM dlq WHERE consumer = $1 AND subject = $2
              AND status = 'pending' AND replay_requested_at IS NOT NULL
            ORDER BY position NULLS FIRST, dlq_id LIMIT $3) first ORDER BY lane",
    )
    .bind(consumer)
    .bind(subject)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// A letter about an event that is read again.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Marked {
    pub event_id: Uuid,
    pub dlq_id: Uuid,
    /// Its event is to go in: else it is left out, as it is now.
    pub requested: bool,
}

/// The letters, of those about these events, whose events are in no row: pending ones and discarded ones.
pub async fn about(
    connection: &mut PgConnection,
    consumer: &str,
    subject: &str,
    events: &[Uuid],
) -> Result<Vec<Marked>, sqlx::Error> {
    sqlx::query_as(
        "SELECT event_id, dlq_id, status = 'pending' AND replay_requested_at IS NOT NULL AS requested FROM dlq
          WHERE consumer = $1 AND subject = $2 AND event_id = ANY($3) AND status <> 'replayed'",
    )
    .bind(consumer)
    .bind(subject)
    .bind(events)
    .fetch_all(connection)
    .await
}

/// Locks letters until the transaction ends; whether all of them are still to be replayed.
pub async fn lock(connection: &mut PgConnection, letters: &[Uuid]) -> Result<bool, sqlx::Error> {
    let locked = sqlx::query(
        "SELECT FROM dlq WHERE dlq_id = ANY($1) AND status = 'pending' AND replay_requested_at IS NOT NULL
          ORDER BY dlq_id FOR UPDATE",
    )
    .bind(letters)
    .execute(connection)
    .await?;
    Ok(usize::try_from(locked.rows_affected()) == Ok(letters.len()))
}

/// Marks letters as replayed, with what there is to say about it.
pub async fn replayed(connection: &mut PgConnection, letters: &[(Uuid, Option<String>)]) -> Result<u64, sqlx::Error> {
    if letters.is_empty() {
        return Ok(0);
    }
    let (ids, notes): (Vec<Uuid>, Vec<Option<&str>>) = letters.iter().map(|(id, note)| (*id, note.as_deref())).unzip();
    let done = sqlx::query(
        "UPDATE dlq SET status = 'replayed', resolved_at = now(), reason = m.note
           FROM unnest($1::uuid[], $2::text[]) AS m (id, note) WHERE dlq.dlq_id = m.id",
    )
    .bind(ids)
    .bind(notes)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Puts letters back among those that wait for a decision, with the new cause.
pub async fn failed(
    connection: &mut PgConnection,
    letters: &[(Uuid, String)],
    definition: Option<&str>,
) -> Result<u64, sqlx::Error> {
    if letters.is_empty() {
        return Ok(0);
    }
    let (ids, causes): (Vec<Uuid>, Vec<String>) =
        letters.iter().map(|(id, cause)| (*id, cause.replace('\0', "\u{fffd}"))).unzip();
    let done = sqlx::query(
        "UPDATE dlq SET error_message = m.cause, failed_at = now(), retry_count = retry_count + 1,
                replay_requested_at = NULL, reason = NULL, definition = coalesce($3, definition)
           FROM unnest($1::uuid[], $2::text[]) AS m (id, cause) WHERE dlq.dlq_id = m.id",
    )
    .bind(ids)
    .bind(causes)
    .bind(definition)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Puts all letters of lanes that are asked for back, each with the cause of its lane.
pub async fn failed_lanes(
    connection: &mut PgConnection,
    consumer: &str,
    subject: &str,
    lanes: &[(String, String)],
) -> Result<u64, sqlx::Error> {
    if lanes.is_empty() {
        return Ok(0);
    }
    let (names, causes): (Vec<&str>, Vec<String>) =
        lanes.iter().map(|(name, cause)| (name.as_str(), cause.replace('\0', "\u{fffd}"))).unzip();
    let done = sqlx::query(
        "UPDATE dlq SET error_message = m.cause, failed_at = now(), retry_count = retry_count + 1,
                replay_requested_at = NULL, reason = NULL
           FROM unnest($3::text[], $4::text[]) AS m (name, cause)
          WHERE consumer = $1 AND subject = $2 AND lane = m.name
            AND status = 'pending' AND replay_requested_at IS NOT NULL",
    )
    .bind(consumer)
    .bind(subject)
    .bind(names)
    .bind(causes)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Puts the letters of a subject that are asked for and whose events are of no type that it reads back.
pub async fn failed_types(
    connection: &mut PgConnection,
    consumer: &str,
    subject: &str,
    (event_types, prefixes): (&[String], &[String]),
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE dlq SET error_message = subject || ' reads no events of the type ' || coalesce(event_type, '') ||
                  ' any more: discard the letter, or declare that it reads them', failed_at = now(),
                retry_count = retry_count + 1, replay_requested_at = NULL, reason = NULL
          WHERE consumer = $1 AND subject = $2 AND status = 'pending' AND replay_requested_at IS NOT NULL
            AND NOT coalesce(event_type = ANY($3) OR event_type ^@ ANY($4), false)",
    )
    .bind(consumer)
    .bind(subject)
    .bind(event_types)
    .bind(prefixes)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Puts all letters of a subject that are asked for back, with a cause.
pub async fn failed_subject(
    connection: &mut PgConnection,
    consumer: &str,
    subject: &str,
    cause: &str,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE dlq SET error_message = $3, failed_at = now(), retry_count = retry_count + 1,
                replay_requested_at = NULL, reason = NULL
          WHERE consumer = $1 AND subject = $2 AND status = 'pending' AND replay_requested_at IS NOT NULL",
    )
    .bind(consumer)
    .bind(subject)
    .bind(cause)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes the requests back of what is left in lanes in which a letter failed: it comes later than that one.
pub async fn hold(connection: &mut PgConnection, consumer: &str, blocked: &[(Lane, Uuid)]) -> Result<u64, sqlx::Error> {
    if blocked.is_empty() {
        return Ok(0);
    }
    let subjects: Vec<Option<&str>> = blocked.iter().map(|((subject, _), _)| subject.as_deref()).collect();
    let lanes: Vec<&str> = blocked.iter().map(|((_, lane), _)| lane.as_str()).collect();
    let failed: Vec<Uuid> = blocked.iter().map(|(_, failed)| *failed).collect();
    let done = sqlx::query(
        "UPDATE dlq SET replay_requested_at = NULL,
                reason = 'not tried: letter ' || b.failed || ', which comes before it, failed again'
           FROM unnest($2::text[], $3::text[], $4::uuid[]) AS b (subject, lane, failed)
          WHERE dlq.consumer = $1 AND dlq.lane = b.lane AND dlq.subject IS NOT DISTINCT FROM b.subject
            AND dlq.status = 'pending' AND dlq.replay_requested_at IS NOT NULL",
    )
    .bind(consumer)
    .bind(subjects)
    .bind(lanes)
    .bind(failed)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
