//! `up` answers for all its databases.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{THING, thing};
use crate::harness::{Launch, by_mqtt, eventually, free_port, fresh_database, http, sensor_resources, topic_prefix};
use crate::projections::{SOON, projection};

/// One by MQTT that failed before its type took the topic.
async fn message(pool: &sqlx::PgPool) -> Uuid {
    let id = Uuid::now_v7();
    let payload = r#"{"value": 5}"#;
    let held = json!({"topic": "devices/1/reading", "content_type": null, "user_properties": [],
        "payload": {"text": payload}, "payload_bytes": payload.len()});
    sqlx::query(
        "INSERT INTO dlq (dlq_id, consumer, event_id, event_payload, error_message)
         VALUES ($1, 'mqtt-ingress', $1, $2, 'topic: is taken by no event type')",
    )
    .bind(id)
    .bind(held)
    .execute(pool)
    .await
    .expect("inserted");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn up_shows_and_replays_the_letters_of_all_its_databases() {
    let resources = sensor_resources(&topic_prefix());
    by_mqtt(resources.path());
    std::fs::write(resources.path().join("thing.yaml"), THING).expect("our own directory");
    let sums = "  source: {eventTypes: [thing.seen]}\n  fields: {sum: \"(has(state.sum) ? state.sum : 0) + event.payload.v\"}\n";
    std::fs::write(resources.path().join("sums.yaml"), projection("sums", sums)).expect("our own directory");
    let (ingestion, handlers) = (fresh_database().await, fresh_database().await);
    let data = tempfile::tempdir().expect("a directory");
    let (data, resources) = (data.path().display().to_string(), resources.path().display().to_string());
    let [ingest, query, actions] = [free_port(), free_port(), free_port()];
    let mut launch =
        Launch::new("letters-up", ingest, &["up", "--no-mqtt", "--data-dir", &data, "--resources", &resources])
            .env("INGESTION_DATABASE_URL", &ingestion.url)
            .env("EVENTHANDLER_DATABASE_URL", &handlers.url);
    for (flag, port) in [("--ingestion-port", ingest), ("--query-port", query), ("--actions-port", actions)] {
        launch.arguments.extend([flag.to_owned(), port.to_string()]);
    }
    let up = launch.ready().await;
    let letters = format!("http://127.0.0.1:{actions}/api/v1/dead-letters");
    let ask = async |path: &str| http::get(&http::client(), &format!("{letters}{path}")).await.expect("an answer").body;
    let kept = message(&ingestion.pool().await).await;
    eventually(SOON, || async {
        let posted =
            http::post(&http::client(), &up.url("/api/v1/events"), &thing("a", "poison")).await.expect("an answer");
        posted.status == 202
    })
    .await;
    let all = eventually(SOON, || async {
        let found = ask("?limit=2").await;
        let found: Vec<Value> = found["dead_letters"].as_array().expect("letters").clone();
        (found.len() == 2).then_some(found).ok_or("not yet")
    })
    .await;
    assert_eq!((&all[0]["consumer"], &all[1]["consumer"]), (&json!("event-handler"), &json!("mqtt-ingress")));
    let first = ask("?limit=1").await;
    let cursor = first["next_cursor"].as_str().expect("a second page");
    let second = ask(&format!("?limit=1&cursor={cursor}")).await;
    assert_eq!((&first["dead_letters"][0], &second["dead_letters"][0]), (&all[0], &all[1]));
    assert_eq!(ask(&format!("/{kept}")).await["dlq_id"], kept.to_string());
    assert_eq!(ask("/summary").await["consumers"].as_array().map(Vec::len), Some(2));

    let body = json!({"all": true});
    let answer = http::post(&http::client(), &format!("{letters}/replay"), &body).await.expect("an answer");
    assert_eq!(answer.body["consumers"], json!({"event-handler": 1, "mqtt-ingress": 1}));
    let state = format!("http://127.0.0.1:{query}/api/v1/projections/sensor_state/device-1");
    eventually(SOON, || async {
        let row = http::get(&http::client(), &state).await.expect("an answer").body;
        if row["state"] == json!({"value": 5}) { Ok(()) } else { Err(row.to_string()) }
    })
    .await;
    eventually(SOON, || async {
        let found = ask("").await["dead_letters"].as_array().expect("letters").clone();
        let again = found[0]["status"] == "pending" && found[0]["retry_count"] == 4;
        if again && found[1]["status"] == "replayed" { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}
