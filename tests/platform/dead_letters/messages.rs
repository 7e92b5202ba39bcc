//! Letters of MQTT: the message is taken in anew.

use std::time::Duration;

use serde_json::{Value, json};

use super::tell;
use crate::harness::eventually;
use crate::mqtt::{SOON, World, until_subscribed};

const READING: &str = "{type: integer}";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_refused_is_accepted_once_what_is_declared_is_mended() {
    let world = World::new("letters").await;
    let ingest = world.ingest().await;
    let mut device = world.device("d");
    for payload in [r#"{"value": "12"}"#, r#"{"value": true}"#, r#"{"value": "13"}"#] {
        device.publish("devices/1/reading", payload).await;
    }
    device.publish("devices/2/reading", r#"{"value": "14"}"#).await;
    world.letters(4).await;
    let came: chrono::DateTime<chrono::Utc> = chrono::Utc::now();
    drop(ingest);

    // An ingest without MQTT does it as well.
    let file = world.platform.resources().join("sensors.yaml");
    let text = std::fs::read_to_string(&file).expect("our own file");
    std::fs::write(&file, text.replace(READING, "{type: [integer, string]}")).expect("our own directory");
    let _ingest = world.platform.ingest().ready().await;
    let relay = &world.relay;
    eventually(SOON, || async {
        let schema: Option<String> = sqlx::query_scalar(
            "SELECT spec::text FROM registration WHERE kind = 'EventType' AND spec::text LIKE '%string%'",
        )
        .fetch_optional(&world.pool)
        .await
        .unwrap();
        schema.is_some()
    })
    .await;
    // The registration reaches ingest within seconds: until then letters fail as they did.
    eventually(SOON, || async {
        let answer = tell(relay, "/replay", json!({"consumer": "mqtt-ingress"})).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        let waiting = "SELECT count(*) FROM dlq WHERE status = 'pending' AND replay_requested_at IS NOT NULL";
        eventually(Duration::from_secs(20), || async {
            let left: i64 = sqlx::query_scalar(waiting).fetch_one(&world.pool).await.unwrap();
            left == 0
        })
        .await;
        let replayed: i64 = sqlx::query_scalar("SELECT count(*) FROM dlq WHERE status = 'replayed'")
            .fetch_one(&world.pool)
            .await
            .unwrap();
        replayed == 2
    })
    .await;
    world.until_stored("sensor.reading", 2).await;
    let first = world.events("device-1").await;
    assert_eq!(
        (first.len(), &first[0].1),
        (1, &json!({"value": "12"})),
        "behind the one that fails again nothing goes"
    );
    assert_eq!(first[0].2["mqtt"]["topic"], "devices/1/reading");
    assert_eq!(world.events("device-2").await[0].1, json!({"value": "14"}));
    let letters: Vec<(String, String, i32, Option<String>, Value)> =
        sqlx::query_as("SELECT status, error_message, retry_count, reason, event_payload FROM dlq ORDER BY dlq_id")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    let statuses: Vec<&str> = letters.iter().map(|letter| letter.0.as_str()).collect();
    assert_eq!(statuses, ["replayed", "pending", "pending", "replayed"]);
    assert!(letters[1].1.starts_with("payload/value:") && letters[1].2 > 0, "{:?}", letters[1]);
    assert!(letters[2].3.as_ref().is_some_and(|why| why.starts_with("not tried: letter ")), "{:?}", letters[2]);
    let happened: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT timestamp FROM event_store WHERE aggregate_id = 'device-2'")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert!(happened < came, "it happened when the message came");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_replayed_by_the_ingest_that_takes_messages_too() {
    let world = World::new("letters-beside").await;
    let ingest = world.ingest().await;
    let mut device = world.device("d");
    device.publish("devices/1/reading", r#"{"value": "1"}"#).await;
    world.letters(1).await;
    let file = world.platform.resources().join("sensors.yaml");
    let text = std::fs::read_to_string(&file).expect("our own file");
    std::fs::write(&file, text.replace(READING, "{type: [integer, string]}")).expect("our own directory");
    until_subscribed(&ingest, 1.0).await;
    eventually(SOON, || async {
        device_says_so(&world).await;
        let stored = world.events("device-1").await;
        stored.first().is_some_and(|event| event.1 == json!({"value": "1"}))
    })
    .await;
}

async fn device_says_so(world: &World) {
    let answer = tell(&world.relay, "/replay", json!({"all": true})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
}
