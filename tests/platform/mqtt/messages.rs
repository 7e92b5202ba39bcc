//! What messages become.

use serde_json::json;

use super::{SOON, World, until_subscribed};
use crate::harness::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_becomes_an_event_of_the_device_that_its_topic_names() {
    let world = World::new("payload").await;
    let _ingest = world.ingest().await;
    let mut device = world.device("d1");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let properties = [("event-time", "2026-01-31T12:00:00Z"), ("traceparent", trace), ("trace-id", "t-1")];
    device.publish_with("devices/7/reading", r#"{"value": 72}"#, &properties).await;
    world.until_stored("sensor.reading", 1).await;
    let (event_type, payload, metadata) = world.events("device-7").await.remove(0);
    assert_eq!((event_type.as_str(), payload), ("sensor.reading", json!({"value": 72})));
    assert_eq!(metadata["source"], "mqtt");
    assert_eq!(metadata["mqtt"]["topic"], "devices/7/reading");
    assert_eq!((&metadata["traceparent"], &metadata["trace_id"]), (&json!(trace), &json!("t-1")));
    let occurred: String = sqlx::query_scalar("SELECT (timestamp AT TIME ZONE 'UTC')::text FROM event_store")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(occurred, "2026-01-31 12:00:00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_event_or_a_cloud_event_is_taken_by_its_content_type() {
    let world = World::new("forms").await;
    let _ingest = world.ingest().await;
    let mut device = world.device("gateway");
    let own = json!({"event_type": "sensor.reading", "aggregate_id": "own", "payload": {"value": 1}}).to_string();
    let envelope = [("content-type", "application/vnd.cornjacket.event+json")];
    device.publish_with("devices/g/reading", &own, &envelope).await;
    let cloud = json!({"specversion": "1.0", "id": "1", "source": "/gw", "type": "sensor.reading", "subject": "cloud",
                       "data": {"value": 2}});
    let structured = [("content-type", "application/cloudevents+json")];
    device.publish_with("devices/g/reading", &cloud.to_string(), &structured).await;
    // The same CloudEvent once more: its source and id say so.
    device.publish_with("devices/g/reading", &cloud.to_string(), &structured).await;
    let attributes =
        [("specversion", "1.0"), ("id", "2"), ("source", "/gw"), ("type", "sensor.reading"), ("subject", "binary")];
    device.publish_with("devices/g/reading", r#"{"value": 3}"#, &attributes).await;
    world.until_stored("sensor.reading", 3).await;
    for (aggregate, value) in [("own", 1), ("cloud", 2), ("binary", 3)] {
        let events = world.events(aggregate).await;
        assert_eq!((events.len(), &events[0].1), (1, &json!({"value": value})), "{aggregate}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_an_event_is_a_dead_letter_and_holds_up_nobody() {
    let world = World::new("refused").await;
    let ingest = world.launch("").env("CORNJACKET_MAX_EVENT_BYTES", "2000").ready().await;
    until_subscribed(&ingest, 1.0).await;
    let mut device = world.device("d1");
    let large = format!("{{\"value\": 1, \"more\": \"{}\"}}", "x".repeat(2_500));
    for payload in ["hot", r#"{"value": "hot"}"#, "{\"value\": 1, \"text\": \"\\u0000\"}", "nul\0", &large] {
        device.publish("devices/1/reading", payload).await;
    }
    device.publish("devices/1/reading", r#"{"value": 1}"#).await;
    world.until_stored("sensor.reading", 1).await;
    let letters = world.letters(5).await;
    let causes: Vec<&str> = letters.iter().map(|(_, cause)| cause.as_str()).collect();
    assert!(causes[0].starts_with("the body: must be JSON"), "{causes:?}");
    assert!(causes[1].starts_with("payload/value:"), "{causes:?}");
    assert!(causes[2].contains("payload/text"), "{causes:?}");
    assert!(causes[3].starts_with("the body: must be JSON"), "{causes:?}");
    assert!(causes[4].starts_with("the body: must have at most 2000 bytes"), "{causes:?}");
    assert_eq!(letters[0].0["topic"], "devices/1/reading");
    assert_eq!(letters[0].0["payload"], json!({"text": "hot"}));
    assert_eq!(letters[3].0["payload"], json!({"base64": "bnVsAA=="}));
    assert_eq!(world.events("device-1").await.len(), 1);
    assert_eq!(ingest.metric("cornjacket_mqtt_messages_total{outcome=\"refused\"}").await, Some(5.0));
}

const ROOMS: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: EventType
metadata: {name: room.left}
spec:
  mqtt: [{topicFilter: 'rooms/+/left/#', aggregateId: '{1}:{2}'}]
";

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_follow_what_is_declared() {
    let world = World::new("follow").await;
    let ingest = world.ingest().await;
    let mut device = world.device("d1");
    device.publish("rooms/1/left/by/door", "{}").await;
    let file = world.platform.resources().join("rooms.yaml");
    std::fs::write(&file, ROOMS).unwrap();
    until_subscribed(&ingest, 2.0).await;
    device.publish("rooms/2/left/by/door", "{}").await;
    world.until_stored("room.left", 1).await;
    assert_eq!(world.events("2:by/door").await.len(), 1);
    std::fs::remove_file(&file).unwrap();
    until_subscribed(&ingest, 1.0).await;
    device.publish("rooms/3/left/by/door", "{}").await;
    device.publish("devices/1/reading", r#"{"value": 1}"#).await;
    world.until_stored("sensor.reading", 1).await;
    let rooms: i64 = sqlx::query_scalar("SELECT count(*) FROM event_store WHERE event_type = 'room.left'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(rooms, 1, "nothing before it was declared, and nothing after");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_keeps_for_new_subscribers_is_no_event_and_old_protocols_are_spoken() {
    for version in ["5", "3.1.1"] {
        let world = World::new(&format!("retained-{version}")).await;
        let mut device = world.device("d1");
        device.retain("devices/1/reading", r#"{"value": 1}"#).await;
        let launch = world.launch("").env("MQTT_VERSION", version).env("MQTT_SHARE", "");
        let ingest = launch.ready().await;
        until_subscribed(&ingest, 1.0).await;
        device.publish("devices/1/reading", r#"{"value": 2}"#).await;
        world.until_stored("sensor.reading", 1).await;
        assert_eq!(world.events("device-1").await[0].1, json!({"value": 2}), "{version}");
        if version == "3.1.1" {
            let retained = "cornjacket_mqtt_messages_total{outcome=\"retained\"}";
            eventually(SOON, || async { ingest.metric(retained).await == Some(1.0) }).await;
        }
    }
}
