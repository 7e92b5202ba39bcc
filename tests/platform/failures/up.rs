//! `cornjacket up`, killed under load and started again: its private PostgreSQL included, nothing is lost. On Kafka it
//! makes the topics that the resources declare.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::PgPool;
use tempfile::TempDir;

use super::load::{Load, Pace};
use super::{Kind, turn, verify};
use crate::harness::{Bus, Launch, eventually, free_port, sensor_resources, topic_prefix};

/// `up` with a data directory of its own, and the sensor resources.
fn launch(data: &TempDir, resources: &TempDir, bus: &Bus) -> Launch {
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let text: Vec<String> = ports.iter().map(u16::to_string).collect();
    let (dir, resources) = (data.path().display().to_string(), resources.path().display().to_string());
    let arguments = ["up", "--data-dir", &dir, "--resources", &resources, "--bind", "127.0.0.1"];
    let ports_by_flag = ["--ingestion-port", &text[0], "--query-port", &text[1], "--actions-port", &text[2]];
    let launch =
        |bus: &[&str]| Launch::new("up-killed", ports[0], &[arguments.as_slice(), &ports_by_flag, bus].concat());
    match bus {
        Bus::Embedded => launch(&["--bus", "embedded"]),
        Bus::Kafka(brokers) => launch(&["--bus", "kafka"]).env("KAFKA_BROKERS", brokers),
    }
}

async fn pool(data: &TempDir) -> PgPool {
    let url = std::fs::read_to_string(data.path().join("database.url")).unwrap();
    PgPool::connect(url.trim()).await.unwrap()
}

/// How many partitions a topic has; 0 without the topic.
fn partitions(brokers: &str, topic: &str) -> usize {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let metadata = client.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    metadata.topics().iter().find(|found| found.name() == topic).map_or(0, |found| found.partitions().len())
}

async fn up_is_killed_under_load_and_started_again(kind: Kind) {
    let mut turn = turn().await;
    let bus = turn.bus(kind);
    let data = tempfile::Builder::new().prefix("cornjacket-up-").tempdir().unwrap();
    let prefix = topic_prefix();
    let resources = sensor_resources(&prefix);
    let launch = launch(&data, &resources, &bus);
    let mut up = launch.clone().ready().await;
    if let Bus::Kafka(brokers) = &bus {
        let topic = format!("{prefix}-events");
        let made = tokio::task::block_in_place(|| partitions(brokers, &topic));
        assert_eq!(made, 4, "{topic} is made as declared");
    }
    let load = Load::start(&up.url("/api/v1/events"), Pace::Steady);
    for _ in 0..3 {
        load.more(200).await;
        up.kill9();
        up.start_again();
    }
    load.more(200).await;
    assert!(up.terminate().success(), "an orderly end under load");
    up.start_again();
    load.more(200).await;
    let outcome = load.finish().await;
    verify(&pool(&data).await, &outcome).await;
    assert!(up.terminate().success(), "an orderly end");
    eventually(Duration::from_secs(1), || async { !data.path().join("postgres/data/postmaster.pid").exists() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_is_killed_under_load_and_started_again_on_the_embedded_bus() {
    up_is_killed_under_load_and_started_again(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_is_killed_under_load_and_started_again_on_kafka() {
    up_is_killed_under_load_and_started_again(Kind::Kafka).await;
}
