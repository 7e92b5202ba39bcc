//! PostgreSQL goes away and comes back under load.

use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use sqlx::PgPool;

use super::{Kind, Running, turn};
use crate::harness::{OwnPostgres, eventually, http};

async fn postgres_goes_away(kind: Kind, name: &str, how: fn(&mut OwnPostgres)) {
    let mut turn = turn().await;
    let bus = turn.bus(kind);
    let mut postgres = tokio::task::block_in_place(|| OwnPostgres::start_new(name));
    let running = Running::start(name, postgres.fresh_database().await, bus).await;
    let before = running.load.rate(Duration::from_secs(2)).await;
    tokio::task::block_in_place(|| {
        how(&mut postgres);
        // Long enough that every client has been refused.
        std::thread::sleep(Duration::from_secs(2));
        postgres.start();
    });
    let back = Instant::now();
    eventually(Duration::from_secs(5), || async {
        let after = running.load.rate(Duration::from_millis(500)).await;
        if after >= before * 0.8 { Ok(()) } else { Err(format!("{after:.0} events/s of {before:.0} before")) }
    })
    .await;
    eprintln!("{name}: full throughput {:?} after PostgreSQL was back", back.elapsed());
    let pool = running.platform.database().pool().await;
    let url = running.ingest.url("/api/v1/events");
    listeners_are_back(&pool, &url).await;
    let outcome = running.load.finish().await;
    let expected = [503, 429];
    assert!(
        outcome.refused.keys().all(|status| expected.contains(status)),
        "answers while away: {:?}",
        outcome.refused
    );
    super::verify(&pool, &outcome).await;
}

/// Five events one after the other are each projected sooner than any poll (5 s) would have found them.
async fn listeners_are_back(pool: &PgPool, url: &str) {
    let client = http::client();
    for number in 0..5 {
        let took = time_to_projection(pool, &client, url, &format!("probe-{number}")).await;
        assert!(took < Duration::from_secs(2), "probe {number} was projected after {took:?}: nobody listens");
    }
}

async fn time_to_projection(pool: &PgPool, client: &Client, url: &str, aggregate: &str) -> Duration {
    let start = Instant::now();
    let body = json!({"event_type": "sensor.reading", "aggregate_id": aggregate, "payload": {"value": 1}});
    assert_eq!(http::post(client, url, &body).await.unwrap().status, 202);
    eventually(Duration::from_secs(10), || async {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_restarted_on_the_embedded_bus() {
    postgres_goes_away(Kind::Embedded, "restart-embedded", OwnPostgres::stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_restarted_on_kafka() {
    postgres_goes_away(Kind::Kafka, "restart-kafka", OwnPostgres::stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_crashes() {
    postgres_goes_away(Kind::Embedded, "crash-embedded", OwnPostgres::crash).await;
}
