//! What operators see of deliveries and endpoints, and what they ask for.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgPool, Postgres, QueryBuilder};
use utoipa::ToSchema;
use uuid::Uuid;

/// A delivery.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct DeliveryRow {
    /// Also the header `webhook-id`.
    pub delivery_id: Uuid,
    pub action: String,
    pub event_id: Uuid,
    pub event_type: String,
    pub aggregate_id: String,
    /// `pending`, `delivered`, `failed`, `suppressed`, `expired` or `cancelled`.
    pub status: String,
    /// Attempts so far.
    pub attempts: i32,
    /// When the next attempt may be made; null where none will be.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Why it is not delivered.
    pub message: Option<String>,
    pub created_at: DateTime<Utc>,
    /// When it was delivered or given up.
    pub finished_at: Option<DateTime<Utc>>,
}

/// An attempt of a delivery.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct AttemptRow {
    /// 1, 2, 3, …
    pub number: i32,
    pub started_at: DateTime<Utc>,
    pub duration_ms: i32,
    /// Status of the answer; null where there was none.
    pub status: Option<i16>,
    /// Why it failed.
    pub error: Option<String>,
    /// The first bytes of the answer's body.
    pub answer: Option<String>,
}

/// What is known of an action's endpoint.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct ActionRow {
    pub action: String,
    /// `enabled`, or `disabled`: deliveries wait.
    pub state: String,
    /// Why it is disabled.
    pub reason: Option<String>,
    pub changed_at: DateTime<Utc>,
    /// False while its breaker is open; null before the first attempt.
    pub healthy: Option<bool>,
    /// Why it is not healthy.
    pub message: Option<String>,
    /// Deliveries that wait or are under way.
    pub pending: i64,
    /// Deliveries that were given up and are still kept.
    pub failed: i64,
}

/// Which deliveries are meant. What is not given is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub action: Option<String>,
    pub status: Option<String>,
    pub event_id: Option<Uuid>,
    pub aggregate_id: Option<String>,
    /// Made at or after.
    pub from: Option<DateTime<Utc>>,
    /// Made before.
    pub to: Option<DateTime<Utc>>,
    pub ids: Option<Vec<Uuid>>,
}

impl Filter {
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        sql.push(" WHERE true");
        if let Some(action) = &self.action {
            sql.push(" AND d.action = ").push_bind(action.clone());
        }
        if let Some(status) = &self.status {
            sql.push(" AND d.status = ").push_bind(status.clone());
        }
        if let Some(event_id) = self.event_id {
            sql.push(" AND d.event_id = ").push_bind(event_id);
        }
        if let Some(aggregate_id) = &self.aggregate_id {
            sql.push(" AND d.aggregate_id = ").push_bind(aggregate_id.clone());
        }
        if let Some(from) = self.from {
            sql.push(" AND d.created_at >= ").push_bind(from);
        }
        if let Some(to) = self.to {
            sql.push(" AND d.created_at < ").push_bind(to);
        }
        if let Some(ids) = &self.ids {
            sql.push(" AND d.delivery_id = ANY(").push_bind(ids.clone()).push(")");
        }
    }
}

const COLUMNS: &str = "SELECT d.delivery_id, d.action, d.event_id, d.event_type, d.aggregate_id, d.status, d.attempts,
       CASE WHEN d.status = 'pending' THEN d.next_attempt_at END AS next_attempt_at, d.message, d.created_at, d.finished_at
  FROM delivery d";

/// The clock of the database.
pub async fn now(pool: &PgPool) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar("SELECT now()").fetch_one(pool).await
}

/// The newest deliveries before `before`.
pub async fn deliveries(
    pool: &PgPool,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DeliveryRow>, sqlx::Error> {
    let mut sql = QueryBuilder::new(COLUMNS);
    filter.push(&mut sql);
    if let Some(before) = before {
        sql.push(" AND d.delivery_id < ").push_bind(before);
    }
    sql.push(" ORDER BY d.delivery_id DESC LIMIT ").push_bind(limit);
    sql.build_query_as().fetch_all(pool).await
}

/// One delivery.
pub async fn delivery(pool: &PgPool, id: Uuid) -> Result<Option<DeliveryRow>, sqlx::Error> {
    let filter = Filter { ids: Some(vec![id]), ..Filter::default() };
    Ok(deliveries(pool, &filter, None, 1).await?.pop())
}

/// What a delivery sends.
pub async fn body(pool: &PgPool, id: Uuid) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT body FROM delivery WHERE delivery_id = $1")
        .bind(id)
        .fetch_optional(pool)
        .await
        .map(Option::flatten)
}

/// The attempts of a delivery, in order.
pub async fn attempts(pool: &PgPool, id: Uuid) -> Result<Vec<AttemptRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT number, started_at, duration_ms, status, error, answer FROM delivery_attempt
          WHERE delivery_id = $1 ORDER BY number",
    )
    .bind(id)
    .fetch_all(pool)
    .await
}

/// The actions, or one of them.
pub async fn actions(pool: &PgPool, only: Option<&str>) -> Result<Vec<ActionRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT c.action, c.state, c.reason, c.changed_at, c.healthy, c.message,
                (SELECT count(*) FROM delivery d WHERE d.action = c.action AND d.status = 'pending') AS pending,
                (SELECT count(*) FROM delivery d WHERE d.action = c.action AND d.status = 'failed') AS failed
           FROM action_config c WHERE $1::text IS NULL OR c.action = $1 ORDER BY c.action",
    )
    .bind(only)
    .fetch_all(pool)
    .await
}

/// Deliveries that ended are made again: each gets as many attempts as the action grants a new one, some of them at a time. Returns
/// whose they were.
///
/// Only those that ended before `ended_before`: what is made again may end again at once.
pub async fn retry(
    pool: &PgPool,
    filter: &Filter,
    (grants, ended_before): (&[(&str, i32)], DateTime<Utc>),
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    let mut sql = QueryBuilder::new("WITH granted AS (SELECT * FROM unnest(");
    sql.push_bind(grants.iter().map(|(action, _)| (*action).to_owned()).collect::<Vec<_>>()).push("::text[], ");
    sql.push_bind(grants.iter().map(|(_, most)| *most).collect::<Vec<_>>());
    sql.push(
        "::int[]) AS g (action, most)),
         due AS (SELECT d.delivery_id, g.most FROM delivery d JOIN granted g ON g.action = d.action",
    );
    filter.push(&mut sql);
    sql.push(" AND d.finished_at < ").push_bind(ended_before);
    sql.push(
        " AND d.body IS NOT NULL AND d.status IN ('failed', 'expired', 'cancelled', 'delivered')
          ORDER BY d.delivery_id LIMIT ",
    );
    sql.push_bind(limit);
    sql.push(
        " FOR UPDATE OF d)
         UPDATE delivery d SET status = 'pending', next_attempt_at = now(), finished_at = NULL, message = 'asked for again',
                waiting_since = now(), max_attempts = d.attempts + due.most
           FROM due WHERE d.delivery_id = due.delivery_id RETURNING d.action",
    );
    sql.build_query_scalar().fetch_all(pool).await
}

/// Writes a delivery of an event that only this endpoint gets, to try it.
pub async fn try_out(
    pool: &PgPool,
    action: &str,
    event: &crate::event::StoredEvent,
    body: String,
) -> Result<Uuid, sqlx::Error> {
    let delivery_id = Uuid::now_v7();
    let new = super::intake::New { delivery_id, action, event, body: Some(body) };
    super::intake::insert(&mut *pool.acquire().await?, &[new]).await?;
    Ok(delivery_id)
}
