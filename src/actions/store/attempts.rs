//! Deliveries that are due are claimed, and what came of each attempt is kept.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::actions::attempt::{Attempt, Delivery};
use crate::actions::verdict::Verdict;

/// How much of one action is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    pub action: &'a str,
    pub most: i64,
    /// Nothing is claimed that an earlier one of its aggregate stands before.
    pub ordered: bool,
    /// How long the claim holds.
    pub lease_ms: i64,
}

/// Claims what is due, the longest due first. `claim` tells this claim from others of the same process.
pub async fn claim(
    pool: &PgPool,
    (instance, claim): (Uuid, Uuid),
    shares: &[Share<'_>],
) -> Result<Vec<Delivery>, sqlx::Error> {
    sqlx::query_as(
        "WITH share AS (SELECT * FROM unnest($2::text[], $3::bigint[], $4::boolean[], $5::bigint[])
                                      AS s (action, most, ordered, lease_ms)),
              due AS (
                SELECT d.delivery_id, s.lease_ms FROM share s
                 CROSS JOIN LATERAL (
                   SELECT w.delivery_id FROM delivery w
                     JOIN action_config c ON c.action = w.action AND c.state = 'enabled'
                    WHERE w.action = s.action AND w.status = 'pending' AND w.claimed_by IS NULL
                      AND w.next_attempt_at <= now()
                      AND NOT (s.ordered AND EXISTS (
                            SELECT FROM delivery e WHERE e.action = w.action AND e.aggregate_id = w.aggregate_id
                               AND e.status = 'pending' AND e.position < w.position))
                    ORDER BY w.next_attempt_at LIMIT s.most FOR UPDATE OF w SKIP LOCKED) d)
         UPDATE delivery d
            SET claimed_by = $1, claim_id = $6, claimed_until = now() + due.lease_ms * interval '1 millisecond'
           FROM due WHERE d.delivery_id = due.delivery_id
         RETURNING d.delivery_id, d.claim_id, d.action, coalesce(d.body, '') AS body, d.traceparent, d.attempts,
                   d.max_attempts, d.created_at",
    )
    .bind(instance)
    .bind(shares.iter().map(|share| share.action).collect::<Vec<_>>())
    .bind(shares.iter().map(|share| share.most).collect::<Vec<_>>())
    .bind(shares.iter().map(|share| share.ordered).collect::<Vec<_>>())
    .bind(shares.iter().map(|share| share.lease_ms).collect::<Vec<_>>())
    .bind(claim)
    .fetch_all(pool)
    .await
}

/// An attempt that ended, and what is done about it.
#[derive(Clone, Debug)]
pub struct Ended {
    pub delivery: Delivery,
    pub attempt: Attempt,
    pub verdict: Verdict,
    /// Where it was made.
    pub url: String,
}

impl Ended {
    fn status(&self) -> &'static str {
        match self.verdict {
            Verdict::Delivered => "delivered",
            Verdict::Again { .. } => "pending",
            Verdict::Failed { .. } | Verdict::Gone { .. } => "failed",
        }
    }

    /// Why it was not delivered.
    pub fn why(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Delivered => None,
            Verdict::Again { why, .. } | Verdict::Failed { why } | Verdict::Gone { why } => Some(why),
        }
    }

    fn after_ms(&self) -> i64 {
        if let Verdict::Again { after_ms, .. } = self.verdict { after_ms } else { 0 }
    }
}

/// Keeps what came of attempts. Those whose claim another process took meanwhile are left to it.
pub async fn settle(pool: &PgPool, ended: &[Ended]) -> Result<(), sqlx::Error> {
    let answers = || ended.iter().map(|ended| &ended.attempt.answer);
    let starts: Vec<DateTime<Utc>> = ended.iter().map(|ended| ended.attempt.started_at).collect();
    let millis = |ended: &Ended| i32::try_from(ended.attempt.duration.as_millis()).unwrap_or(i32::MAX);
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "WITH ended AS (
           SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], $7::int[],
                                $8::smallint[], $9::text[], $10::text[])
                    AS e (delivery_id, claim_id, state, after_ms, message, started_at, duration_ms, status, error, answer)),
              settled AS (
           UPDATE delivery d
              SET status = e.state, attempts = d.attempts + 1, message = e.message,
                  claimed_by = NULL, claim_id = NULL, claimed_until = NULL,
                  next_attempt_at = now() + e.after_ms * interval '1 millisecond',
                  finished_at = CASE WHEN e.state <> 'pending' THEN now() END
             FROM ended e WHERE d.delivery_id = e.delivery_id AND d.claim_id = e.claim_id
           RETURNING d.delivery_id, e.claim_id, d.attempts)
         INSERT INTO delivery_attempt (delivery_id, number, started_at, duration_ms, status, error, answer)
         SELECT s.delivery_id, s.attempts, e.started_at, e.duration_ms, e.status, e.error, e.answer
           FROM settled s JOIN ended e USING (delivery_id, claim_id)",
    )
    .bind(ended.iter().map(|ended| ended.delivery.delivery_id).collect::<Vec<_>>())
    .bind(ended.iter().map(|ended| ended.delivery.claim_id).collect::<Vec<_>>())
    .bind(ended.iter().map(Ended::status).collect::<Vec<_>>())
    .bind(ended.iter().map(Ended::after_ms).collect::<Vec<_>>())
    .bind(ended.iter().map(Ended::why).collect::<Vec<_>>())
    .bind(starts)
    .bind(ended.iter().map(millis).collect::<Vec<_>>())
    .bind(answers().map(|answer| answer.status.and_then(|s| i16::try_from(s).ok())).collect::<Vec<_>>())
    .bind(answers().map(|answer| answer.error.as_deref()).collect::<Vec<_>>())
    .bind(ended.iter().map(|ended| ended.attempt.head.as_deref()).collect::<Vec<_>>())
    .execute(&mut *transaction)
    .await?;
    let gone = ended.iter().filter_map(|ended| match &ended.verdict {
        Verdict::Gone { why } => Some((ended.delivery.action.as_str(), why.as_str(), ended.url.as_str())),
        _ => None,
    });
    // One that answered late may not be the endpoint any more.
    for (action, why, url) in gone {
        sqlx::query(
            "UPDATE action_config SET state = 'disabled', reason = $2, gone = true, changed_at = now()
              WHERE action = $1 AND state = 'enabled' AND coalesce(url, $3) = $3",
        )
        .bind(action)
        .bind(why)
        .bind(url)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// Gives claims back of which no attempt was made: deliveries, each with its claim.
pub async fn give_back(pool: &PgPool, deliveries: &[(Uuid, Uuid)]) -> Result<(), sqlx::Error> {
    let (ids, claims): (Vec<Uuid>, Vec<Uuid>) = deliveries.iter().copied().unzip();
    sqlx::query(
        "UPDATE delivery d SET claimed_by = NULL, claim_id = NULL, claimed_until = NULL
           FROM unnest($1::uuid[], $2::uuid[]) AS g (delivery_id, claim_id)
          WHERE d.delivery_id = g.delivery_id AND d.claim_id = g.claim_id",
    )
    .bind(ids)
    .bind(claims)
    .execute(pool)
    .await?;
    Ok(())
}
