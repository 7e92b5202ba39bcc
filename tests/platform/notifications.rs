//! Wake-ups between processes are told once for many events.

use std::collections::BTreeMap;
use std::time::Duration;

use cornjacket::bus::wake::{EVENT_STORE, OUTBOX};
use cornjacket::handler::PROJECTION_CHANNEL;
use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::postgres::PgListener;

use crate::harness::{Bus, eventually, http, shared_kafka};
use crate::projections::{SOON, World};

const BATCHES: usize = 5;
const SINGLES: usize = 1000;
const AT_ONCE: usize = 64;
const EVENTS: usize = BATCHES * 1000 + SINGLES;

fn event(aggregate: usize) -> Value {
    json!({"event_type": "sensor.reading", "aggregate_id": format!("device-{aggregate}"), "payload": {"value": 1}})
}

async fn accept(url: &str, body: &Value) {
    let answer = http::post(&http::client(), url, body).await.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.body);
}

async fn many_events_are_told_by_few_notifications(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    let mut listener = PgListener::connect(&world.platform.database().url).await.unwrap();
    listener.listen_all([OUTBOX, EVENT_STORE, PROJECTION_CHANNEL]).await.unwrap();
    for _ in 0..BATCHES {
        accept(&world.ingest.url("/api/v1/events/batch"), &Value::Array((0..1000).map(|n| event(n % 100)).collect()))
            .await;
    }
    let url = world.ingest.url("/api/v1/events");
    let posts = futures::stream::iter((0..SINGLES).map(|n| {
        let url = url.clone();
        async move { accept(&url, &event(n % 100)).await }
    }));
    posts.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    eventually(SOON, || async {
        let folded =
            "SELECT sum((state->>'count')::bigint)::bigint FROM projections WHERE projection_type = 'sensor_history'";
        let folded: Option<i64> = sqlx::query_scalar(folded).fetch_one(&world.pool).await.map_err(|e| e.to_string())?;
        if folded == i64::try_from(EVENTS).ok() { Ok(()) } else { Err(format!("{folded:?} of {EVENTS} are folded")) }
    })
    .await;

    let mut told = BTreeMap::<String, usize>::new();
    // A notification of our own is behind all that were sent before it.
    sqlx::query("SELECT pg_notify($1, 'the end')").bind(OUTBOX).execute(&world.pool).await.unwrap();
    loop {
        let notification =
            tokio::time::timeout(Duration::from_secs(10), listener.recv()).await.expect("the end").unwrap();
        if notification.payload() == "the end" {
            break;
        }
        *told.entry(notification.channel().to_owned()).or_default() += 1;
    }
    eprintln!("{EVENTS} events: {told:?}");
    for channel in [OUTBOX, EVENT_STORE, PROJECTION_CHANNEL] {
        let count = told.get(channel).copied().unwrap_or(0);
        assert!(count > 0, "{channel}: nobody was told of {EVENTS} events");
        assert!(count * 5 < EVENTS, "{channel}: {count} notifications for {EVENTS} events");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_are_told_by_few_notifications_on_the_embedded_bus() {
    many_events_are_told_by_few_notifications("notify-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_are_told_by_few_notifications_on_kafka() {
    many_events_are_told_by_few_notifications("notify-kafka", Bus::Kafka(shared_kafka().await)).await;
}
