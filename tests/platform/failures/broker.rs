//! The broker goes away, or loses what nobody has read yet; a handler leaves the group.

use std::time::Duration;

use nix::sys::signal::Signal;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sqlx::PgPool;

use super::load::{Load, Pace};
use super::verify::{are_folded, are_stored};
use super::{Kind, Running, turn, verify};
use crate::harness::{OwnKafka, Platform, eventually, fresh_database};

/// How long a broker that was stopped stays away.
const STOPPED: Duration = Duration::from_mins(1);
/// How long a broker does not answer: longer than any deadline that then matters, of a publication (5 s), of a session
/// in the group (6 s) and of an idle transaction (10 s).
const SILENT: Duration = Duration::from_secs(15);

async fn the_broker_is_away(name: &str, away: Duration, goes: fn(&mut OwnKafka), comes: fn(&mut OwnKafka)) {
    let mut turn = turn(Kind::Kafka).await;
    let bus = turn.bus();
    let running = Running::start(name, fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    tokio::task::block_in_place(|| goes(turn.kafka.as_mut().unwrap()));
    let gone = tokio::time::Instant::now();
    while gone.elapsed() < away {
        running.load.more(400).await;
        let accepted = running.load.counts();
        eventually(Duration::from_secs(10), || are_stored(&pool, &accepted)).await;
    }
    tokio::task::block_in_place(|| comes(turn.kafka.as_mut().unwrap()));
    running.load.more(100).await;
    let retried: i64 =
        sqlx::query_scalar("SELECT count(*) FROM outbox WHERE retry_count > 0").fetch_one(&pool).await.unwrap();
    assert_eq!(retried, 0, "an outage burns no retries");
    let accepted = running.load.counts();
    eventually(Duration::from_secs(20), || are_folded(&pool, &accepted)).await;
    let outcome = running.load.finish().await;
    assert!(outcome.refused.is_empty(), "accepting went on: {:?}", outcome.refused);
    super::verify(&pool, &outcome).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_is_away_for_a_minute() {
    the_broker_is_away("broker-stopped", STOPPED, OwnKafka::stop, OwnKafka::start).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_does_not_answer_for_a_while() {
    let freeze = |kafka: &mut OwnKafka| kafka.signal(Signal::SIGSTOP);
    let resume = |kafka: &mut OwnKafka| kafka.signal(Signal::SIGCONT);
    the_broker_is_away("broker-frozen", SILENT, freeze, resume).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handler_is_down_for_longer_than_the_topic_keeps_its_messages() {
    let mut turn = turn(Kind::Kafka).await;
    let bus = turn.bus();
    let mut running = Running::start("retention", fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    running.handle.kill9();
    running.load.more(200).await;
    eventually(Duration::from_secs(20), || async {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&pool).await.unwrap();
        waiting < 50
    })
    .await;
    forget_everything(&turn.kafka().brokers(), &running.platform.topic()).await;
    running.load.more(100).await;
    running.handle.start_again();
    running.load.more(100).await;
    running.settle().await;
}

/// Does to a topic what its retention does with time: every message so far is gone.
async fn forget_everything(brokers: &str, topic: &str) {
    let admin = admin(brokers);
    let mut all = TopicPartitionList::new();
    for partition in 0..4 {
        all.add_partition_offset(topic, partition, Offset::End).unwrap();
    }
    let gone = admin.delete_records(&all, &AdminOptions::new()).await.unwrap();
    assert!(gone.elements().iter().all(|element| element.error().is_ok()), "{gone:?}");
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

fn asker(brokers: &str) -> BaseConsumer {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

/// The group's next offsets exist in the new topic, with other messages before them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_deleted_and_made_again_while_the_handler_is_down() {
    let mut turn = turn(Kind::Kafka).await;
    let bus = turn.bus();
    let mut running = Running::start("made-again", fresh_database().await, bus).await;
    let (pool, brokers, topic) =
        (running.platform.database().pool().await, turn.kafka().brokers(), running.platform.topic());
    // The first events may be folded from the event store: wait until some were read from the topic.
    eventually(Duration::from_secs(20), || async {
        let read = "SELECT count(*) FROM bus_offset WHERE topic = $1 AND next_offset > 0";
        sqlx::query_scalar::<_, i64>(read).bind(&topic).fetch_one(&pool).await.unwrap() > 0
    })
    .await;
    running.handle.kill9();
    running.load.more(100).await;
    make_again(&brokers, &topic).await;
    let asker = asker(&brokers);
    while !is_past_the_group(&asker, &pool, &topic).await {
        running.load.more(100).await;
    }
    running.handle.start_again();
    running.load.more(100).await;
    running.settle().await;
}

async fn make_again(brokers: &str, topic: &str) {
    let (admin, options) = (admin(brokers), AdminOptions::new());
    admin.delete_topics(&[topic], &options).await.unwrap();
    eventually(Duration::from_secs(20), || async {
        let again = NewTopic::new(topic, 4, TopicReplication::Fixed(1));
        admin
            .create_topics(&[again], &options)
            .await
            .map_err(|e| e.to_string())?
            .remove(0)
            .map_err(|(_, e)| e.to_string())
    })
    .await;
}

/// Nothing in the new topic says that there was anything in the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_deleted_and_made_again_before_its_first_message_was_read() {
    let mut turn = turn(Kind::Kafka).await;
    let bus = turn.bus();
    let platform = Platform::new("made-again-unread", fresh_database().await, bus);
    let (pool, brokers, topic) = (platform.database().pool().await, turn.kafka().brokers(), platform.topic());
    let _controllers = platform.controllers().ready().await;
    let (ingest, _relay, mut handle) =
        tokio::join!(platform.ingest().ready(), platform.relay("").ready(), platform.handle("").ready());
    let count = async |sql| sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.unwrap();
    eventually(Duration::from_secs(20), || async { count("SELECT count(*) FROM bus_offset").await >= 4 }).await;
    handle.kill9();
    let load = Load::start(&ingest.url("/api/v1/events"), Pace::Steady);
    load.more(200).await;
    eventually(Duration::from_secs(20), || async {
        count("SELECT count(*) FROM outbox").await < 50 && count("SELECT count(*) FROM event_store").await > 100
    })
    .await;
    make_again(&brokers, &topic).await;
    load.more(200).await;
    handle.start_again();
    load.more(100).await;
    verify(&pool, &load.finish().await).await;
}

async fn is_past_the_group(asker: &BaseConsumer, pool: &PgPool, topic: &str) -> bool {
    let places: Vec<(i32, i64)> =
        sqlx::query_as("SELECT partition, next_offset FROM bus_offset WHERE topic = $1 AND next_offset > 0")
            .bind(topic)
            .fetch_all(pool)
            .await
            .unwrap();
    let high = |partition| {
        tokio::task::block_in_place(|| asker.fetch_watermarks(topic, partition, Duration::from_secs(5)))
            .map_or(0, |marks| marks.1)
    };
    assert!(!places.is_empty());
    places.into_iter().all(|(partition, next)| high(partition) > next + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_is_told_to_stop_leaves_its_group_at_once() {
    let mut turn = turn(Kind::Kafka).await;
    let bus = turn.bus();
    let mut running = Running::start("leaves", fresh_database().await, bus).await;
    let asker = asker(&turn.kafka().brokers());
    let members = || {
        let groups =
            tokio::task::block_in_place(|| asker.fetch_group_list(Some("event-handler"), Duration::from_secs(5)))
                .unwrap();
        groups.groups().iter().map(|group| group.members().len()).sum::<usize>()
    };
    // The first events may be folded from the event store before it has joined.
    eventually(Duration::from_secs(20), || async { members() == 1 }).await;
    assert!(running.handle.terminate().success(), "{}", running.handle.log());
    assert_eq!(members(), 0, "others need not wait for its session to end");
    running.handle.start_again();
    running.settle().await;
}
