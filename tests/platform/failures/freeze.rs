//! One of two is frozen (SIGSTOP), the other takes over, and the frozen one goes on as if no time had passed.

use std::time::Duration;

use sqlx::PgPool;

use super::verify::{are_folded, are_stored};
use super::{Kind, Running, turn};
use crate::harness::{Process, eventually, fresh_database};

/// A frozen process holds its locks until the database ends its idle transaction (10 s); a Kafka group misses it after
/// its session (6 s). Then the other one must have done everything.
const TAKE_OVER: Duration = Duration::from_secs(30);

/// Freezes a process, at a moment at which it holds locks if there are such moments: seen by a session of its being idle
/// in a transaction. (The relay on the embedded bus has none: each of its transactions is one statement.)
async fn freeze(process: &mut Process, pool: &PgPool, application: &str) {
    for _ in 0..200 {
        process.sigstop();
        // Sessions of the other instance are never idle in a transaction for that long.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let caught: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = $1 AND state = 'idle in transaction'
               AND state_change < clock_timestamp() - interval '25 ms')",
        )
        .bind(application)
        .fetch_one(pool)
        .await
        .unwrap();
        if caught {
            return;
        }
        process.sigcont();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    process.sigstop();
}

async fn one_of_two_relays_is_frozen(kind: Kind) {
    let mut turn = turn().await;
    let bus = turn.bus(kind);
    let mut running = Running::start(&format!("freeze-relay-{kind:?}"), fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    let _other = running.platform.relay("-2").ready().await;
    running.load.more(100).await;
    freeze(&mut running.relay, &pool, "cornjacket relay").await;
    running.load.more(200).await;
    let accepted = running.load.counts();
    eventually(TAKE_OVER, || are_stored(&pool, &accepted)).await;
    running.relay.sigcont();
    running.load.more(200).await;
    running.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_relays_is_frozen_on_the_embedded_bus() {
    one_of_two_relays_is_frozen(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_relays_is_frozen_on_kafka() {
    one_of_two_relays_is_frozen(Kind::Kafka).await;
}

async fn one_of_two_handlers_is_frozen(kind: Kind) {
    let mut turn = turn().await;
    let bus = turn.bus(kind);
    let mut running = Running::start(&format!("freeze-handler-{kind:?}"), fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    let _other = running.platform.handle("-2").ready().await;
    running.load.more(100).await;
    freeze(&mut running.handle, &pool, "cornjacket handler").await;
    running.load.more(200).await;
    let accepted = running.load.counts();
    eventually(TAKE_OVER, || are_folded(&pool, &accepted)).await;
    running.handle.sigcont();
    running.load.more(200).await;
    running.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_handlers_is_frozen_on_the_embedded_bus() {
    one_of_two_handlers_is_frozen(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_handlers_is_frozen_on_kafka_and_wakes_as_a_zombie() {
    one_of_two_handlers_is_frozen(Kind::Kafka).await;
}
