//! An event type is routed to another topic while events of it wait in the old one.

use std::time::Duration;

use sqlx::PgPool;

use super::{Kind, Running, turn};
use crate::harness::{eventually, fresh_database};

const OTHER: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: Topic
metadata: {name: other}
spec: {topicName: NAME, partitions: 4, replicationFactor: 1, retention: 1h, prefixes: [sensor.]}
";

/// Waits until the relay routes by what is registered, and that is this topic.
async fn routed_to(pool: &PgPool, topic: &str) {
    eventually(Duration::from_secs(30), || async {
        let routed: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM registration r JOIN registration_ack a USING (kind, namespace, name, hash)
                             WHERE r.kind = 'EventType' AND a.role = 'relay' AND r.spec->>'topic' = $1)",
        )
        .bind(topic)
        .fetch_one(pool)
        .await
        .map_err(|e| e.to_string())?;
        routed.then_some(()).ok_or_else(|| "not routed yet".to_owned())
    })
    .await;
}

/// Waits until both projections are fed from the bus.
async fn until_on_the_bus(pool: &PgPool) {
    eventually(Duration::from_mins(1), || async {
        let live: i64 = sqlx::query_scalar("SELECT count(*) FROM projection_progress WHERE status = 'live'")
            .fetch_one(pool)
            .await
            .map_err(|e| e.to_string())?;
        (live == 2).then_some(()).ok_or_else(|| "not back on the bus".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_type_moves_to_another_topic_and_back_with_events_waiting_in_both() {
    let mut turn = turn(Kind::Kafka).await;
    let bus = turn.bus();
    let mut running = Running::start("reroute", fresh_database().await, bus).await;
    let (pool, old) = (running.platform.database().pool().await, running.platform.topic());
    let (file, new) = (running.platform.resources().join("other.yaml"), format!("{old}-other"));
    for _ in 0..2 {
        // Else there would be nothing to take off it.
        until_on_the_bus(&pool).await;
        running.handle.kill9();
        running.load.more(200).await;
        std::fs::write(&file, OTHER.replace("NAME", &new)).unwrap();
        routed_to(&pool, &new).await;
        running.load.more(200).await;
        std::fs::remove_file(&file).unwrap();
        routed_to(&pool, &old).await;
        running.load.more(200).await;
        running.handle.start_again();
    }
    eventually(Duration::from_secs(30), || async {
        running
            .handle
            .log()
            .contains("event types come by another topic")
            .then_some(())
            .ok_or_else(|| running.handle.log())
    })
    .await;
    until_on_the_bus(&pool).await;
    running.load.more(200).await;
    running.settle().await;
}
