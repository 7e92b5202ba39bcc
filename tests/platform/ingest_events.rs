//! What is taken: single events, batches, CloudEvents, and what the interface says about itself.

use cornjacket::ingest::Settings;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::ingest_world::{World, read, reading};

async fn stored(world: &World) -> Vec<Value> {
    sqlx::query_scalar("SELECT event_payload FROM outbox ORDER BY seq").fetch_all(&world.pool).await.unwrap()
}

#[tokio::test]
async fn an_event_is_accepted_as_the_contract_says_and_stands_in_the_outbox() {
    let world = World::start(Settings::default()).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut event = reading("device-1", 7);
    event["event_time"] = json!("2026-01-31T12:00:00.5+01:00");
    event["trace_id"] = json!("mine");
    event["more"] = json!("ignored");
    let (status, body) = read(world.post_to("/api/v1/events").header("traceparent", trace).json(&event)).await;
    assert_eq!(status, 202);
    let id: Uuid = body["event_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(body, json!({"event_id": id, "status": "accepted"}));
    assert_eq!(id.get_version_num(), 7);
    let envelope = &stored(&world).await[0];
    assert_eq!(envelope["event_id"], json!(id));
    assert_eq!(envelope["timestamp"], "2026-01-31T11:00:00.500Z");
    assert_eq!(envelope["payload"], json!({"value": 7, "unit": "c"}));
    let metadata = json!({"trace_id": "mine", "traceparent": trace, "source": "http", "schema_version": 1});
    assert_eq!(envelope["metadata"], metadata);
    assert!(envelope.get("more").is_none());
    let (row, shard): (Uuid, i16) =
        sqlx::query_as("SELECT outbox_id, shard FROM outbox").fetch_one(&world.pool).await.unwrap();
    assert_eq!((row, shard), (id, cornjacket::event::shard_of("device-1")));
}

#[tokio::test]
async fn a_broken_schema_that_only_warns_is_accepted_and_said() {
    let world = World::start(Settings::default()).await;
    let event = json!({"event_type": "sensor.warned", "aggregate_id": "a", "payload": {"value": "hot", "unit": "c"}});
    let response = world.post_to("/api/v1/events").json(&event).send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert!(response.headers().contains_key("warning"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["warnings"][0]["pointer"], "/payload/value");
    assert_eq!(world.outbox_rows().await, 1);
}

#[tokio::test]
async fn a_batch_is_answered_item_by_item_and_keeps_the_order_of_each_aggregate() {
    let world = World::start(Settings::default()).await;
    let mut events: Vec<Value> = (0..600).map(|i| reading(&format!("device-{}", i % 40), i)).collect();
    events[100]["aggregate_id"] = json!("");
    let (status, body) = read(world.post_to("/api/v1/events/batch").json(&events)).await;
    assert_eq!((status, &body["accepted"], &body["refused"]), (207, &json!(599), &json!(1)));
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.len(), 600);
    assert_eq!((&results[100]["code"], &results[100]["status"]), (&json!(400), &json!("refused")));
    assert!(results[100]["error"].as_str().unwrap().contains("aggregate_id"));
    assert!(results.iter().enumerate().all(|(i, result)| result["index"] == i));
    let mut last = std::collections::HashMap::new();
    for envelope in stored(&world).await {
        let value = envelope["payload"]["value"].as_i64().unwrap();
        let before = last.insert(envelope["aggregate_id"].as_str().unwrap().to_owned(), value);
        assert!(before.is_none_or(|before| before < value), "{before:?} before {value}");
    }
}

#[tokio::test]
async fn an_all_or_nothing_batch_is_stored_whole_or_not_at_all() {
    let world = World::start(Settings::default()).await;
    let mut events: Vec<Value> = (0..50).map(|i| reading(&format!("device-{i}"), i)).collect();
    events[49]["payload"]["value"] = json!("hot");
    let (status, body) = read(world.post_to("/api/v1/events/batch?atomic=true").json(&events)).await;
    assert_eq!((status, &body["accepted"]), (400, &json!(0)), "{body}");
    assert!(body["error"].as_str().unwrap().contains("payload/value"), "{body}");
    assert_eq!(body["results"][0]["code"], 424);
    assert_eq!(world.outbox_rows().await, 0);
    events.pop();
    let (status, body) = read(world.post_to("/api/v1/events/batch?atomic=true").json(&events)).await;
    assert_eq!((status, &body["accepted"]), (202, &json!(49)));
    let transactions: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM outbox").fetch_one(&world.pool).await.unwrap();
    assert_eq!((world.outbox_rows().await, transactions), (49, 1));
}

#[tokio::test]
async fn lines_are_a_batch_and_batches_are_bounded() {
    let world = World::start(Settings::default()).await;
    let lines = |count: i64| (0..count).map(|i| reading("a", i).to_string() + "\r\n\n").collect::<String>();
    let send =
        |body: String| world.post_to("/api/v1/events/batch").header("content-type", "application/x-ndjson").body(body);
    let (status, body) = read(send(lines(3) + "{oops")).await;
    assert_eq!((status, &body["accepted"], &body["results"][3]["code"]), (207, &json!(3), &json!(400)), "{body}");
    let (status, body) = read(send(lines(1_001))).await;
    assert_eq!(status, 413);
    assert!(body["error"].as_str().unwrap().contains("1000 events"), "{body}");
    let none = send("{oops\n{}".to_owned()).send().await.unwrap();
    assert_eq!(none.headers()["content-type"], "application/problem+json");
    let none: serde_json::Value = none.json().await.unwrap();
    assert_eq!(
        (&none["status"], &none["accepted"], &none["error"]),
        (&json!(400), &json!(0), &none["detail"]),
        "{none}"
    );
    let unknown = world.get("/api/v1/event-types/no.such").await;
    assert_eq!(
        (unknown.status().as_u16(), &unknown.headers()["content-type"]),
        (404, &"application/problem+json".parse().unwrap())
    );
    assert_eq!(world.outbox_rows().await, 3);
    let (status, body) = read(world.post_to("/api/v1/events/batch").json(&json!([]))).await;
    assert_eq!((status, &body["results"]), (202, &json!([])));
}

#[tokio::test]
async fn cloud_events_are_taken_in_all_three_modes() {
    let world = World::start(Settings::default()).await;
    let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "sensor.reading", "subject": "d1",
        "dataschema": "urn:reading:1", "data": {"value": 1, "unit": "c"}});
    let structured =
        world.post_to("/api/v1/events").header("content-type", "application/cloudevents+json; charset=utf-8");
    let (status, first) = read(structured.body(event.to_string())).await;
    assert_eq!(status, 202, "{first}");
    let binary = world
        .post_to("/api/v1/events")
        .header("content-type", "application/json")
        .header("ce-specversion", "1.0")
        .header("ce-id", "1")
        .header("ce-source", "/s")
        .header("ce-type", "sensor.reading")
        .header("ce-subject", "d1");
    let (status, again) = read(binary.body(r#"{"unit":"c", "value":1}"#)).await;
    assert_eq!((status, &again["event_id"]), (202, &first["event_id"]), "source and id are a key in every mode");
    let mut other = event.clone();
    other["id"] = json!("2");
    let batch = world.post_to("/api/v1/events").header("content-type", "application/cloudevents-batch+json");
    let (status, body) = read(batch.body(json!([event, other, event]).to_string())).await;
    assert_eq!((status, &body["accepted"]), (202, &json!(3)), "{body}");
    assert_eq!(body["results"][0]["event_id"], first["event_id"]);
    let envelopes = stored(&world).await;
    assert_eq!(envelopes.len(), 2);
    assert_eq!(envelopes[0]["metadata"], json!({"source": "/s", "cloudevents_id": "1", "schema_version": 1}));
}

#[tokio::test]
async fn event_types_and_the_interface_can_be_read() {
    let world = World::start(Settings::default()).await;
    let list: Value = world.get("/api/v1/event-types").await.json().await.unwrap();
    assert_eq!(list["event_types"][0]["event_type"], "sensor.reading");
    let one: Value = world.get("/api/v1/event-types/sensor.reading").await.json().await.unwrap();
    assert_eq!(one["versions"][0]["schema"]["type"], "object");
    assert_eq!(world.get("/api/v1/event-types/none").await.status(), 404);
    let openapi: Value = world.get("/openapi.json").await.json().await.unwrap();
    assert!(openapi["paths"]["/api/v1/events"]["post"]["responses"]["202"].is_object());
}
