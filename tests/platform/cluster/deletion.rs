//! Deleting: what is retained never waits, what is deleted goes first, and what cannot go is let go.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use super::{PROJECTION, SOON, TOPIC, World, event_type};
use crate::harness::{Bus, OwnKafka, OwnPostgres, Process, administered, eventually, http, shared_kafka};

/// A namespace is gone this long after it was deleted.
const GONE: Duration = Duration::from_mins(1);

pub const ROWS: &str = "SELECT count(*) FROM projections WHERE projection_type = 'room_state'";

pub const ACTION: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: WebhookAction
metadata: {name: tell}
spec: {source: {prefixes: [room.]}, url: 'https://example.com/hook'}
---
";

pub fn all_four_kinds(prefix: &str, policy: &str) -> String {
    let topic = TOPIC.replace("{prefixes", &format!("{{topicName: {prefix}-rooms, deletionPolicy: {policy}, prefixes"));
    let projection = PROJECTION.replace("latest: {}", &format!("latest: {{}}, deletionPolicy: {policy}"));
    format!("{topic}{}{projection}{ACTION}", event_type("room.left", "{}"))
}

impl World {
    pub fn delete_namespace(&self) {
        let seconds = format!("--timeout={}s", GONE.as_secs());
        self.cluster.must(&["delete", "namespace", &self.namespace, &seconds]);
    }

    /// Has an event folded into the projection.
    pub async fn one_row(&self, ingest: &Process) {
        let event = serde_json::json!({"event_type": "room.left", "aggregate_id": "a", "payload": {}});
        let answer = http::post(&http::client(), &ingest.url("/api/v1/events"), &event).await.unwrap();
        assert_eq!(answer.status, 202);
        eventually(SOON, || async { self.count(ROWS).await == 1 }).await;
    }

    pub async fn count(&self, question: &'static str) -> i64 {
        sqlx::query_scalar(question).fetch_one(&self.pool).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_everything_in_it_is_deleted_with_what_it_described() {
    let kafka = tokio::task::spawn_blocking(|| OwnKafka::start_new("deletion-kafka")).await.unwrap();
    let world = World::new("deleted", Bus::Kafka(kafka.brokers())).await;
    let _controllers = world.controllers("").await;
    let _relay = world.platform.relay("").ready().await;
    let _handler = world.platform.handle("").ready().await;
    let ingest = world.platform.ingest().ready().await;
    let _query = world.platform.query().ready().await;
    world.apply(&all_four_kinds("deleted", "Delete"));
    world.wait_for_all();
    world.one_row(&ingest).await;
    world.delete_namespace();
    assert_eq!(world.count(ROWS).await, 0, "the projection's rows went with it");
    let registered = "SELECT count(*) FROM registration WHERE state = 'active'";
    assert_eq!(world.count(registered).await, 0);
    let broker = administered(&kafka.brokers());
    assert!(!broker.topics().await.unwrap().contains_key("deleted-rooms"));
    assert_eq!(world.count("SELECT count(*) FROM event_store").await, 1, "events are nobody's but the platform's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_and_a_namespace_are_deleted_while_broker_and_database_are_gone() {
    let mut kafka = tokio::task::spawn_blocking(|| OwnKafka::start_new("deletion-away-kafka")).await.unwrap();
    let mut postgres = tokio::task::spawn_blocking(|| OwnPostgres::start_new("deletion-away")).await.unwrap();
    let (topic, all) = (postgres.fresh_database().await, postgres.fresh_database().await);
    let topic = World::on(topic, "deleted-away-topic", Bus::Kafka(kafka.brokers())).await;
    let all = World::on(all, "deleted-away", Bus::Kafka(kafka.brokers())).await;
    let controllers = [topic.controllers("").await, all.controllers("").await];
    let _data_planes = [topic.data_plane(), all.data_plane()];
    let _handler = all.platform.handle("").ready().await;
    topic.apply(&TOPIC.replace("{prefixes", "{topicName: deleted-away-topic, deletionPolicy: Delete, prefixes"));
    all.apply(&all_four_kinds("deleted-away", "Delete"));
    topic.wait_for_all();
    all.wait_for_all();
    kafka.stop();
    postgres.crash();
    std::thread::scope(|scope| {
        scope.spawn(|| topic.kubectl(&["delete", "topic", "rooms", "--timeout=60s"]));
        scope.spawn(|| all.delete_namespace());
    });
    let told = topic.kubectl(&["get", "events.events.k8s.io"]);
    assert!(told.contains("DeletionAbandoned"), "{told}");
    for (controllers, left) in controllers.iter().zip([1.0, 2.0]) {
        assert!(controllers.log().contains("left behind"), "what could not be deleted is said");
        let abandoned = controllers.metric("cornjacket_controllers_deletions_abandoned_total").await;
        assert_eq!(abandoned, Some(left), "topics, and the rows of the projection");
    }
}

/// Keeps a namespace where its pods go before all else, as long as somebody holds it.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: held, finalizers: [tests.cornjacket.io/held]}
spec: {containers: [{name: none, image: none}]}
---
";

#[tokio::test(flavor = "multi_thread")]
async fn controllers_that_go_with_their_namespace_delete_what_is_in_it_and_let_it_go() {
    let brokers = shared_kafka().await;
    let world = World::new("farewell", Bus::Kafka(brokers.clone())).await;
    let mut process = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    let mut handler = world.platform.handle("").ready().await;
    world.apply(&all_four_kinds("farewell", "Delete"));
    world.wait_for_all();
    eventually(SOON, async || world.cluster.apply(&world.namespace, POD)).await;
    world.kubectl(&["delete", "namespace", &world.namespace, "--wait=false"]);
    eventually(SOON, async || {
        world.get("pod", "held").is_some_and(|pod| pod["metadata"]["deletionTimestamp"].is_string())
    })
    .await;
    let topic = world.get("topic", "rooms").expect("pods go first");
    assert!(topic["metadata"]["deletionTimestamp"].is_null(), "{topic}");
    assert!(handler.terminate().success());
    assert!(process.terminate().success());
    assert_eq!(world.get("topic", "rooms").unwrap()["metadata"]["finalizers"], serde_json::Value::Null);
    let broker = administered(&brokers);
    assert!(!broker.topics().await.unwrap().contains_key("farewell-rooms"));
    assert_eq!(world.count("SELECT count(*) FROM registration WHERE kind = 'Topic' AND state = 'active'").await, 0);
    let let_go = serde_json::json!({"metadata": {"finalizers": null}}).to_string();
    world.kubectl(&["patch", "pod", "held", "--type=merge", "-p", &let_go]);
    world.cluster.must(&["wait", "--for=delete", &format!("namespace/{}", world.namespace), "--timeout=60s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_there_before_and_was_never_taken_over_is_not_deleted() {
    let brokers = shared_kafka().await;
    let world = World::new("not-ours", Bus::Kafka(brokers.clone())).await;
    let broker = administered(&brokers);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let theirs = NewTopic::new("not-ours-rooms", 2, TopicReplication::Fixed(1));
    admin.create_topics(&[theirs], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let _controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    let spec = "{topicName: not-ours-rooms, adoptionPolicy: Never, deletionPolicy: Delete, prefixes";
    world.apply(&TOPIC.replace("{prefixes", spec));
    world.until_ready_is("topic", "rooms", "False", "AdoptionRefused").await;
    world.kubectl(&["delete", "topic", "rooms", "--timeout=60s"]);
    assert!(broker.topics().await.unwrap().contains_key("not-ours-rooms"));
}

/// Resources that another has the name of, and that would take it along.
const LOSERS: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: Topic
metadata: {name: second}
spec: {topicName: conflict-rooms, deletionPolicy: Delete}
---
apiVersion: cornjacket.io/v1alpha1
kind: Projection
metadata: {name: second}
spec: {type: room_state, source: {eventTypes: [room.left]}, latest: {}, deletionPolicy: Delete}
---
";

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_a_conflict_takes_nothing_of_the_winner_along() {
    let brokers = shared_kafka().await;
    let world = World::new("conflict", Bus::Kafka(brokers.clone())).await;
    let _controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    let mut handler = world.platform.handle("").ready().await;
    let ingest = world.platform.ingest().ready().await;
    let _relay = world.platform.relay("").ready().await;
    world.apply(&all_four_kinds("conflict", "Retain"));
    world.wait_for_all();
    world.one_row(&ingest).await;
    world.apply(LOSERS);
    world.until_ready_is("topic", "second", "False", "Conflict").await;
    world.until_ready_is("projection", "second", "False", "Conflict").await;
    // Nobody feeds the rows meanwhile, and so nobody stands in the way.
    assert!(handler.terminate().success());
    world.kubectl(&["delete", "topic/second", "projection/second", "--timeout=60s"]);
    assert_eq!(world.count(ROWS).await, 1);
    assert_eq!(world.count("SELECT count(*) FROM projection_progress WHERE projection_type = 'room_state'").await, 1);
    let broker = administered(&brokers);
    assert!(broker.topics().await.unwrap().contains_key("conflict-rooms"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retained_stays_and_its_deletion_waits_for_nobody() {
    let world = World::new("retained", Bus::Embedded).await;
    // No controllers at all: nothing of ours holds up the deletion.
    world.apply(&all_four_kinds("retained", "Retain"));
    world.delete_namespace();
}
