//! What is done to deliveries as time passes.

use sqlx::PgPool;
use uuid::Uuid;

/// Rows that one statement changes at most: where it is as many, there may be more.
pub const ROWS: i64 = 1_000;

/// Frees what other processes had claimed that are dead, or too late. What this one has it settles itself.
pub async fn free_lost(pool: &PgPool, instance: Uuid) -> Result<u64, sqlx::Error> {
    let freed = sqlx::query(
        "UPDATE delivery d SET claimed_by = NULL, claim_id = NULL, claimed_until = NULL
          WHERE d.delivery_id IN (
            SELECT c.delivery_id FROM delivery c
             WHERE c.claimed_by IS NOT NULL AND c.claimed_by <> $2
               AND (c.claimed_until < now() OR NOT EXISTS (
                     SELECT FROM instance i WHERE i.instance = c.claimed_by AND i.role = 'act'
                        AND i.heartbeat_at > now() - interval '15 seconds'))
             LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind(ROWS)
    .bind(instance)
    .execute(pool)
    .await?;
    Ok(freed.rows_affected())
}

/// How long deliveries of an action wait, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds<'a> {
    pub action: &'a str,
    pub most: i64,
    pub longest_ms: i64,
}

/// Expires what waits longer, or with more behind it, than its action allows. Returns how many, by action.
pub async fn expire(pool: &PgPool, bounds: &[Bounds<'_>]) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "WITH bound AS (SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS b (action, most, longest_ms)),
              old AS (
                SELECT d.delivery_id, 'waited longer than the action allows (rateLimit.maxWait)' AS why FROM bound b
                 CROSS JOIN LATERAL (
                   SELECT w.delivery_id FROM delivery w
                    WHERE w.action = b.action AND w.status = 'pending' AND w.claimed_by IS NULL
                      AND w.waiting_since < now() - b.longest_ms * interval '1 millisecond'
                    ORDER BY w.waiting_since, w.delivery_id LIMIT $4 FOR UPDATE SKIP LOCKED) d),
              behind AS (
                SELECT d.delivery_id, 'more are waiting than the action allows (rateLimit.maxWaiting)' AS why FROM bound b
                 CROSS JOIN LATERAL (
                   SELECT o.waiting_since, o.delivery_id FROM delivery o WHERE o.action = b.action AND o.status = 'pending'
                    ORDER BY o.waiting_since DESC, o.delivery_id DESC OFFSET b.most LIMIT 1) last
                 CROSS JOIN LATERAL (
                   SELECT w.delivery_id FROM delivery w
                    WHERE w.action = b.action AND w.status = 'pending' AND w.claimed_by IS NULL
                      AND (w.waiting_since, w.delivery_id) <= (last.waiting_since, last.delivery_id)
                    ORDER BY w.waiting_since, w.delivery_id LIMIT $4 FOR UPDATE SKIP LOCKED) d),
              expired AS (
                UPDATE delivery d SET status = 'expired', message = e.why, finished_at = now()
                  FROM (SELECT delivery_id, min(why) AS why FROM (TABLE old UNION ALL TABLE behind) a GROUP BY 1) e
                 WHERE d.delivery_id = e.delivery_id RETURNING d.action)
         SELECT action, count(*) FROM expired GROUP BY action",
    )
    .bind(bounds.iter().map(|bound| bound.action).collect::<Vec<_>>())
    .bind(bounds.iter().map(|bound| bound.most).collect::<Vec<_>>())
    .bind(bounds.iter().map(|bound| bound.longest_ms).collect::<Vec<_>>())
    .bind(ROWS)
    .fetch_all(pool)
    .await
}

/// Cancels what waits for actions that are registered no more: they were removed. What is known of their endpoints goes too, so
/// that an action of the same name begins anew. The table says which these are: another process may have heard of an action
/// that this one has not heard of yet.
pub async fn cancel_removed(pool: &PgPool, namespace: &str) -> Result<u64, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let cancelled = sqlx::query(
        "WITH RECURSIVE waits AS (
           (SELECT action FROM delivery WHERE status = 'pending' ORDER BY action LIMIT 1)
            UNION ALL
            SELECT (SELECT d.action FROM delivery d WHERE d.status = 'pending' AND d.action > w.action
                     ORDER BY d.action LIMIT 1)
              FROM waits w WHERE w.action IS NOT NULL)
         UPDATE delivery SET status = 'cancelled', message = 'its action was removed', finished_at = now()
          WHERE delivery_id IN (
            SELECT d.delivery_id FROM waits w
              JOIN delivery d ON d.action = w.action AND d.status = 'pending' AND d.claimed_by IS NULL
             WHERE NOT EXISTS (SELECT FROM registration r WHERE r.namespace = $1 AND r.kind = 'WebhookAction'
                                  AND r.name = w.action AND r.state = 'active')
             LIMIT $2 FOR UPDATE OF d SKIP LOCKED)",
    )
    .bind(namespace)
    .bind(ROWS)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "DELETE FROM action_config c
          WHERE NOT EXISTS (SELECT FROM registration r WHERE r.namespace = $1 AND r.kind = 'WebhookAction'
                               AND r.name = c.action AND r.state = 'active')
            AND NOT EXISTS (SELECT FROM delivery w WHERE w.action = c.action AND w.status = 'pending')",
    )
    .bind(namespace)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(cancelled.rows_affected())
}

/// Forgets deliveries that ended longer ago, some of them at a time.
pub async fn forget(pool: &PgPool, after_seconds: i64) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query(
        "DELETE FROM delivery WHERE delivery_id IN (
            SELECT delivery_id FROM delivery WHERE finished_at < now() - $1 * interval '1 second'
             ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(after_seconds)
    .bind(ROWS)
    .execute(pool)
    .await?;
    Ok(forgotten.rows_affected())
}

/// Of each action, how many deliveries wait, and for how many seconds the oldest does.
pub async fn waiting(pool: &PgPool, actions: &[&str]) -> Result<Vec<(String, i64, f64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT a.action, w.count, w.age FROM unnest($1::text[]) AS a (action)
          CROSS JOIN LATERAL (
            SELECT count(*) AS count, coalesce(extract(epoch FROM now() - min(d.waiting_since)), 0)::float8 AS age
              FROM delivery d WHERE d.action = a.action AND d.status = 'pending') w",
    )
    .bind(actions)
    .fetch_all(pool)
    .await
}

/// How many processes deliver.
pub async fn processes(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM instance WHERE role = 'act' AND heartbeat_at > now() - interval '15 seconds'",
    )
    .fetch_one(pool)
    .await
}
