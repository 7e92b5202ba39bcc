//! Letters of the relay: back into the outbox, and to where they were refused.

use serde_json::{Value, json};

use super::{ask, tell};
use crate::harness::{Bus, Platform, Process, eventually, fresh_database, shared_kafka};
use crate::projections::SOON;
use crate::relay::{count, envelope, outbox};

const FORBID: &str = "ALTER TABLE event_store ADD CONSTRAINT unlucky CHECK (payload->>'value' <> '13') NOT VALID";

async fn replay_all(relay: &Process) -> u64 {
    let answer = tell(relay, "/replay", json!({"consumer": "relay"})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.body["requested"].as_u64().expect("a count")
}

async fn until(pool: &sqlx::PgPool, question: &'static str, wanted: i64) {
    eventually(SOON, || async {
        let now = count(pool, question).await;
        if now == wanted { Ok(()) } else { Err(format!("{now} instead of {wanted}: {question}")) }
    })
    .await;
}

async fn what_the_store_refused_is_stored_later(name: &str, bus: Bus) {
    let platform = Platform::new(name, fresh_database().await, bus);
    let _controllers = platform.controllers().ready().await;
    let _ingest = platform.ingest().ready().await;
    let pool = platform.database().pool().await;
    sqlx::query(FORBID).execute(&pool).await.expect("altered");
    let shard = 45; // of device-001
    outbox(&pool, shard, &[envelope("device-001", 13), envelope("device-001", 2)]).await;
    let relay = platform.relay("").ready().await;
    until(&pool, "SELECT count(*) FROM dlq WHERE status = 'pending'", 1).await;

    assert_eq!(replay_all(&relay).await, 1);
    until(&pool, "SELECT count(*) FROM dlq WHERE retry_count = 1 AND replay_requested_at IS NULL", 1).await;
    let letter = ask(&relay, "").await.body["dead_letters"][0].clone();
    assert_eq!((&letter["status"], &letter["consumer"]), (&json!("pending"), &json!("relay")));
    assert!(letter["error_message"].as_str().is_some_and(|cause| cause.contains("unlucky")), "{letter}");

    sqlx::query("ALTER TABLE event_store DROP CONSTRAINT unlucky").execute(&pool).await.expect("altered");
    assert_eq!(replay_all(&relay).await, 1);
    until(&pool, "SELECT count(*) FROM event_store", 2).await;
    until(&pool, "SELECT count(*) FROM outbox", 0).await;
    until(&pool, "SELECT count(*) FROM dlq WHERE status = 'replayed'", 1).await;
    let stored: Vec<(i64, Value)> =
        sqlx::query_as("SELECT position, payload->'value' FROM event_store ORDER BY position")
            .fetch_all(&pool)
            .await
            .expect("an answer");
    assert_eq!(stored, [(1, json!(2)), (2, json!(13))], "it is accepted as what comes now");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_refused_is_stored_later_on_the_embedded_bus() {
    what_the_store_refused_is_stored_later("letters-store", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_refused_is_stored_later_on_kafka() {
    what_the_store_refused_is_stored_later("letters-store-kafka", Bus::Kafka(shared_kafka().await)).await;
}

/// The topic takes small messages only, then larger ones: the event, which later ones have passed, is put in its place.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_bus_refused_is_published_late_and_folded_in_its_place() {
    let platform = Platform::new("letters-late", fresh_database().await, Bus::Kafka(shared_kafka().await));
    let file = platform.resources().join("sensors.yaml");
    let text = std::fs::read_to_string(&file).expect("our own file");
    let limit = |bytes: &str| {
        let config = format!("  default: true\n  config: {{max.message.bytes: \"{bytes}\"}}\n");
        std::fs::write(&file, text.replace("  default: true\n", &config)).expect("our own directory");
    };
    limit("20000");
    let _controllers = platform.controllers().ready().await;
    let _ingest = platform.ingest().ready().await;
    let pool = platform.database().pool().await;
    let mut rows: Vec<Value> = (1..=5).map(|value| envelope("device-001", value)).collect();
    rows[2]["payload"]["text"] = json!("x".repeat(40_000));
    let (relay, handle) = (platform.relay("").ready().await, platform.handle("").ready().await);
    // The first message of a partition has projections look into the event store: what comes then comes by the bus.
    outbox(&pool, 45, &rows[..2]).await;
    until(&pool, "SELECT count(*) FROM projections WHERE state->>'last' = '2'", 1).await;
    until(&pool, "SELECT count(*) FROM bus_offset WHERE next_offset = 2", 1).await;
    until(&pool, "SELECT count(*) FROM projection_progress WHERE status <> 'live'", 0).await;
    outbox(&pool, 45, &rows[2..]).await;
    until(&pool, "SELECT count(*) FROM dlq WHERE consumer = 'relay' AND status = 'pending'", 1).await;
    let state = |count: i64, ordered: bool| {
        let pool = pool.clone();
        async move {
            eventually(SOON, || async {
                let question = "SELECT state FROM projections WHERE projection_type = 'sensor_history'";
                let state: Option<Value> = sqlx::query_scalar(question).fetch_optional(&pool).await.unwrap();
                let is =
                    state.as_ref().is_some_and(|s| s["count"] == count && s["ordered"] == ordered && s["last"] == 5);
                if is { Ok(()) } else { Err(format!("{state:?}")) }
            })
            .await;
        }
    };
    state(4, false).await;
    let answer = tell(&relay, "/replay", json!({"consumer": "relay"})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    // Refused once more: pending again.
    until(&pool, "SELECT count(*) FROM dlq WHERE consumer = 'relay' AND status = 'pending' AND retry_count > 0", 1)
        .await;

    limit("200000");
    eventually(SOON * 2, || async {
        replay_all(&relay).await;
        until_settled(&pool).await;
        let published = "SELECT count(*) FROM dlq WHERE consumer = 'relay' AND status = 'replayed'";
        if count(&pool, published).await == 1 { Ok(()) } else { Err("the topic does not take it yet") }
    })
    .await;
    state(5, true).await;
    until(&pool, "SELECT count(*) FROM dlq WHERE status <> 'replayed'", 0).await;
    assert!(!handle.log().contains("fails again"), "{}", handle.log());
}

/// Waits until nothing is on its way.
async fn until_settled(pool: &sqlx::PgPool) {
    until(pool, "SELECT count(*) FROM dlq WHERE replay_requested_at IS NOT NULL AND status = 'pending'", 0).await;
    until(pool, "SELECT count(*) FROM outbox", 0).await;
}
