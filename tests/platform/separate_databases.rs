//! Ingestion and handler with a database of their own each.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::http::{self, Answer};
use crate::harness::{Bus, OwnPostgres, Platform, Process, eventually, fresh_database, shared_kafka};

const SOON: Duration = Duration::from_mins(1);

async fn post(ingest: &Process, value: i64) -> Answer {
    let event = json!({"event_type": "sensor.reading", "aggregate_id": "a", "payload": {"value": value}});
    http::post(&http::client(), &ingest.url("/api/v1/events"), &event).await.expect("an answer")
}

/// Posts values and reads, by the id of the last event, the state that holds them all.
async fn written_and_read(ingest: &Process, query: &Process, values: std::ops::RangeInclusive<i64>) -> Value {
    let mut last = Value::Null;
    for value in values {
        let answer = post(ingest, value).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        last = answer.body["event_id"].clone();
    }
    let id = last.as_str().expect("an id");
    let path = format!("/api/v1/projections/sensor_history/a?after_event={id}&timeout=20s");
    let read = http::get(&http::client(), &query.url(&path)).await.expect("an answer");
    assert_eq!(read.status, 200, "{}", read.body);
    read.body["state"].clone()
}

/// Waits until a path is answered with 200.
async fn answers(process: &Process, path: &str) {
    let (client, url) = (http::client(), process.url(path));
    eventually(SOON, || async { http::get(&client, &url).await.is_ok_and(|answer| answer.status == 200) }).await;
}

async fn events_go_from_one_database_to_the_other(name: &str, bus: Bus) {
    let mut handlers = tokio::task::block_in_place(|| OwnPostgres::start_new(name));
    let platform =
        Platform::new(name, fresh_database().await, bus).with_handler_database(handlers.fresh_database().await);
    let (ingest, relay, handle) =
        tokio::join!(platform.ingest().ready(), platform.relay("").ready(), platform.handle("").ready());
    let (_controllers, query) = tokio::join!(platform.controllers().ready(), platform.query().ready());
    // Until the projection is known, nobody can wait for it.
    answers(&query, "/api/v1/projections/sensor_history").await;
    let state = written_and_read(&ingest, &query, 1..=5).await;
    assert_eq!(state, json!({"count": 5, "sum": 15, "last": 5, "ordered": true}));

    // The handler's database is away: events are accepted and stored all the same.
    tokio::task::block_in_place(|| handlers.stop());
    let pool = platform.database().pool().await;
    for value in 6..=10 {
        assert_eq!(post(&ingest, value).await.status, 202);
    }
    eventually(SOON, || async {
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM event_store").fetch_one(&pool).await.unwrap();
        stored == 10
    })
    .await;
    tokio::task::block_in_place(|| handlers.start());
    answers(&query, "/readyz").await;
    let state = written_and_read(&ingest, &query, 11..=12).await;
    assert_eq!(state, json!({"count": 12, "sum": 78, "last": 12, "ordered": true}));
    for mut process in [handle, relay, ingest] {
        assert!(tokio::task::block_in_place(|| process.terminate()).success(), "{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_from_one_database_to_the_other_on_the_embedded_bus() {
    events_go_from_one_database_to_the_other("separate-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_from_one_database_to_the_other_on_kafka() {
    events_go_from_one_database_to_the_other("separate-kafka", Bus::Kafka(shared_kafka().await)).await;
}
