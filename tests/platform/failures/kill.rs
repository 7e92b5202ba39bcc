//! SIGKILL at any point under load.

use std::time::{Duration, Instant};

use super::verify::are_folded;
use super::{Kind, Running, turn};
use crate::harness::{Process, eventually, fresh_database, promised};

async fn relay_and_handler_are_killed_ten_times(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let mut running = Running::start(&format!("kill-{kind:?}"), fresh_database().await, bus).await;
    for _ in 0..10 {
        running.load.more(40).await;
        running.relay.kill9();
        running.handle.kill9();
        running.load.more(20).await;
        running.relay.start_again();
        running.handle.start_again();
        works_again(&running.relay, "cornjacket_relay_stored_total").await;
        works_again(&running.handle, "cornjacket_handler_events_total").await;
    }
    running.settle().await;
}

/// The next kill is to meet a process at work.
async fn works_again(process: &Process, counter: &str) {
    eventually(Duration::from_secs(20), || async { process.metric(counter).await > Some(0.0) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_and_handler_are_killed_ten_times_on_the_embedded_bus() {
    relay_and_handler_are_killed_ten_times(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_and_handler_are_killed_ten_times_on_kafka() {
    relay_and_handler_are_killed_ten_times(Kind::Kafka).await;
}

/// Nobody waits for the group to miss the dead one: what is accepted after the kill is folded 10 s after it.
async fn the_only_handler_is_killed(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let mut running = Running::start(&format!("kill-handler-{kind:?}"), fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    running.load.more(100).await;
    running.handle.kill9();
    let killed = Instant::now();
    running.load.more(20).await;
    let accepted = running.load.counts();
    running.handle.start_again();
    let left = Duration::from_secs(10).saturating_sub(killed.elapsed());
    promised(left, || are_folded(&pool, &accepted)).await;
    eprintln!("{kind:?}: projections moved {:?} after the kill", killed.elapsed());
    running.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_move_soon_after_the_only_handler_was_killed_on_the_embedded_bus() {
    the_only_handler_is_killed(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_move_soon_after_the_only_handler_was_killed_on_kafka() {
    the_only_handler_is_killed(Kind::Kafka).await;
}

/// Clients repeat what they had no answer to, with the same key: nothing is stored twice.
async fn ingest_is_killed_ten_times(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let mut running = Running::start(&format!("kill-ingest-{kind:?}"), fresh_database().await, bus).await;
    for _ in 0..10 {
        running.load.more(40).await;
        running.ingest.kill9();
        running.ingest.start_again();
    }
    running.load.more(40).await;
    running.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingest_is_killed_ten_times_on_the_embedded_bus() {
    ingest_is_killed_ten_times(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingest_is_killed_ten_times_on_kafka() {
    ingest_is_killed_ten_times(Kind::Kafka).await;
}
