//! The control plane is away: the data plane runs on, and starts anew, by what is registered.

use std::time::Duration;

use serde_json::json;

use super::{Kind, Running, turn, verify};
use crate::harness::{eventually, fresh_database, http};

/// Answers of an ingest that is started again.
const NO_ANSWER: u16 = 0;

async fn the_controllers_are_away(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let mut running = Running::start(&format!("controllers-{kind:?}"), fresh_database().await, bus).await;
    running.controllers.kill9();
    running.load.more(100).await;
    running.ingest.kill9();
    running.relay.kill9();
    running.handle.kill9();
    running.ingest.start_again();
    running.relay.start_again();
    running.handle.start_again();
    running.load.more(200).await;
    let bad = json!({"event_type": "sensor.reading", "aggregate_id": "a", "payload": {"value": "high"}});
    let url = running.ingest.url("/api/v1/events");
    assert_eq!(http::post(&http::client(), &url, &bad).await.unwrap().status, 400, "schemas are in force");
    added_meanwhile(&mut running).await;
    let pool = running.platform.database().pool().await;
    let outcome = running.load.finish().await;
    let refused = &outcome.refused;
    assert!(refused.keys().all(|status| [NO_ANSWER, 503].contains(status)), "no event is refused: {refused:?}");
    verify(&pool, &outcome).await;
}

/// What was written while they were away is served when they are back.
async fn added_meanwhile(running: &mut Running) {
    let manifest = "apiVersion: cornjacket.io/v1alpha1\nkind: EventType\nmetadata: {name: cpu.load}\nspec: {}\n";
    std::fs::write(running.platform.resources().join("cpu.yaml"), manifest).unwrap();
    running.controllers.start_again();
    let url = running.ingest.url("/api/v1/event-types/cpu.load");
    eventually(Duration::from_secs(10), || async {
        http::get(&http::client(), &url).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controllers_are_away_on_the_embedded_bus() {
    the_controllers_are_away(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controllers_are_away_on_kafka() {
    the_controllers_are_away(Kind::Kafka).await;
}
