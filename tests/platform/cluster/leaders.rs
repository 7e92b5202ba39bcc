//! Several controllers: one is active, and another takes over when it ends, dies or freezes.

use std::time::Duration;

use super::{SOON, TOPIC, World, event_type};
use crate::harness::{Bus, Process, administered, eventually, promised, shared_kafka};

/// Another process is active this long after the first was killed, or froze.
const TAKE_OVER: Duration = Duration::from_secs(15);
/// The same after one that ended in order: who waits looks every second whether the lease was given back.
const HANDED_OVER: Duration = Duration::from_secs(5);

async fn is_active(process: &Process) -> bool {
    process.metric("cornjacket_controllers_active").await == Some(1.0)
}

async fn until_active(process: &Process, deadline: Duration) {
    promised(deadline, || is_active(process)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_takes_over_when_the_active_one_is_killed_and_at_once_when_it_ends_in_order() {
    let world = World::new("killed", Bus::Embedded).await;
    let (_registry, _lifecycle) = world.data_plane();
    let mut first = world.controllers("-1").await;
    eventually(SOON, || is_active(&first)).await;
    let mut second = world.controllers("-2").await;
    world.apply(TOPIC);
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    assert!(!is_active(&second).await, "one at a time");
    first.kill9();
    until_active(&second, TAKE_OVER).await;
    world.apply(&event_type("room.left", "{}"));
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;

    let third = world.controllers("-3").await;
    let holder = || {
        let lease = world.get("lease", "cornjacket-controllers").unwrap();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    let before = holder();
    assert!(!before.is_empty());
    assert!(second.terminate().success());
    // A lease that nobody gives back stays its holder's for up to 9 s.
    assert_ne!(holder(), before, "given back before the end, or another's already");
    until_active(&third, HANDED_OVER).await;
    assert!(!["", &before].contains(&holder().as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_one_that_wakes_up_changes_nothing() {
    let world = World::new("frozen", Bus::Embedded).await;
    let (_registry, _lifecycle) = world.data_plane();
    let mut first = world.controllers("-1").await;
    eventually(SOON, || is_active(&first)).await;
    let second = world.controllers("-2").await;
    world.apply(&format!("{TOPIC}{}", event_type("room.left", "{description: one}")));
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    first.sigstop();
    until_active(&second, TAKE_OVER).await;
    world.apply(&event_type("room.left", "{description: two}"));
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    let registered = async || -> (i64, String) {
        let question = "SELECT generation, spec->>'description' FROM registration WHERE name = 'room.left'";
        sqlx::query_as(question).fetch_one(&world.pool).await.unwrap()
    };
    assert_eq!(registered().await, (2, "two".to_owned()));
    let version = || world.get("eventtype", "room.left").unwrap()["metadata"]["resourceVersion"].clone();
    let before = version();
    first.sigcont();
    eventually(SOON, || async { !is_active(&first).await }).await;
    assert!(is_active(&second).await);
    assert_eq!(registered().await, (2, "two".to_owned()));
    assert_eq!(version(), before, "nothing was written over it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_one_that_wakes_up_changes_no_topic_back() {
    let kafka = shared_kafka().await;
    let world = World::new("frozen-kafka", Bus::Kafka(kafka.clone())).await;
    let (_registry, _lifecycle) = world.data_plane();
    // It looks at the broker the moment it wakes up.
    let launch = world.platform.controllers_of(&world.kubeconfig(), "-1").env("CORNJACKET_DRIFT_SECONDS", "1");
    let mut first = launch.ready().await;
    eventually(SOON, || is_active(&first)).await;
    let second = world.controllers("-2").await;
    let described = |hours: u8| {
        let spec = format!("{{topicName: {}-frozen, retention: {hours}h, prefixes", world.namespace);
        TOPIC.replace("{prefixes", &spec)
    };
    world.apply(&described(1));
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    first.sigstop();
    until_active(&second, TAKE_OVER).await;
    world.apply(&described(2));
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    first.sigcont();
    eventually(SOON, || async { !is_active(&first).await }).await;
    for process in [&first, &second] {
        let corrected = process.metric("cornjacket_controllers_drift_corrected_total").await;
        assert!(corrected.is_none_or(|count| count < 1.0), "one put back what another had changed: {}", process.log());
    }
    let broker = administered(&kafka);
    let topic = format!("{}-frozen", world.namespace);
    let config = broker.describe([topic.as_str()].into_iter()).await.unwrap()[&topic].config.clone().unwrap();
    assert_eq!(config["retention.ms"].value.as_deref(), Some("7200000"));
}
