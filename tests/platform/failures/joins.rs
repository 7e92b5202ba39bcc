//! Handlers join and leave a group under load, in every way there is.

use std::time::Duration;

use super::measure::counter;
use super::{Kind, Running, turn};
use crate::harness::{Process, eventually, fresh_database};

/// A member takes part: it folds events of its own.
async fn takes_part(handle: &Process) {
    let events = || counter(handle, "cornjacket_handler_events_total");
    let before = events().await;
    eventually(Duration::from_secs(20), || async { events().await > before }).await;
}

async fn handlers_join_and_leave(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let mut running = Running::start(&format!("joins-{kind:?}"), fresh_database().await, bus).await;
    let mut second = running.platform.handle("-2").ready().await;
    takes_part(&second).await;
    let third = running.platform.handle("-3").ready().await;
    takes_part(&third).await;
    takes_part(&second).await;
    takes_part(&running.handle).await;
    running.load.more(100).await;
    assert!(second.terminate().success(), "an orderly end");
    running.load.more(200).await;
    running.handle.kill9();
    running.load.more(200).await;
    let fourth = running.platform.handle("-4").ready().await;
    takes_part(&fourth).await;
    takes_part(&third).await;
    running.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_join_and_leave_on_the_embedded_bus() {
    handlers_join_and_leave(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_join_and_leave_on_kafka() {
    handlers_join_and_leave(Kind::Kafka).await;
}
