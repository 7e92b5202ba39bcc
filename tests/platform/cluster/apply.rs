//! What is applied is served, and says so.

use serde_json::json;

use super::{PROJECTION, SOON, TOPIC, World, event_type, until_looked};
use crate::harness::{Bus, eventually, http, shared_kafka};

async fn samples_are_served(name: &str, bus: Bus) {
    let world = World::new(name, bus).await;
    let _controllers = world.controllers("").await;
    let ingest = world.platform.ingest().ready().await;
    let _relay = world.platform.relay("").ready().await;
    let _handler = world.platform.handle("").ready().await;
    let query = world.platform.query().ready().await;
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/samples/");
    let said = world.kubectl(&["apply", "-f", samples]);
    assert!(!said.contains("Warning"), "{said}");
    world.wait_for_all();
    let shown = world.kubectl(&["get", "cornjacket"]);
    for word in ["READY", "REASON", "sensor-events", "sensor.reading", "sensor-state", "Available"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }

    let reading = json!({"event_type": "sensor.reading", "aggregate_id": "device-001", "payload": {"value": 72.5, "unit": "fahrenheit"}});
    let answer = http::post(&http::client(), &ingest.url("/api/v1/events"), &reading).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let url = query.url("/api/v1/projections/sensor_state/device-001");
    let state = eventually(SOON, || async {
        let answer = http::get(&http::client(), &url).await.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(answer.body["state"].clone()) } else { Err(answer.body.to_string()) }
    })
    .await;
    assert_eq!(state, json!({"value": 72.5, "unit": "fahrenheit"}));
    let broken = json!({"event_type": "sensor.reading", "aggregate_id": "a", "payload": {"value": "hot"}});
    let answer = http::post(&http::client(), &ingest.url("/api/v1/events"), &broken).await.unwrap();
    assert_eq!(answer.status, 400, "the schema of the cluster's resource holds: {}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_samples_are_applied_ready_and_served_on_the_embedded_bus() {
    samples_are_served("samples-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_samples_are_applied_ready_and_served_on_kafka() {
    samples_are_served("samples-kafka", Bus::Kafka(shared_kafka().await)).await;
}

const NUMBER: &str = "{versions: [{version: 1, schema: {type: object, properties: {count: {type: number}}}}]}";
const TEXT: &str = "{versions: [{version: 1, schema: {type: object, properties: {count: {type: string}}}}]}";
const EITHER: &str =
    "{versions: [{version: 1, schema: {type: object, properties: {count: {type: [number, string]}}}}]}";

#[tokio::test(flavor = "multi_thread")]
async fn a_compatible_edit_is_served_and_an_incompatible_one_is_stalled_while_the_old_one_stays() {
    let world = World::new("edits", Bus::Embedded).await;
    let _controllers = world.controllers("").await;
    let (registry, _lifecycle) = world.data_plane();
    let mut catalog = registry.catalog.clone();
    world.apply(&format!("{TOPIC}{}", event_type("room.left", NUMBER)));
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    let accepts = |value: serde_json::Value| {
        let catalog = registry.catalog.clone();
        eventually(SOON, move || {
            let catalog = catalog.borrow().clone();
            let found = catalog.event_types["room.left"].spec.versions[0].schema["properties"]["count"]["type"].clone();
            let verdict = if found == value { Ok(()) } else { Err(found.to_string()) };
            async move { verdict }
        })
    };
    world.apply(&event_type("room.left", EITHER));
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    accepts(json!(["number", "string"])).await;

    world.apply(&event_type("room.left", TEXT));
    let message = world.until_ready_is("eventtype", "room.left", "False", "Incompatible").await;
    assert!(message.contains("/properties/count") && message.contains("generation 2 is still served"), "{message}");
    let stalled = world.condition("eventtype", "room.left", "Stalled").unwrap();
    assert_eq!((stalled.0.as_str(), stalled.1.as_str()), ("True", "Incompatible"));
    accepts(json!(["number", "string"])).await;

    world.apply(&event_type("room.left", EITHER));
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    assert!(world.condition("eventtype", "room.left", "Stalled").is_none());
    world.kubectl(&["delete", "eventtype", "room.left"]);
    tokio::time::timeout(SOON, catalog.wait_for(|catalog| !catalog.event_types.contains_key("room.left")))
        .await
        .expect("what is deleted is not served")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_comes_later_wakes_the_event_types_that_wait_for_it() {
    let world = World::new("later", Bus::Embedded).await;
    let _controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    world.apply(&event_type("room.left", "{topicRef: {name: rooms}}"));
    let message = world.until_ready_is("eventtype", "room.left", "False", "TopicNotFound").await;
    assert!(message.contains("rooms"), "{message}");
    world.apply(TOPIC);
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_to_run_it_is_said_and_so_is_who_is_waited_for() {
    let world = World::new("nobody", Bus::Embedded).await;
    let _controllers = world.controllers("").await;
    world.apply(&format!("{TOPIC}{}{PROJECTION}", event_type("room.left", "{}")));
    let message = world.until_ready_is("eventtype", "room.left", "False", "NoInstances").await;
    assert!(message.contains("no instance of ingest and of relay is alive: start one"), "{message}");
    let (registry, lifecycle) = world.data_plane();
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    let status = world.get("eventtype", "room.left").unwrap()["status"].clone();
    assert_eq!(status["dataPlane"]["ackedReplicas"], 2);
    assert_eq!(status["dataPlane"]["totalReplicas"], 2);
    let message = world.until_ready_is("projection", "room-state", "False", "NoInstances").await;
    assert!(message.contains("no instance of handle is alive"), "{message}");
    let mut handler = world.platform.handle("").ready().await;
    world.until_ready_is("projection", "room-state", "True", "Available").await;
    handler.kill9();
    // Who says nothing any more is dead, by the database's clock, and is not waited for.
    lifecycle.stop();
    drop((registry, lifecycle));
    let dead = "UPDATE instance SET heartbeat_at = now() - interval '1 minute'";
    eventually(SOON, || async {
        sqlx::query(dead).execute(&world.pool).await.map_err(|e| e.to_string())?;
        let ready = world.condition("eventtype", "room.left", "Ready").ok_or("no condition")?;
        if ready.1 == "NoInstances" { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_and_observed_resources_are_left_alone_and_say_so() {
    let world = World::new("paused", Bus::Embedded).await;
    let controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    let paused = event_type("room.left", "{reconciliation: Paused}");
    let observed = event_type("room.entered", "{managementPolicy: Observe}");
    world.apply(&format!("{TOPIC}{paused}{observed}"));
    world.until_ready_is("eventtype", "room.left", "False", "Paused").await;
    world.until_ready_is("eventtype", "room.entered", "False", "Observing").await;
    until_looked(&controllers, 2.0).await;
    let rows = "SELECT kind || ' ' || name FROM registration ORDER BY kind, name";
    let registered = async || -> Vec<String> { sqlx::query_scalar(rows).fetch_all(&world.pool).await.unwrap() };
    assert_eq!(registered().await, ["Topic rooms"], "no tombstone either");
    world.apply(&event_type("room.left", "{reconciliation: Active}"));
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    assert_eq!(registered().await, ["EventType room.left", "Topic rooms"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_explained() {
    let world = World::new("explain", Bus::Embedded).await;
    for kind in ["topic", "eventtype", "projection", "webhookaction"] {
        for part in ["spec", "status"] {
            let said = world.cluster.must(&["explain", &format!("{kind}.{part}"), "--recursive=false"]);
            assert!(!said.contains("<no description>"), "{kind}.{part}: {said}");
        }
    }
    let said = world.cluster.must(&["explain", "projection.spec.startFrom"]);
    assert!(said.contains("Earliest"), "{said}");
}
