//! Publishing to Kafka where one topic, or one event, is not taken: the others go on, and order is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use cornjacket::event::shard_of;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{Bus, Platform, eventually, fresh_database, http, shared_kafka};
use crate::kafka_message::{headers, messages};
use crate::relay::{count, envelope, outbox};

const SOON: Duration = Duration::from_mins(1);
const LEFT: &str = "SELECT count(*) FROM outbox";

async fn state(pool: &PgPool, aggregate: &str) -> Option<Value> {
    sqlx::query_scalar("SELECT state FROM projections WHERE projection_type = 'sensor_history' AND aggregate_id = $1")
        .bind(aggregate)
        .fetch_optional(pool)
        .await
        .expect("an answer")
}

fn lost(value: i64) -> Value {
    let mut event = envelope("a", value);
    event["event_type"] = json!("lost.seen");
    event
}

/// Events of types `lost.*` go to a topic that nobody makes.
fn route_to_missing(platform: &Platform) -> String {
    let missing = platform.topic().replace("-events", "-missing");
    let manifest = format!(
        "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata: {{name: missing}}\nspec:\n  topicName: {missing}\n  \
         partitions: 4\n  replicationFactor: 1\n  managementPolicy: Observe\n  prefixes: [lost.]\n"
    );
    std::fs::write(platform.resources().join("missing.yaml"), manifest).expect("our own directory");
    missing
}

async fn make_topic(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let new = [NewTopic::new(topic, 4, TopicReplication::Fixed(1))];
    let made = admin.create_topics(&new, &AdminOptions::new()).await.expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// Positions by shard, as they are in the topic.
async fn positions(brokers: String, topic: String, count: usize) -> BTreeMap<String, Vec<i64>> {
    let mut positions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for message in messages(brokers, topic, count).await {
        let headers = headers(&message);
        let position = headers["position"].parse().expect("a number");
        positions.entry(headers["shard"].clone()).or_default().push(position);
    }
    positions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_holds_up_no_other_and_gets_its_events_in_order_when_it_is_there() {
    let brokers = shared_kafka().await;
    let platform = Platform::new("missing-topic", fresh_database().await, Bus::Kafka(brokers.clone()));
    let missing = route_to_missing(&platform);
    let _controllers = platform.controllers().ready().await;
    let ingest = platform.ingest().ready().await;
    let pool = platform.database().pool().await;
    // More than one round reads of a shard.
    let backlog: Vec<Value> = (1..=400).map(lost).collect();
    outbox(&pool, shard_of("a"), &backlog).await;
    outbox(&pool, shard_of("a") ^ 1, &backlog.iter().map(|_| lost(0)).collect::<Vec<_>>()).await;
    let _relays = (platform.relay("1").ready().await, platform.relay("2").ready().await);
    let _handle = platform.handle("").ready().await;
    let url = ingest.url("/api/v1/events/batch");
    let pair = |value: i64| {
        let event = |event_type| json!({"event_type": event_type, "aggregate_id": "a", "payload": {"value": value}});
        json!([event("lost.seen"), event("sensor.reading")])
    };
    // Each in its turn, with more of the missing topic before it: a wait for that topic would take seconds every time.
    let in_turn = async {
        for value in 1..=40 {
            let answer = http::post(&http::client(), &url, &pair(value)).await.expect("an answer");
            assert_eq!(answer.status, 202, "{}", answer.body);
            eventually(SOON, || async { state(&pool, "a").await.is_some_and(|s| s["last"] == value) }).await;
        }
    };
    tokio::time::timeout(SOON, in_turn).await.expect("others are published as ever");
    let wanted = json!({"count": 40, "sum": 820, "last": 40, "ordered": true});
    assert_eq!(state(&pool, "a").await, Some(wanted));
    assert_eq!(count(&pool, LEFT).await, 840, "those of the missing topic wait");
    let tried = "SELECT count(*) FROM outbox WHERE retry_count > 0";
    assert!((1..=8).contains(&count(&pool, tried).await), "what was tried counts its attempts, and nothing else");
    make_topic(&brokers, &missing).await;
    eventually(SOON, || async { count(&pool, LEFT).await == 0 }).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM dlq").await, 0);
    let positions = positions(brokers, missing, 840).await;
    assert_eq!(positions[&shard_of("a").to_string()].len(), 440);
    assert!(positions.values().all(|of_a_shard| of_a_shard.is_sorted()), "{positions:?}");
}

/// What a producer puts together is larger than the topic takes, and one event is so by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_small_messages_only_gets_all_but_the_event_that_is_too_large() {
    let platform = Platform::new("small-messages", fresh_database().await, Bus::Kafka(shared_kafka().await));
    let file = platform.resources().join("sensors.yaml");
    let text = std::fs::read_to_string(&file).expect("our own file");
    let limited = text.replace("  default: true\n", "  default: true\n  config: {max.message.bytes: \"20000\"}\n");
    assert_ne!(text, limited);
    std::fs::write(file, limited).expect("our own directory");
    let _controllers = platform.controllers().ready().await;
    let _ingest = platform.ingest().ready().await;
    let pool = platform.database().pool().await;
    let mut rows: Vec<Value> = (1..=1000).map(|value| envelope("a", value)).collect();
    let mut large = envelope("b", 1);
    large["payload"]["text"] = json!("x".repeat(40_000));
    rows.insert(500, large);
    outbox(&pool, 3, &rows).await;
    let (_relay, _handle) = (platform.relay("").ready().await, platform.handle("").ready().await);
    let wanted = json!({"count": 1000, "sum": 500_500, "last": 1000, "ordered": true});
    eventually(SOON, || async { state(&pool, "a").await.as_ref() == Some(&wanted) }).await;
    eventually(SOON, || async { count(&pool, LEFT).await == 0 }).await;
    let letters: Vec<(String, String)> =
        sqlx::query_as("SELECT event_payload->>'aggregate_id', error_message FROM dlq")
            .fetch_all(&pool)
            .await
            .expect("an answer");
    let [(aggregate, cause)] = letters.as_slice() else { panic!("{letters:?}") };
    assert!(aggregate == "b" && cause.contains("bytes"), "{letters:?}");
}

/// Small as the outbox keeps them, together many times what one round may have in memory.
#[tokio::test(flavor = "multi_thread")]
async fn large_events_are_published_in_parts_and_in_order() {
    let brokers = shared_kafka().await;
    let platform = Platform::new("large-events", fresh_database().await, Bus::Kafka(brokers.clone()));
    let _controllers = platform.controllers().ready().await;
    let _ingest = platform.ingest().ready().await;
    let pool = platform.database().pool().await;
    for shard in [3, 9] {
        let rows: Vec<Value> = (1..=60)
            .map(|value| {
                let mut event = envelope("a", value);
                event["payload"]["text"] = json!("x".repeat(700_000));
                event
            })
            .collect();
        outbox(&pool, shard, &rows).await;
    }
    let relay = platform.relay("").ready().await;
    eventually(SOON, || async { count(&pool, LEFT).await == 0 }).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM dlq").await, 0);
    assert!(!relay.log().contains("cannot publish"), "no round was too much");
    let positions = positions(brokers, platform.topic(), 120).await;
    assert_eq!(positions.values().map(Vec::len).collect::<Vec<_>>(), [60, 60]);
    assert!(positions.values().all(|of_a_shard| of_a_shard.is_sorted()), "{positions:?}");
}
