//! Statuses: written when something changed and never otherwise, by nobody else, and told once.

use std::time::Duration;

use controllers::topic::plan::Alteration;
use serde_json::{Value, json};

use super::{PROJECTION, SOON, TOPIC, World, event_type, looks, until_looked};
use crate::harness::{Bus, Process, administered, eventually, shared_kafka};

/// The controllers look at everything every 3 s: so many looks are ten minutes of them.
const LOOKS: f64 = 200.0;
/// Where each look at the broker takes its time.
const FEWER_LOOKS: f64 = 40.0;
/// Between two notifications, each of which asks for a look: ten minutes in less than one.
const SHORTENED: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread")]
async fn looks_that_find_nothing_new_write_nothing() {
    let world = World::new("quiet", Bus::Embedded).await;
    let controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    let _handler = world.platform.handle("").ready().await;
    let broken = event_type("room.entered", "{topicRef: {name: nowhere}}");
    world.apply(&format!("{TOPIC}{}{broken}{PROJECTION}", event_type("room.left", "{}")));
    world.until_ready_is("projection", "room-state", "True", "Available").await;
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    world.until_ready_is("eventtype", "room.entered", "False", "TopicNotFound").await;
    world.stays_the_same(&controllers, LOOKS, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_that_find_nothing_new_at_the_broker_write_nothing() {
    let world = World::new("quiet-kafka", Bus::Kafka(shared_kafka().await)).await;
    let launch = world.platform.controllers_of(&world.kubeconfig(), "").env("CORNJACKET_DRIFT_SECONDS", "1");
    let controllers = launch.ready().await;
    let (_registry, _lifecycle) = world.data_plane();
    let _handler = world.platform.handle("").ready().await;
    let topic = TOPIC.replace("{prefixes", &format!("{{topicName: {}-quiet, retention: 1h, prefixes", world.namespace));
    world.apply(&format!("{topic}{}{PROJECTION}{ACTION}", event_type("room.left", "{}")));
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    world.until_ready_is("projection", "room-state", "True", "Available").await;
    world.until_ready_is("webhookaction", "tell", "False", "NoInstances").await;
    // The broker tells it a moment after.
    eventually(SOON, async || world.get("topic", "rooms").is_some_and(|topic| topic["status"]["topicId"].is_string()))
        .await;
    world.stays_the_same(&controllers, FEWER_LOOKS, 3.0).await;
}

const ACTION: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: WebhookAction
metadata: {name: tell}
spec: {source: {prefixes: [room.]}, url: 'https://example.com/hook'}
---
";

impl World {
    /// So many looks at the whole set, and so many at the broker, change no object and write no status.
    async fn stays_the_same(&self, controllers: &Process, so_many: f64, at_broker: f64) {
        let versions =
            || -> Value { serde_json::from_str(&self.kubectl(&["get", "cornjacket", "-o", "json"])).unwrap() };
        let writes = async || controllers.metric("cornjacket_controllers_status_writes_total").await.unwrap_or(0.0);
        let asked = "cornjacket_controllers_broker_calls_total{call=\"describe_configs\"}";
        let asked = async || controllers.metric(asked).await.unwrap_or(0.0);
        let (before, first, written) = (versions(), looks(controllers).await, writes().await);
        let first_asked = asked().await;
        let pool = self.pool.clone();
        let asking = tokio::spawn(async move {
            let mut interval = tokio::time::interval(SHORTENED);
            loop {
                interval.tick().await;
                sqlx::query("SELECT pg_notify('cornjacket_ack', '')").execute(&pool).await.unwrap();
            }
        });
        eventually(2 * SOON, || async {
            looks(controllers).await >= first + so_many && asked().await >= first_asked + at_broker
        })
        .await;
        asking.abort();
        assert_eq!(versions()["items"], before["items"], "no object has changed");
        assert!((writes().await - written).abs() < f64::EPSILON);
    }

    /// Who set fields of an object's status, and how.
    fn status_managers(&self, kind: &str, name: &str) -> Vec<(String, String)> {
        let object = self.get(kind, name).unwrap();
        let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let sets_status = |entry: &&Value| entry["subresource"] == "status" || !entry["fieldsV1"]["f:status"].is_null();
        entries.filter(sets_status).map(|entry| (text(entry, "manager"), text(entry, "operation"))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_applied_by_one_manager_and_put_right_where_somebody_else_wrote_it() {
    let world = World::new("foreign", Bus::Embedded).await;
    let _controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    world.apply(TOPIC);
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    let ours = [("cornjacket-controllers".to_owned(), "Apply".to_owned())];
    assert_eq!(world.status_managers("topic", "rooms"), ours);
    let lie = json!({"status": {"topicName": "elsewhere"}}).to_string();
    world.kubectl(&["patch", "topic", "rooms", "--subresource=status", "--type=merge", "-p", &lie]);
    eventually(SOON, || async {
        let status = world.get("topic", "rooms").unwrap_or_default()["status"].clone();
        if status["topicName"] == "rooms" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    assert_eq!(world.status_managers("topic", "rooms"), ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_asks_for_a_look_now_and_is_answered() {
    let brokers = shared_kafka().await;
    let world = World::new("asked", Bus::Kafka(brokers.clone())).await;
    let launch = world.platform.controllers_of(&world.kubeconfig(), "");
    let _controllers = launch.env("CORNJACKET_DRIFT_SECONDS", "3600").ready().await;
    let (_registry, _lifecycle) = world.data_plane();
    world.apply(&TOPIC.replace("{prefixes", "{topicName: asked-rooms, retention: 1h, prefixes"));
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    let kafka = administered(&brokers);
    let retention = async || {
        let topics = kafka.describe(["asked-rooms"].into_iter()).await.map_err(|error| error.to_string())?;
        let config = topics["asked-rooms"].config.as_ref().map_err(Clone::clone)?;
        Ok::<_, String>(config["retention.ms"].value.clone().unwrap_or_default())
    };
    let foreign = Alteration::Set { key: "retention.ms".to_owned(), value: "7000".to_owned() };
    kafka.alter(&[("asked-rooms".to_owned(), vec![foreign])]).await.unwrap();
    let is = async |wanted: &str| retention().await.is_ok_and(|now| now == wanted);
    eventually(SOON, async || is("7000").await).await;
    world.kubectl(&["annotate", "topic", "rooms", "cornjacket.io/reconcile-requested-at=noon"]);
    eventually(SOON, async || is("3600000").await).await;
    eventually(SOON, || async {
        world.get("topic", "rooms").unwrap_or_default()["status"]["lastHandledReconcileAt"] == "noon"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transition_is_told_once_as_an_event() {
    let world = World::new("events", Bus::Embedded).await;
    let controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    world.apply(&event_type("room.left", "{topicRef: {name: rooms}}"));
    world.until_ready_is("eventtype", "room.left", "False", "TopicNotFound").await;
    world.apply(TOPIC);
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    let told = || -> Vec<(String, String, i64)> {
        let list: Value = serde_json::from_str(&world.kubectl(&["get", "events.events.k8s.io", "-o", "json"])).unwrap();
        let of_it = list["items"].as_array().unwrap().iter().filter(|e| e["regarding"]["name"] == "room.left");
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        of_it.map(|e| (text(e, "type"), text(e, "reason"), e["series"]["count"].as_i64().unwrap_or(1))).collect()
    };
    eventually(SOON, || async {
        let mut told = told();
        told.sort();
        let wanted = [("Normal", "Available", 1), ("Warning", "TopicNotFound", 1)];
        let wanted = wanted.map(|(kind, reason, count)| (kind.to_owned(), reason.to_owned(), count));
        if told == wanted { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    until_looked(&controllers, 2.0).await;
    assert_eq!(told().len(), 2);
}
