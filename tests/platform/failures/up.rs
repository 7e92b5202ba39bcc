//! `cornjacket up`, killed under load and started again: its private PostgreSQL included, nothing is lost. On Kafka it
//! makes the topics that the resources declare.

use std::time::Duration;

use nix::sys::signal::Signal;
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
    let ports_by_flag =
        ["--ingestion-port", &text[0], "--query-port", &text[1], "--actions-port", &text[2], "--no-mqtt"];
    let launch =
        |bus: &[&str]| Launch::new("up-killed", ports[0], &[arguments.as_slice(), &ports_by_flag, bus].concat());
    match bus {
        Bus::Embedded => launch(&["--bus", "embedded"]),
        Bus::Kafka(brokers) => launch(&["--bus", "kafka"]).env("KAFKA_BROKERS", brokers),
    }
}

/// What an orderly end writes, in this order: who takes in stops first, the database last.
const END: [&str; 9] = [
    "draining, at most 25 s",
    "\"stage\":\"Control\"",
    "\"stage\":\"Accept\"",
    "\"stage\":\"Store\"",
    "\"stage\":\"Relay\"",
    "\"stage\":\"Handle\"",
    "\"stage\":\"Serve\"",
    "Stopping PostgreSQL",
    "Stopped; the data is kept in ",
];

async fn an_orderly_end_under_load(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let data = tempfile::Builder::new().prefix("cornjacket-up-").tempdir().unwrap();
    let resources = sensor_resources(&topic_prefix());
    let mut launch = launch(&data, &resources, &bus).env("CORNJACKET_LOG", "info,cornjacket::lifecycle=debug");
    launch.name = format!("up-drained-{kind:?}");
    let mut up = launch.ready().await;
    let load = Load::start(&up.url("/api/v1/events"), Pace::FlatOut);
    for _ in 0..2 {
        load.more(500).await;
        let before = up.log().len();
        up.signal(Signal::SIGTERM);
        let status = tokio::task::block_in_place(|| up.wait_for_end(Duration::from_secs(30)));
        let log = up.log().split_off(before);
        assert!(status.success(), "{status}\n{log}");
        let places: Vec<_> = END.iter().map(|sign| (log.find(sign), *sign)).collect();
        assert!(places.iter().all(|(place, _)| place.is_some()) && places.is_sorted(), "{places:?}\n{log}");
        tokio::task::block_in_place(|| up.terminate());
        up.start_again();
    }
    load.more(200).await;
    let outcome = load.finish().await;
    verify(&pool(&data).await, &outcome).await;
    assert!(tokio::task::block_in_place(|| up.terminate()).success(), "an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_under_load_stops_who_takes_in_first_and_the_database_last_on_the_embedded_bus() {
    an_orderly_end_under_load(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_under_load_stops_who_takes_in_first_and_the_database_last_on_kafka() {
    an_orderly_end_under_load(Kind::Kafka).await;
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
    let mut turn = turn(kind).await;
    let bus = turn.bus();
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
