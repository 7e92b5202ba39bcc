//! However much there is to say, the API server is asked so many times a second; and what was said is not said again.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{SOON, World, acknowledging, event_type};
use crate::harness::{Bus, Cluster, Platform, Process, eventually, fresh_database, http, shared_kafka, topic_prefix};

/// EventTypes.
const MANY: u64 = 60;
/// Writes a second; twice as many at once after a rest.
const RATE: u64 = 10;
/// Requests of all sorts a second, the Lease and the watches as well: three times what was measured.
const ASKED: u64 = 35;
/// The controllers look at everything every 3 s; so many looks change nothing.
const LOOKS: u64 = 4;

fn resources(topic: &str) -> String {
    let mut text = format!(
        "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata: {{name: rooms}}\n\
         spec: {{topicName: {topic}, default: true, partitions: 1, replicationFactor: 1, retention: 1h}}\n---\n"
    );
    for number in 0..MANY {
        let versions = "{versions: [{version: 1, schema: {type: object}}]}";
        write!(text, "{}", event_type(&format!("room.{number}"), versions)).unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_of_the_api_server_everything_is_said_without_a_storm() {
    let mut cluster = tokio::task::spawn_blocking(|| Cluster::start_new("storm-cluster")).await.unwrap();
    let namespace = cluster.fresh_namespace();
    let platform = Platform::new("cluster-storm", fresh_database().await, Bus::Embedded).in_namespace(&namespace);
    let launch = platform.controllers_of(&cluster.kubeconfig("admin"), "");
    let controllers = Arc::new(launch.env("CORNJACKET_API_REQUESTS_PER_SECOND", RATE.to_string()).ready().await);
    let samples = Arc::new(Mutex::new(Vec::new()));
    let sampling = tokio::spawn(sample(controllers.clone(), samples.clone()));
    let (_registry, lifecycle) = acknowledging(&platform.database().url, &namespace);
    cluster.apply(&namespace, &resources("rooms")).unwrap();
    until_all(&cluster, &namespace, "Available").await;

    cluster.stop_api();
    // There is something new to say of each: nobody runs it any more.
    lifecycle.stop();
    lifecycle.run(SOON).await.unwrap();
    let before = writes(&controllers).await;
    let (stopped, asked) = (Instant::now(), requests(&controllers).await);
    eventually(SOON, || async { writes(&controllers).await > before + RATE }).await;
    cluster.start_api();
    let (started, asked_meanwhile) = (Instant::now(), requests(&controllers).await);
    until_all(&cluster, &namespace, "NoInstances").await;
    let asked_after = requests(&controllers).await - asked_meanwhile;
    let took = [started - stopped, started.elapsed()];
    for (what, so_many, took) in
        [("while it was away", asked_meanwhile - asked, took[0]), ("after", asked_after, took[1])]
    {
        let most = ASKED * (took.as_secs() + 1);
        assert!(so_many <= most, "{so_many} requests in {took:?} {what}");
    }

    sampling.abort();
    let samples = samples.lock().unwrap();
    assert!(samples.last().unwrap().1 - before > MANY, "all of it was written");
    for (at, (then, so_many)) in samples.iter().enumerate() {
        for (now, by_now) in &samples[at..] {
            let millis = u64::try_from(now.duration_since(*then).as_millis()).unwrap();
            let most = 2 * RATE + RATE * millis / 1000 + RATE / 2;
            assert!(by_now - so_many <= most, "{} writes in {millis} ms", by_now - so_many);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_that_start_again_say_nothing_again() {
    let world = World::new("again", Bus::Kafka(shared_kafka().await)).await;
    let mut controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    world.apply(&resources(&format!("{}-rooms", topic_prefix())));
    world.wait_for_all();
    let made = world.condition("topic", "rooms", "TopicExists").unwrap();
    assert_eq!(made.1, "TopicCreated");
    // The broker tells it a moment after.
    eventually(SOON, async || world.get("topic", "rooms").is_some_and(|topic| topic["status"]["topicId"].is_string()))
        .await;
    let statuses = || -> Vec<Value> {
        let list: Value = serde_json::from_str(&world.kubectl(&["get", "cornjacket", "-o", "json"])).unwrap();
        list["items"].as_array().unwrap().iter().map(|object| object["status"].clone()).collect()
    };
    let before = statuses();
    assert!(controllers.terminate().success());
    controllers.start_again();
    eventually(SOON, || async { comparisons(&controllers).await > 0 && looks(&controllers).await >= LOOKS }).await;
    assert_eq!(statuses(), before);
    assert_eq!(writes(&controllers).await, 0, "neither statuses nor events");
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_that_find_nothing_new_compile_nothing() {
    let world = World::new("compiled", Bus::Embedded).await;
    let controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    world.apply(&resources("rooms"));
    world.wait_for_all();
    // What is registered is compared once with itself.
    some_looks_later(&controllers, 2).await;
    let before = compiled(&controllers).await;
    assert!(before > MANY);
    some_looks_later(&controllers, LOOKS).await;
    assert_eq!(compiled(&controllers).await, before);

    world.apply(&event_type("room.7", "{owner: me, versions: [{version: 1, schema: {type: object}}]}"));
    world.until_ready_is("eventtype", "room.7", "True", "Available").await;
    some_looks_later(&controllers, 2).await;
    assert_eq!(compiled(&controllers).await, before + 2, "as edited, and once more as registered");
}

async fn some_looks_later(controllers: &Process, some: u64) {
    let first = looks(controllers).await;
    eventually(SOON, || async { looks(controllers).await >= first + some }).await;
}

async fn looks(controllers: &Process) -> u64 {
    counted(controllers, |metric| metric.starts_with("cornjacket_controllers_looks_total")).await
}

/// Looks at the broker: each asks once how all topics are configured.
async fn comparisons(controllers: &Process) -> u64 {
    let asked = "call=\"describe_configs\"";
    counted(controllers, |metric| metric.starts_with("cornjacket_controllers_broker_calls") && metric.contains(asked))
        .await
}

async fn compiled(controllers: &Process) -> u64 {
    counted(controllers, |metric| metric.starts_with("cornjacket_controllers_compiled_total")).await
}

/// Statuses, finalizers and events written so far; the Lease has its own pace.
async fn writes(controllers: &Process) -> u64 {
    let writes = ["create", "patch", "update"].map(|verb| format!("verb=\"{verb}\""));
    let counts = |metric: &str| {
        metric.starts_with("cornjacket_controllers_api_requests_total")
            && writes.iter().any(|verb| metric.contains(verb))
            && !metric.contains("leases")
    };
    counted(controllers, counts).await
}

/// Everything that the API server was asked or would have been, reading and the Lease as well.
async fn requests(controllers: &Process) -> u64 {
    counted(controllers, |metric| metric.starts_with("cornjacket_controllers_api_requests_total")).await
}

/// The sum of the counters that are chosen by name and labels.
async fn counted(controllers: &Process, chosen: impl Fn(&str) -> bool) -> u64 {
    let Ok(answer) = http::get(&http::client(), &controllers.url("/metrics")).await else { return 0 };
    let lines = answer.body.as_str().unwrap_or_default().lines().filter_map(|line| line.rsplit_once(' '));
    lines.filter(|(metric, _)| chosen(metric)).filter_map(|(_, count)| count.parse::<u64>().ok()).sum()
}

/// Notes how many writes there were, many times a second.
async fn sample(controllers: Arc<Process>, samples: Arc<Mutex<Vec<(Instant, u64)>>>) {
    loop {
        let count = writes(&controllers).await;
        samples.lock().unwrap().push((Instant::now(), count));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until `Ready` has this reason for every EventType.
async fn until_all(cluster: &Cluster, namespace: &str, reason: &str) {
    eventually(SOON, || async {
        let output = cluster.kubectl(&["get", "-n", namespace, "eventtypes", "-o", "json"]);
        let list: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let so = |object: &&Value| {
            let conditions = object["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["reason"] == reason))
        };
        let count = list["items"].as_array().map_or(0, |all| all.iter().filter(so).count());
        if count == usize::try_from(MANY).unwrap() { Ok(()) } else { Err(format!("{count} of {MANY} are {reason}")) }
    })
    .await;
}
