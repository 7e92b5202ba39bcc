//! A broker that goes away and comes back: meanwhile it is said so, and afterwards the same process rules it again.

use controllers::effects::kafka::Kafka;
use controllers::topic::plan::Alteration;
use serde_json::Value;

use super::{SOON, TOPIC, World, event_type};
use crate::harness::{Bus, OwnKafka, administered, eventually};

const NAME: &str = "broker-away-rooms";

fn kept_for(hours: u8) -> String {
    TOPIC.replace("{prefixes", &format!("{{topicName: {NAME}, retention: {hours}h, prefixes"))
}

/// Waits until the topic has this `retention.ms` at the broker.
async fn until_retention_is(kafka: &Kafka, wanted: &str) {
    eventually(SOON, async || {
        let topics = kafka.describe([NAME].into_iter()).await.map_err(|error| error.to_string())?;
        let config = topics.get(NAME).ok_or("no such topic")?.config.as_ref().map_err(Clone::clone)?;
        let is = config["retention.ms"].value.clone().unwrap_or_default();
        if is == wanted { Ok(()) } else { Err(is) }
    })
    .await;
}

impl World {
    /// Since when `Ready` is as it is.
    fn ready_since(&self, kind: &str, name: &str) -> Value {
        let object = self.get(kind, name).unwrap();
        let mut conditions = object["status"]["conditions"].as_array().unwrap().iter();
        conditions.find(|condition| condition["type"] == "Ready").unwrap()["lastTransitionTime"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_away_is_ruled_again_by_the_same_process() {
    let mut broker = tokio::task::spawn_blocking(|| OwnKafka::start_new("broker-away")).await.unwrap();
    let world = World::new("broker-away", Bus::Kafka(broker.brokers())).await;
    let launch = world.platform.controllers_of(&world.kubeconfig(), "").env("CORNJACKET_DRIFT_SECONDS", "1");
    let controllers = launch.ready().await;
    let (_registry, _lifecycle) = world.data_plane();
    world.apply(&format!("{}{}", kept_for(1), event_type("room.left", "{}")));
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    let since = world.ready_since("eventtype", "room.left");

    tokio::task::block_in_place(|| broker.stop());
    world.until_ready_is("topic", "rooms", "False", "BrokerUnreachable").await;
    world.apply(&kept_for(2));
    world.until_ready_is("topic", "rooms", "False", "BrokerUnreachable").await;
    let reachable = world.condition("topic", "rooms", "BrokerReachable").unwrap();
    assert_eq!((reachable.0.as_str(), reachable.1.as_str()), ("False", "BrokerUnreachable"));
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;

    tokio::task::block_in_place(|| broker.start());
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    let reachable = world.condition("topic", "rooms", "BrokerReachable").unwrap();
    assert_eq!((reachable.0.as_str(), reachable.1.as_str()), ("True", "BrokerReachable"));
    let kafka = administered(&broker.brokers());
    until_retention_is(&kafka, "7200000").await;
    let put_back = "cornjacket_controllers_drift_corrected_total";
    assert!(controllers.metric(put_back).await.unwrap_or_default() < 1.0, "an edit is no drift");

    let foreign = Alteration::Set { key: "retention.ms".to_owned(), value: "7000".to_owned() };
    kafka.alter(&[(NAME.to_owned(), vec![foreign])]).await.unwrap();
    eventually(SOON, || async { controllers.metric(put_back).await.unwrap_or_default() >= 1.0 }).await;
    until_retention_is(&kafka, "7200000").await;
    assert_eq!(world.ready_since("eventtype", "room.left"), since, "event types waited for no broker");
    assert_eq!(controllers.metric("cornjacket_controllers_active").await, Some(1.0));
}
