//! What of a projection goes wrong beside its events, and what shows that its handler is behind.

use serde_json::json;

use crate::harness::{Bus, eventually, shared_kafka};
use crate::projections::{COUNT, SOON, World, projection};

/// As after an upgrade whose expressions are stricter.
async fn a_definition_that_no_longer_compiles_misses_no_event(name: &str, bus: Bus) {
    let mut world = World::start(name, bus).await;
    world.declare("count.yaml", &projection("count", COUNT));
    world.post("a", json!({"value": 1})).await;
    world.until_state("count", "a", json!({"n": 1})).await;
    world.until_live("count", None).await;
    world.handle.kill9();
    let broken = "UPDATE projection_progress SET live_spec = jsonb_set(live_spec, '{filter}', '\"no expression (\"')
                   WHERE projection_type = 'count'";
    assert_eq!(sqlx::query(broken).execute(&world.pool).await.expect("updated").rows_affected(), 1);
    world.post("a", json!({"value": 2})).await;
    world.handle.start_again();
    world.until_state("sensor_state", "a", json!({"value": 2})).await;
    world.until_state("count", "a", json!({"n": 2})).await;
    world.until_live("count", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_no_longer_compiles_misses_no_event_on_the_embedded_bus() {
    a_definition_that_no_longer_compiles_misses_no_event("broken-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_no_longer_compiles_misses_no_event_on_kafka() {
    a_definition_that_no_longer_compiles_misses_no_event("broken-kafka", Bus::Kafka(shared_kafka().await)).await;
}

async fn the_gauge_shows_what_waits(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    world.post("a", json!({"value": 1})).await;
    world.until_state("sensor_state", "a", json!({"value": 1})).await;
    // The first message of a partition may have sent it to the event store.
    world.until_live("sensor_state", None).await;
    let behind = || world.handle.metric("cornjacket_handler_behind_events");
    eventually(SOON, || async { behind().await == Some(0.0) }).await;
    let mut held = world.pool.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM projections WHERE aggregate_id = 'a' FOR UPDATE").execute(&mut *held).await.expect("held");
    for value in 2..=4 {
        world.post("a", json!({"value": value})).await;
    }
    eventually(SOON, || async { behind().await > Some(0.0) }).await;
    held.rollback().await.expect("ended");
    eventually(SOON, || async { behind().await == Some(0.0) }).await;
    world.until_state("sensor_state", "a", json!({"value": 4})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gauge_shows_what_waits_on_the_embedded_bus() {
    the_gauge_shows_what_waits("lag-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gauge_shows_what_waits_on_kafka() {
    the_gauge_shows_what_waits("lag-kafka", Bus::Kafka(shared_kafka().await)).await;
}
