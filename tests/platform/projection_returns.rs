//! Projections that leave the group's batches and come back read on from where they were.

use serde_json::json;

use crate::harness::{Bus, eventually, http, shared_kafka};
use crate::projections::{COUNT, SOON, World, projection};

const AGGREGATES: i64 = 12;

impl World {
    /// One event for each of the aggregates.
    async fn post_to_all(&self, value: i64) {
        for aggregate in 0..AGGREGATES {
            self.post(&format!("a{aggregate}"), json!({"value": value})).await;
        }
    }

    async fn until_all_count(&self, n: i64) {
        for aggregate in 0..AGGREGATES {
            self.until_state("count", &format!("a{aggregate}"), json!({"n": n})).await;
        }
    }

    /// Waits until every projection is live and it is noted that it holds all that is stored.
    async fn until_noted(&self) {
        let behind = "SELECT count(*) FROM projection_progress p, outbox_shard s
                       WHERE p.status <> 'removed'
                         AND (p.status <> 'live' OR p.applied_through[s.shard + 1] < s.position)";
        eventually(SOON, || async {
            let behind = self.number(behind).await;
            if behind == 0 { Ok(()) } else { Err(format!("{behind} times a shard is not noted")) }
        })
        .await;
    }

    /// Events that the handler has read for projections that catch up, since it started.
    async fn caught_up(&self) -> f64 {
        self.handle.metric("cornjacket_handler_caught_up_total").await.unwrap_or(0.0)
    }

    /// As after a gap of the bus: everything that was live reads the event store.
    async fn catch_up_after_another_bus(&mut self, is: &str) {
        self.handle.kill9();
        sqlx::query("UPDATE consumer_group SET bus = CASE $1 WHEN 'kafka' THEN 'embedded' ELSE 'kafka' END")
            .bind(is)
            .execute(&self.pool)
            .await
            .expect("updated");
        self.handle.start_again();
    }
}

async fn what_returns_reads_on_from_where_it_was(name: &str, bus: Bus) {
    let is = if matches!(bus, Bus::Embedded) { "embedded" } else { "kafka" };
    let mut world = World::start(name, bus).await;
    // Ready needs one of every role.
    let _query = world.platform.query().ready().await;
    world.declare("count.yaml", &projection("count", COUNT));
    world.until_status("count", "live").await;
    for value in 1..=5 {
        world.post_to_all(value).await;
    }
    world.until_all_count(5).await;
    world.until_noted().await;
    // Retention takes all that was read.
    world.forget_events().await;

    // Removed, and added again.
    std::fs::remove_file(world.platform.resources().join("count.yaml")).expect("our own file");
    world.until_status("count", "removed").await;
    let before = world.caught_up().await;
    world.post_to_all(6).await;
    world.declare("count.yaml", &projection("count", COUNT));
    world.until_all_count(6).await;
    world.until_status("count", "live").await;
    let read = world.caught_up().await - before;
    #[expect(clippy::cast_precision_loss, reason = "a dozen")]
    let once = AGGREGATES as f64;
    assert!(read <= once, "{read} events were read again for {once}");
    world.until_condition("count", "Ready", "True", "Available").await;

    // All of them at once.
    world.until_noted().await;
    world.forget_events().await;
    world.catch_up_after_another_bus(is).await;
    world.post_to_all(7).await;
    world.until_all_count(7).await;
    for shown in ["count", "sensor-history", "sensor-state"] {
        world.until_condition(shown, "Ready", "True", "Available").await;
    }
    assert!(!world.handle_log().contains("HistoryTruncated"), "{}", world.handle_log());

    // What was dropped unread is lost, and said.
    std::fs::remove_file(world.platform.resources().join("count.yaml")).expect("our own file");
    world.until_status("count", "removed").await;
    world.post_to_all(8).await;
    world.until_noted().await;
    world.forget_events().await;
    world.post_to_all(9).await;
    world.declare("count.yaml", &projection("count", COUNT));
    world.until_all_count(8).await;
    world.until_condition("count", "Ready", "True", "HistoryTruncated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_returns_reads_on_from_where_it_was_on_the_embedded_bus() {
    what_returns_reads_on_from_where_it_was("returns-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_returns_reads_on_from_where_it_was_on_kafka() {
    what_returns_reads_on_from_where_it_was("returns-kafka", Bus::Kafka(shared_kafka().await)).await;
}

const ELSEWHERE: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: Topic
metadata: {name: elsewhere}
spec: {topicName: NAME, partitions: 2, replicationFactor: 1, retention: 1h, prefixes: [thing.]}
";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_passed_after_its_type_goes_by_another_topic() {
    let world = World::start("passed-elsewhere", Bus::Kafka(shared_kafka().await)).await;
    let query = world.platform.query().ready().await;
    world.declare("count.yaml", &projection("count", &COUNT.replace("sensor.reading", "thing.seen")));
    world.until_status("count", "live").await;
    let event = json!({"event_type": "thing.seen", "aggregate_id": "a", "payload": {}});
    let url = world.ingest.url("/api/v1/events");
    let answer = http::post(&http::client(), &url, &event).await.expect("an answer");
    let id = answer.body["event_id"].as_str().expect("an id").to_owned();
    world.until_state("count", "a", json!({"n": 1})).await;

    let topic = format!("{}-elsewhere", world.platform.topic());
    world.declare("elsewhere.yaml", &ELSEWHERE.replace("NAME", &topic));
    let served = "SELECT count(*) FROM registration_ack WHERE kind = 'Topic' AND name = 'elsewhere'";
    eventually(SOON, || async {
        if world.number(served).await > 0 { Ok(()) } else { Err("not routed yet".to_owned()) }
    })
    .await;
    let url = query.url(&format!("/api/v1/projections/count/a?after_event={id}"));
    eventually(SOON, || async {
        let answer = http::get(&http::client(), &url).await.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.body.to_string()) }
    })
    .await;
}
