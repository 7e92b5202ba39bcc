//! A transaction that stays open keeps the database from cleaning up behind the outbox.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use super::load::Pace;
use super::measure::Rates;
use super::verify::are_folded;
use super::{Kind, Running, alone};
use crate::harness::{Platform, eventually, fresh_database};

/// Events whose deleted rows cannot be cleaned up.
const EVENTS: i64 = 6000;

async fn a_transaction_is_open_all_the_time(kind: Kind) {
    let [mut turn, _other] = alone(kind).await;
    let bus = turn.bus();
    let platform = Platform::new(&format!("xmin-{kind:?}"), fresh_database().await, bus);
    let running = Running::of(platform, Pace::FlatOut).await;
    let pool = running.platform.database().pool().await;
    let before = Rates::now(&running.load, &pool).await;
    let mut open = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let xmin = held_xmin(&mut open).await;
    running.load.more(EVENTS).await;
    Rates::reach(&running.load, &pool, 0.5, before).await;
    let accepted = running.load.counts();
    eventually(Duration::from_secs(30), || are_folded(&pool, &accepted)).await;
    assert!(dead_rows_stay(&pool).await, "nothing could be cleaned up");
    assert_eq!(held_xmin(&mut open).await, xmin, "it was held all the time");
    open.rollback().await.unwrap();
    // Full again, as far as noisy machines show it.
    Rates::reach(&running.load, &pool, 0.6, before).await;
    running.settle().await;
}

/// The oldest transaction whose changes this one must go on to see.
async fn held_xmin(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("SELECT backend_xmin::text FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Whether the outbox is much larger than what is in it.
async fn dead_rows_stay(pool: &PgPool) -> bool {
    sqlx::query("VACUUM outbox").execute(pool).await.unwrap();
    sqlx::query_scalar("SELECT pg_relation_size('outbox') > 100 * $1").bind(EVENTS).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_open_all_the_time_on_the_embedded_bus() {
    a_transaction_is_open_all_the_time(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_open_all_the_time_on_kafka() {
    a_transaction_is_open_all_the_time(Kind::Kafka).await;
}
