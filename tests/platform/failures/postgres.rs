//! PostgreSQL goes away and comes back under load.

use std::time::Duration;

use sqlx::PgPool;

use super::load::Pace;
use super::measure::{Rates, time_to_projection};
use super::verify::are_folded;
use super::{Kind, Running, alone};
use crate::harness::{OwnPostgres, Platform, eventually};

/// The platform is back at its throughput this long after PostgreSQL is.
const FULL_AGAIN: Duration = Duration::from_secs(5);
/// Machines are noisy: this part of the throughput before counts as all of it.
const FULL: f64 = 0.6;
/// Sooner than any poll (60 s) would have found an event.
const WOKEN: Duration = Duration::from_secs(30);

async fn postgres_goes_away(kind: Kind, name: &str, how: fn(&mut OwnPostgres)) {
    let [mut turn, _other] = alone(kind).await;
    let bus = turn.bus();
    let mut postgres = tokio::task::block_in_place(|| OwnPostgres::start_new(name));
    let platform = Platform::new(name, postgres.fresh_database().await, bus).polling_once_a_minute();
    let running = Running::of(platform, Pace::FlatOut).await;
    let pool = running.platform.database().pool().await;
    let before = Rates::now(&running.load, &pool).await;
    tokio::task::block_in_place(|| {
        how(&mut postgres);
        // Long enough that clients are refused.
        std::thread::sleep(Duration::from_secs(2));
        postgres.start();
    });
    tokio::time::sleep(FULL_AGAIN).await;
    Rates::reach(&running.load, &pool, FULL, before).await;
    let accepted = running.load.counts();
    eventually(Duration::from_secs(30), || are_folded(&pool, &accepted)).await;
    let url = running.ingest.url("/api/v1/events");
    let outcome = running.load.finish().await;
    let refused = &outcome.refused;
    let expected = refused.keys().all(|status| [503, 429].contains(status));
    assert!(expected && !refused.is_empty(), "answers while away: {refused:?}");
    super::verify(&pool, &outcome).await;
    listeners_are_back(&pool, &url).await;
}

/// Nothing else goes on now, so that no other event wakes anybody: five events, one after the other, are each projected
/// sooner than any poll (60 s) would have found them.
async fn listeners_are_back(pool: &PgPool, url: &str) {
    for number in 0..5 {
        let took = time_to_projection(pool, url, &format!("probe-{number}")).await;
        assert!(took < WOKEN, "probe {number} was projected after {took:?}: nobody listens");
    }
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
async fn postgres_crashes_on_the_embedded_bus() {
    postgres_goes_away(Kind::Embedded, "crash-embedded", OwnPostgres::crash).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_crashes_on_kafka() {
    postgres_goes_away(Kind::Kafka, "crash-kafka", OwnPostgres::crash).await;
}
