//! From a directory of manifests to what the data plane runs, and back to a status.

use std::collections::BTreeMap;
use std::time::Duration;

use controllers::State;
use cornjacket::lifecycle::Lifecycle;
use cornjacket::registry::Role;
use crds::registration::{Kind, ResourceKey};
use serde_json::json;

use crate::controllers_world::{SOON, World, manifest, reading, topic, until};
use crate::harness::{Launch, OwnPostgres, eventually, free_port, fresh_database, shared_kafka, topic_prefix};

const PROJECTION: &str = "{type: sensor_state, source: {eventTypes: [sensor.reading]}, latest: {}}";

fn projection_key() -> ResourceKey {
    ResourceKey { namespace: "default".into(), kind: Kind::Projection, name: "state".into() }
}

#[tokio::test]
async fn edits_additions_and_removals_are_served_and_a_broken_edit_keeps_the_last_good_version() {
    let world = World::new().await;
    world.write("topics.yaml", &topic("all", "{default: true}"));
    world.write("types.yaml", &reading("number"));
    let (registry, _lifecycle) = world.data_plane(&[Role::Ingest, Role::Relay]);
    let (stop, _) = world.controllers(None);
    let mut catalog = registry.catalog;

    until(&mut catalog, |c| c.event_types.contains_key("sensor.reading")).await;
    world.until_ready_is("EventType", "reading", "True", "Available").await;

    world.write("types.yaml", &reading("sting"));
    let message = world.until_ready_is("EventType", "reading", "False", "InvalidSchema").await;
    assert!(message.contains("sting") && message.ends_with("generation 1 is still served"), "{message}");
    assert!(catalog.borrow().event_types["sensor.reading"].schemas[&1].validate(&json!({"value": "x"})).len() == 1);

    world.write("types.yaml", "kind: [EventType");
    let message = world.until_ready_is("EventType", "reading", "False", "InvalidManifest").await;
    assert!(
        message.starts_with("types.yaml: line 1") && message.ends_with("generation 1 is still served"),
        "{message}"
    );
    assert_eq!(catalog.borrow().event_types["sensor.reading"].generation, 1);

    world.write("types.yaml", &reading("integer"));
    let message = world.until_ready_is("EventType", "reading", "False", "Incompatible").await;
    assert!(message.contains("/properties/value") && message.ends_with("generation 1 is still served"), "{message}");

    world.write("types.yaml", &reading("[number, string]"));
    until(&mut catalog, |c| c.event_types["sensor.reading"].generation == 5).await;
    world.until_ready_is("EventType", "reading", "True", "Available").await;

    world.write("more.yaml", &manifest("EventType", "login", "{type: user.login}"));
    until(&mut catalog, |c| c.event_types.contains_key("user.login")).await;
    world.remove("more.yaml");
    until(&mut catalog, |c| !c.event_types.contains_key("user.login")).await;
    eventually(SOON, || async { world.condition("EventType", "login", "Ready").await.is_none() }).await;
    stop.cancel();
}

#[tokio::test]
async fn a_projection_is_ready_only_when_handler_and_query_run_it_and_an_error_is_the_message() {
    let world = World::new().await;
    world.write("state.yaml", &manifest("Projection", "state", PROJECTION));
    let (stop, _) = world.controllers(None);
    world.until_ready_is("Projection", "state", "False", "NoInstances").await;

    let (query, query_lifecycle) = world.data_plane(&[Role::Query]);
    eventually(SOON, || async {
        let (_, reason, message) = world.condition("Projection", "state", "Ready").await.ok_or("no status")?;
        if message == "no instance of handle is alive: start one" {
            Ok(())
        } else {
            Err(format!("{reason}: {message}"))
        }
    })
    .await;

    let (handler, _lifecycle) = world.data_plane(&[Role::Handle]);
    let message = world.until_ready_is("Projection", "state", "False", "AwaitingInstances").await;
    assert!(message.contains("waiting for handle on "), "{message}");

    let mut catalog = handler.catalog.clone();
    until(&mut catalog, |c| c.projections.contains_key("sensor_state")).await;
    let hash = catalog.borrow().projections["sensor_state"].hash.clone();
    handler.acks.report(&projection_key(), &hash, Err("the event store is empty".into()));
    let message = world.until_ready_is("Projection", "state", "False", "LoadFailed").await;
    assert!(message.starts_with("handle on ") && message.ends_with(": the event store is empty"), "{message}");

    handler.acks.report(&projection_key(), &hash, Ok(()));
    let message = world.until_ready_is("Projection", "state", "True", "Available").await;
    assert_eq!(message, "generation 1 runs in 1 of 1 handle, 1 of 1 query");

    leave(query_lifecycle).await;
    eventually(SOON, || async {
        let (_, _, message) = world.condition("Projection", "state", "Ready").await.ok_or("no status")?;
        if message == "no instance of query is alive: start one" { Ok(()) } else { Err(message) }
    })
    .await;
    drop(query);
    stop.cancel();
}

async fn leave(lifecycle: Lifecycle) {
    lifecycle.stop();
    lifecycle.run(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn of_two_controllers_one_is_active_and_the_other_takes_over() {
    let world = World::new().await;
    world.write("topics.yaml", &topic("one", "{default: true}"));
    let (stop_first, mut first) = world.controllers(None);
    first.wait_for(|state| *state == State::Active).await.unwrap();
    let (stop_second, mut second) = world.controllers(None);
    second.wait_for(|state| *state == State::Standby).await.unwrap();

    stop_first.cancel();
    tokio::time::timeout(SOON, second.wait_for(|state| *state == State::Active)).await.unwrap().unwrap();
    world.write("topics.yaml", &topic("one", "{default: true, partitions: 2, allowRepartition: true}"));
    let (registry, _lifecycle) = world.data_plane(&[Role::Relay]);
    until(&mut registry.catalog.clone(), |c| c.topics.iter().any(|t| t.partitions == 2)).await;
    stop_second.cancel();
}

#[tokio::test]
async fn controllers_and_registry_come_back_after_a_restart_of_the_database() {
    let mut postgres = tokio::task::spawn_blocking(|| OwnPostgres::start_new("controllers")).await.unwrap();
    let world = World::on(&postgres.fresh_database().await).await;
    world.write("topics.yaml", &topic("all", "{default: true}"));
    world.write("types.yaml", &reading("number"));
    let (registry, _lifecycle) = world.data_plane(&[Role::Ingest, Role::Relay]);
    let (stop, mut state) = world.controllers(None);
    let mut catalog = registry.catalog;
    until(&mut catalog, |c| c.event_types.contains_key("sensor.reading")).await;

    postgres.stop();
    tokio::time::timeout(SOON, state.wait_for(|s| matches!(s, State::Retrying(_)))).await.unwrap().unwrap();
    world.write("types.yaml", &reading("[number, string]"));
    assert_eq!(catalog.borrow().event_types.len(), 1, "the last catalog stays in use");
    postgres.start();

    until(&mut catalog, |c| c.event_types["sensor.reading"].generation == 2).await;
    world.until_ready_is("EventType", "reading", "True", "Available").await;
    stop.cancel();
}

#[tokio::test]
async fn missing_topics_are_made_and_a_broker_that_is_away_holds_up_topics_only() {
    let world = World::new().await;
    let name = format!("{}-made", topic_prefix());
    let spec = format!("{{topicName: {name}, default: true, partitions: 3, replicationFactor: 1, retention: 1h}}");
    world.write("topics.yaml", &topic("all", &spec));
    world.write("types.yaml", &reading("number"));
    let (_registry, _lifecycle) = world.data_plane(&[Role::Ingest, Role::Relay]);

    let away = BTreeMap::from([("bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned())]);
    let (stop, _) = world.controllers(Some(away));
    world.until_ready_is("EventType", "reading", "True", "Available").await;
    let message = world.until_ready_is("Topic", "all", "False", "BrokerUnreachable").await;
    assert!(message.contains("KAFKA_BROKERS"), "{message}");
    stop.cancel();

    let brokers = BTreeMap::from([("bootstrap.servers".to_owned(), shared_kafka().await)]);
    let (stop, _) = world.controllers(Some(brokers.clone()));
    world.until_ready_is("Topic", "all", "True", "Available").await;
    let exists = world.condition("Topic", "all", "TopicExists").await.unwrap();
    assert_eq!((exists.0.as_str(), exists.1.as_str()), ("True", "TopicCreated"));
    stop.cancel();

    let broker = controllers::effects::kafka::Kafka::new(&brokers).unwrap();
    eventually(SOON, || async {
        let topics = broker.topics().await.map_err(|e| e.to_string())?;
        topics.get(&name).filter(|t| t.partitions == 3).copied().ok_or_else(|| format!("{topics:?}"))
    })
    .await;

    let twice = format!("{{topicName: {name}, default: true, partitions: 3, replicationFactor: 7}}");
    world.write("topics.yaml", &topic("all", &twice));
    world.write("other.yaml", &topic("other", &format!("{{topicName: {name}-2, replicationFactor: 7}}")));
    let (stop, _) = world.controllers(Some(brokers));
    let message = world.until_ready_is("Topic", "other", "False", "ConfigRejected").await;
    assert!(message.contains("replicationFactor"), "{message}");
    let message = world.until_ready_is("Topic", "all", "False", "UnsupportedByBroker").await;
    assert!(message.contains("kafka-reassign-partitions"), "{message}");
    let drifted = world.condition("Topic", "all", "Drifted").await.unwrap();
    assert_eq!((drifted.0.as_str(), drifted.1.as_str()), ("True", "DriftDetected"));
    stop.cancel();
}

#[tokio::test]
async fn get_prints_what_runs_and_why_not() {
    let database = fresh_database().await;
    let world = World::on(&database).await;
    world.write("topics.yaml", &topic("all", "{default: true}"));
    let action = manifest("WebhookAction", "hook", "{source: {prefixes: [s]}, url: 'https://example.com/'}");
    world.write("hook.yaml", &action);
    let (_registry, _lifecycle) = world.data_plane(&[Role::Relay]);
    let (stop, _) = world.controllers(None);
    world.until_ready_is("Topic", "all", "True", "Available").await;
    world.until_ready_is("WebhookAction", "hook", "False", "NoInstances").await;

    let get = |arguments: &'static [&'static str]| {
        let launch = Launch::new("get", 0, arguments).env("EVENTHANDLER_DATABASE_URL", &database.url);
        tokio::task::spawn_blocking(move || launch.command().output().unwrap())
    };
    let table = String::from_utf8(get(&["get"]).await.unwrap().stdout).unwrap();
    assert!(
        table.contains("topic/all") && table.contains("webhookaction/hook") && table.contains("NoInstances"),
        "{table}"
    );
    let json = get(&["get", "tp", "all", "-o", "json"]).await.unwrap().stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["kind"], &json["registration"]["spec"]["default"]), (&json!("Topic"), &json!(true)));
    let absent = get(&["get", "tp", "nope"]).await.unwrap();
    assert_eq!(absent.status.code(), Some(1));
    stop.cancel();
}

#[tokio::test]
async fn frozen_controllers_lose_their_seat_and_stand_by_when_they_wake_up() {
    let database = fresh_database().await;
    let world = World::on(&database).await;
    world.write("topics.yaml", &topic("all", "{default: true}"));
    let launch = |name: &str| {
        let (port, directory) = (free_port(), world.resources.path().to_string_lossy().into_owned());
        Launch::new(name, port, &["controllers", "--resources", &directory, "--port", &port.to_string()])
            .env("EVENTHANDLER_DATABASE_URL", &database.url)
            .env("INGESTION_DATABASE_URL", &database.url)
    };
    let mut first = launch("controllers-first").ready().await;
    world.until_ready_is("Topic", "all", "False", "NoInstances").await;
    let second = launch("controllers-second").ready().await;
    eventually(SOON, || async { second.log().contains("standing by") }).await;

    first.sigstop();
    eventually(Duration::from_secs(40), || async { second.log().contains("controllers active") }).await;
    first.sigcont();
    eventually(SOON, || async { first.log().contains("standing by") }).await;
    world.write("topics.yaml", &topic("all", "{default: true, prefixes: [x.]}"));
    eventually(SOON, || async { second.log().contains("\"generation\":2") }).await;
    assert!(!first.log().contains("\"generation\":2"));
}
