//! SQL of dead letters: what consumers write, and what people ask.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Row};
use uuid::Uuid;

use super::{CHANNEL, Filter, Known, Letter, NewLetter, Summary, WholeLetter};

/// Letters in one statement of many.
const PAGE: i64 = 5_000;

/// Writes letters, each about another event or part of the consumer. Those that are there already become what `known` says.
/// Consumers call it in the transaction in which they give the events up.
pub async fn write(connection: &mut PgConnection, letters: &[NewLetter<'_>], known: Known) -> Result<(), sqlx::Error> {
    if letters.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO dlq (dlq_id, consumer, subject, event_id, event_payload, error_message, retry_count, shard, position,
                definition)
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::jsonb[], $6::text[], $7::int[],
                              $8::smallint[], $9::bigint[], $10::text[])
         ON CONFLICT (consumer, event_id, subject) WHERE event_id IS NOT NULL DO UPDATE SET
                status = 'pending', error_message = EXCLUDED.error_message, failed_at = now(),
                retry_count = dlq.retry_count + 1 + EXCLUDED.retry_count, replay_requested_at = NULL, resolved_at = NULL,
                reason = NULL, shard = coalesce(EXCLUDED.shard, dlq.shard),
                position = coalesce(EXCLUDED.position, dlq.position), definition = EXCLUDED.definition
          WHERE dlq.status = 'replayed' OR ($11 AND dlq.status = 'pending')",
    )
    .bind(letters.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.consumer).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.subject).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.event_id).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| &letter.event_payload).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.cause.as_str()).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.retries).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.place.map(|place| place.0)).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.place.map(|place| place.1)).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.definition).collect::<Vec<_>>())
    .bind(known == Known::Renewed)
    .execute(connection)
    .await?;
    Ok(())
}

/// Asks for the replay of letters that were just written.
pub async fn request(connection: &mut PgConnection, letters: &[NewLetter<'_>]) -> Result<(), sqlx::Error> {
    if letters.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE dlq SET replay_requested_at = now()
           FROM unnest($1::text[], $2::text[], $3::uuid[]) AS l (consumer, subject, event_id)
          WHERE dlq.consumer = l.consumer AND dlq.subject IS NOT DISTINCT FROM l.subject AND dlq.event_id = l.event_id
            AND dlq.status = 'pending'",
    )
    .bind(letters.iter().map(|letter| letter.consumer).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.subject).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.event_id).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(connection).await?;
    Ok(())
}

/// The columns that people get.
macro_rules! columns {
    () => {
        "dlq_id, consumer, subject, status, event_id, event_type, aggregate_id, error_message, failed_at, retry_count,
         replay_requested_at, replay_append, resolved_at, reason, shard, position"
    };
}

/// What a filter means; it has the parameters 1 to 8.
macro_rules! matching {
    () => {
        "($1::text IS NULL OR consumer = $1) AND ($2::text IS NULL OR subject = $2)
         AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR event_type = $4)
         AND ($5::text IS NULL OR aggregate_id = $5) AND ($6::uuid IS NULL OR event_id = $6)
         AND ($7::timestamptz IS NULL OR failed_at >= $7) AND ($8::timestamptz IS NULL OR failed_at < $8)"
    };
}

/// A statement about letters that match. Planned with its values: which index helps depends on what is asked for.
fn about<'q>(sql: &'static str, filter: &'q Filter) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql)
        .bind(filter.consumer.as_deref())
        .bind(filter.subject.as_deref())
        .bind(filter.status.as_deref())
        .bind(filter.event_type.as_deref())
        .bind(filter.aggregate_id.as_deref())
        .bind(filter.event_id)
        .bind(filter.failed_from)
        .bind(filter.failed_to)
        .persistent(false)
}

/// The newest letters that match, at most `limit`, of those older than `before`.
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Letter>, sqlx::Error> {
    const LIST: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM dlq WHERE ",
        matching!(),
        " AND ($9::uuid IS NULL OR dlq_id < $9) ORDER BY dlq_id DESC LIMIT $10"
    );
    let rows: Vec<PgRow> = about(LIST, filter).bind(before).bind(limit).fetch_all(pool).await?;
    rows.iter().map(Letter::from_row).collect()
}

/// One letter with all it holds.
pub async fn one(pool: &PgPool, dlq_id: Uuid) -> Result<Option<WholeLetter>, sqlx::Error> {
    const ONE: &str = concat!("SELECT ", columns!(), ", event_payload FROM dlq WHERE dlq_id = $1");
    sqlx::query_as(ONE).bind(dlq_id).fetch_optional(pool).await
}

/// How many letters each part of each consumer has.
pub async fn summary(pool: &PgPool) -> Result<Vec<Summary>, sqlx::Error> {
    sqlx::query_as(
        "SELECT consumer, subject, count(*) FILTER (WHERE status = 'pending') AS pending,
                count(*) FILTER (WHERE status = 'pending' AND replay_requested_at IS NOT NULL) AS requested,
                count(*) FILTER (WHERE status = 'replayed') AS replayed,
                count(*) FILTER (WHERE status = 'discarded') AS discarded
           FROM dlq GROUP BY consumer, subject ORDER BY consumer, subject NULLS FIRST",
    )
    .fetch_all(pool)
    .await
}

/// How many letters of a consumer are in each state.
pub async fn count(pool: &PgPool, consumer: &str) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as("SELECT status, count(*) FROM dlq WHERE consumer = $1 GROUP BY status")
        .bind(consumer)
        .fetch_all(pool)
        .await
}

/// What is to be done to pending letters.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// They are to be replayed.
    Replay {
        /// Where they can no longer be put in their place, they may be applied last.
        append: bool,
    },
    Discard {
        reason: &'a str,
    },
}

/// Statements of a change: of a page of letters behind the one given, in their order. `$12` is the change's own.
macro_rules! change_page {
    ($set:literal) => {
        concat!(
            "WITH page AS MATERIALIZED (
               SELECT dlq_id FROM dlq WHERE ",
            matching!(),
            " AND status = 'pending' AND dlq_id > $9 AND ($10::uuid IS NULL OR dlq_id = $10)
                ORDER BY dlq_id LIMIT $11 FOR UPDATE),
             changed AS (
               UPDATE dlq SET ",
            $set,
            " WHERE dlq_id = ANY(ARRAY(SELECT dlq_id FROM page)) RETURNING consumer)
             SELECT (SELECT dlq_id FROM page ORDER BY dlq_id DESC LIMIT 1) AS last,
                    (SELECT count(*) FROM changed) AS count, (SELECT array_agg(consumer) FROM changed) AS consumers"
        )
    };
}

/// Changes the pending letters that match (of them only `only`, if it is given), all in one transaction, and wakes those
/// who replay. Returns of which consumer how many they were.
pub async fn change(
    pool: &PgPool,
    filter: &Filter,
    only: Option<Uuid>,
    change: Change<'_>,
) -> Result<Vec<(String, u64)>, sqlx::Error> {
    const REPLAY: &str = change_page!("replay_requested_at = now(), replay_append = $12, reason = NULL");
    const DISCARD: &str =
        change_page!("status = 'discarded', resolved_at = now(), reason = $12, replay_requested_at = NULL");
    let mut tx = pool.begin().await?;
    let (mut after, mut counts) = (Uuid::nil(), std::collections::BTreeMap::<String, u64>::new());
    loop {
        let page = match change {
            Change::Replay { append } => about(REPLAY, filter).bind(after).bind(only).bind(PAGE).bind(append),
            Change::Discard { reason } => about(DISCARD, filter).bind(after).bind(only).bind(PAGE).bind(reason),
        };
        let row = page.fetch_one(&mut *tx).await?;
        for consumer in row.try_get::<Option<Vec<String>>, _>("consumers")?.unwrap_or_default() {
            *counts.entry(consumer).or_default() += 1;
        }
        match row.try_get::<Option<Uuid>, _>("last")? {
            Some(last) => after = last,
            None => break,
        }
    }
    if matches!(change, Change::Replay { .. }) && !counts.is_empty() {
        sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(counts.into_iter().collect())
}

/// How long letters that were replayed are kept. Those that were discarded stay: they say which events are in no row.
const KEPT: &str = "30 days";

/// Forgets letters that were replayed long ago, some of them at a time.
pub async fn forget(pool: &PgPool, consumer: &str) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query(
        "DELETE FROM dlq WHERE dlq_id IN (
            SELECT dlq_id FROM dlq
             WHERE consumer = $1 AND status = 'replayed' AND resolved_at < now() - $2::interval
             LIMIT 1000 FOR UPDATE SKIP LOCKED)",
    )
    .bind(consumer)
    .bind(KEPT)
    .execute(pool)
    .await?;
    Ok(forgotten.rows_affected())
}
