//! Statuses: written when something changed and never otherwise, by nobody else, and told once.

use std::collections::BTreeMap;
use std::time::Duration;

use controllers::effects::kafka::Kafka;
use controllers::topic::plan::Alteration;
use serde_json::{Value, json};

use super::{PROJECTION, SOON, TOPIC, World, event_type};
use crate::harness::{Bus, eventually, shared_kafka};

/// The controllers look at everything every 3 s: so many looks are ten minutes of them.
const LOOKS: f64 = 200.0;
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
    let versions = || -> Value { serde_json::from_str(&world.kubectl(&["get", "cornjacket", "-o", "json"])).unwrap() };
    let looks = async || controllers.metric("cornjacket_controllers_looks_total").await.unwrap_or(0.0);
    let writes = async || controllers.metric("cornjacket_controllers_status_writes_total").await.unwrap_or(0.0);
    let (before, first, written) = (versions(), looks().await, writes().await);
    let pool = world.pool.clone();
    let asking = tokio::spawn(async move {
        let mut interval = tokio::time::interval(SHORTENED);
        loop {
            interval.tick().await;
            sqlx::query("SELECT pg_notify('cornjacket_ack', '')").execute(&pool).await.unwrap();
        }
    });
    eventually(2 * SOON, || async { looks().await >= first + LOOKS }).await;
    asking.abort();
    assert_eq!(versions()["items"], before["items"], "no object has changed");
    assert!((writes().await - written).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_somebody_else_wrote_is_put_right() {
    let world = World::new("foreign", Bus::Embedded).await;
    let _controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    world.apply(TOPIC);
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    let lie = json!({"status": {"topicName": "elsewhere"}}).to_string();
    world.kubectl(&["patch", "topic", "rooms", "--subresource=status", "--type=merge", "-p", &lie]);
    eventually(SOON, || async {
        let status = world.get("topic", "rooms").unwrap_or_default()["status"].clone();
        if status["topicName"] == "rooms" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
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
    let kafka = Kafka::new(&BTreeMap::from([("bootstrap.servers".to_owned(), brokers)])).unwrap();
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
    let looks = async || controllers.metric("cornjacket_controllers_looks_total").await.unwrap_or(0.0);
    let first = looks().await;
    eventually(Duration::from_mins(1), || async { looks().await >= first + 2.0 }).await;
    assert_eq!(told().len(), 2);
}
