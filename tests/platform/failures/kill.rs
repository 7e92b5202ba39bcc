//! SIGKILL at any point under load.

use std::time::{Duration, Instant};

use super::verify::are_folded;
use super::{Kind, Running, turn};
use crate::harness::{eventually, fresh_database};

async fn relay_and_handler_are_killed_ten_times(kind: Kind) {
    let mut turn = turn().await;
    let bus = turn.bus(kind);
    let mut running = Running::start(&format!("kill-{kind:?}"), fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    for _ in 0..10 {
        running.load.more(40).await;
        running.relay.kill9();
        running.handle.kill9();
        running.load.more(20).await;
        running.relay.start_again();
        running.handle.start_again();
    }
    let start = Instant::now();
    let accepted = running.load.counts();
    eventually(Duration::from_secs(10), || are_folded(&pool, &accepted)).await;
    eprintln!("{kind:?}: projections have caught up {:?} after the start", start.elapsed());
    running.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_and_handler_are_killed_ten_times_on_the_embedded_bus() {
    relay_and_handler_are_killed_ten_times(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_and_handler_are_killed_ten_times_on_kafka() {
    relay_and_handler_are_killed_ten_times(Kind::Kafka).await;
}

/// Clients repeat what they had no answer to, with the same key: nothing is stored twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingest_is_killed_ten_times() {
    let mut turn = turn().await;
    let bus = turn.bus(Kind::Embedded);
    let mut running = Running::start("kill-ingest", fresh_database().await, bus).await;
    for _ in 0..10 {
        running.load.more(40).await;
        running.ingest.kill9();
        running.ingest.start_again();
    }
    running.load.more(40).await;
    running.settle().await;
}
