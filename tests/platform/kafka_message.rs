//! A message in Kafka as consumers in other programs see it: key, headers, value, partition.

use std::collections::BTreeMap;
use std::time::Duration;

use cornjacket::bus::partition::partition_of;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{Bus, Platform, eventually, fresh_database, http, shared_kafka};

const SOON: Duration = Duration::from_mins(1);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// As the topic of the tests' resources has.
const PARTITIONS: i32 = 4;

/// Reads a topic from its beginning, all partitions.
fn consumer(brokers: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("{topic}-reader"))
        .set("enable.auto.commit", "false")
        .create()
        .expect("a client without options to fail on");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&all).expect("assigned");
    consumer
}

/// The next `count` messages.
pub async fn messages(brokers: String, topic: String, count: usize) -> Vec<OwnedMessage> {
    let consumer = consumer(&brokers, &topic);
    let mut taken = Vec::new();
    eventually(SOON, || {
        while let Some(polled) = consumer.poll(Duration::from_millis(100)) {
            // Errors of a broker that is still busy pass.
            taken.extend(polled.ok().map(|message| message.detach()));
        }
        let so_far = taken.len();
        async move { if so_far >= count { Ok(()) } else { Err(format!("{so_far} messages")) } }
    })
    .await;
    taken
}

pub fn headers(message: &OwnedMessage) -> BTreeMap<String, String> {
    let headers = message.headers().expect("headers").iter();
    headers
        .map(|header| {
            let value = header.value.map(|value| String::from_utf8_lossy(value).into_owned());
            (header.key.to_owned(), value.expect("a value"))
        })
        .collect()
}

/// Shard and position of an event in the event store, and what the platform says the whole event is.
async fn stored(pool: &PgPool, event_id: &str) -> (i16, i64, Value) {
    sqlx::query_as(
        "SELECT shard, position, jsonb_build_object('event_id', event_id, 'event_type', event_type,
                'aggregate_id', aggregate_id, 'payload', payload, 'metadata', metadata)
           FROM event_store WHERE event_id = $1::uuid",
    )
    .bind(event_id)
    .fetch_one(pool)
    .await
    .expect("it is stored")
}

async fn post(url: &str, aggregate: &str, traceparent: Option<&str>) -> String {
    let event = json!({"event_type": "sensor.reading", "aggregate_id": aggregate, "payload": {"value": 7}});
    let mut request = http::client().post(url).json(&event);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 202);
    let answer: Value = serde_json::from_str(&response.text().await.expect("a body")).expect("JSON");
    answer["event_id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_has_key_headers_value_and_the_partition_that_other_clients_compute() {
    let brokers = shared_kafka().await;
    let platform = Platform::new("message", fresh_database().await, Bus::Kafka(brokers.clone()));
    let _controllers = platform.controllers().ready().await;
    let (ingest, _relay) = (platform.ingest().ready().await, platform.relay("").ready().await);
    let url = ingest.url("/api/v1/events");
    let mut sent = BTreeMap::new();
    for number in 0..8 {
        let (aggregate, trace) = (format!("device-{number}"), (number % 2 == 0).then_some(TRACE));
        sent.insert(post(&url, &aggregate, trace).await, (aggregate, trace));
    }
    let pool = platform.database().pool().await;
    let got = messages(brokers, platform.topic(), sent.len()).await;
    assert_eq!(got.len(), sent.len());
    for message in got {
        let mut headers = headers(&message);
        let event_id = headers.remove("event_id").expect("the event's id");
        let (aggregate, trace) = sent.remove(&event_id).expect("each event once");
        let (shard, position, event) = stored(&pool, &event_id).await;
        let mut wanted = BTreeMap::from([
            ("event_type".to_owned(), "sensor.reading".to_owned()),
            ("shard".to_owned(), shard.to_string()),
            ("position".to_owned(), position.to_string()),
        ]);
        wanted.extend(trace.map(|trace| ("traceparent".to_owned(), trace.to_owned())));
        assert_eq!(headers, wanted);
        assert_eq!(message.key(), Some(aggregate.as_bytes()));
        assert_eq!(message.partition(), partition_of(&aggregate, PARTITIONS));
        let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
        for (field, known) in event.as_object().expect("an object") {
            assert_eq!(&value[field], known, "{field}: {value}");
        }
        assert!(value["timestamp"].is_string() && value["ingested_at"].is_string(), "{value}");
    }
}
