//! What a test asks of running processes: their counters, how quickly events get through, what sessions hold.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::PgPool;

use super::load::Load;
use crate::harness::{Process, eventually, http};

/// A counter of a process, summed over its labels; 0 where nothing was counted yet.
pub async fn counter(process: &Process, name: &str) -> f64 {
    process.metric(name).await.unwrap_or(0.0)
}

/// Events a second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub accepted: f64,
    pub folded: f64,
}

impl Rates {
    /// Measured over two seconds.
    pub async fn now(load: &Load, pool: &PgPool) -> Self {
        let (accepted, folded, start) = (load.accepted(), folded(pool).await, Instant::now());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (accepted, folded, seconds) =
            (load.accepted() - accepted, self::folded(pool).await - folded, start.elapsed().as_secs_f64());
        let per_second = |events: i64| f64::from(u32::try_from(events).unwrap()) / seconds;
        Self { accepted: per_second(accepted), folded: per_second(folded) }
    }

    /// Demands a part of the throughput before, in one of some measurements: others share the machine. What was folded then
    /// beyond what was accepted was a backlog.
    pub async fn reach(load: &Load, pool: &PgPool, part: f64, before: Self) {
        let mut tries = Vec::new();
        for _ in 0..10 {
            let now = Self::now(load, pool).await;
            let folded = now.folded >= part * before.folded.min(before.accepted);
            if now.accepted >= part * before.accepted && folded {
                eprintln!("before {before:?}, now {now:?} after {} more", tries.len());
                return;
            }
            tries.push(now);
        }
        panic!("not {part} of {before:?}: {tries:?}");
    }
}

/// Events that the projections hold.
async fn folded(pool: &PgPool) -> i64 {
    let question = "SELECT coalesce(sum((state->>'count')::bigint), 0)::bigint FROM projections
                    WHERE projection_type = 'sensor_history'";
    sqlx::query_scalar(question).fetch_one(pool).await.unwrap()
}

/// From the request to the row of the projection, of one event of a new aggregate.
pub async fn time_to_projection(pool: &PgPool, url: &str, aggregate: &str) -> Duration {
    let client = http::client();
    let start = Instant::now();
    let body = json!({"event_type": "sensor.reading", "aggregate_id": aggregate, "payload": {"value": 1}});
    assert_eq!(http::post(&client, url, &body).await.unwrap().status, 202);
    eventually(Duration::from_secs(20), || async {
        sqlx::query_scalar::<_, i32>("SELECT 1 FROM projections WHERE aggregate_id = $1")
            .bind(aggregate)
            .fetch_optional(pool)
            .await
            .ok()
            .flatten()
    })
    .await;
    start.elapsed()
}

/// How many sessions of an application are idle in a transaction, unchanged for at least `milliseconds`.
pub async fn idle_in_transaction(pool: &PgPool, application: &str, milliseconds: i32) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = $1 AND state = 'idle in transaction'
            AND state_change < clock_timestamp() - make_interval(secs => $2::float8 / 1000)",
    )
    .bind(application)
    .bind(milliseconds)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// How many sessions of an application wait for a lock.
pub async fn waiting_for_a_lock(pool: &PgPool, application: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = $1 AND wait_event_type = 'Lock'",
    )
    .bind(application)
    .fetch_one(pool)
    .await
    .unwrap()
}
