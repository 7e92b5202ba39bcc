//! The control plane: a thousand Topics and a thousand EventTypes on a real API server and a real broker, from the apply to
//! the last Ready; a restart with all of them; and the time from an edit to its being served, while events flow.

mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crds::{EventType, Topic};
use kube::{Api, Client};
use tokio::time::timeout;

use self::objects::{apply, apply_all, client, edited, event_type, name_of, topic, until_ready};
use crate::client::Connection;
use crate::harness::{
    Bus, Platform, Process, eventually, fresh_database, http, shared_cluster, shared_kafka, topic_prefix,
};
use crate::report::{Report, per_second, percentile};
use crate::scene::PATIENCE;
use crate::sections::{status_mb, steady};

const REQUESTS: &str = "cornjacket_controllers_api_requests_total";
const CALLS: &str = "cornjacket_controllers_broker_calls_total";
/// Resources of each kind.
const MANY: usize = 1000;
/// The same as a metric has it.
const READY: f64 = 1000.0;
/// Edits of one EventType.
const EDITS: usize = 100;
/// The EventType that is edited.
const EDITED: usize = 500;
/// Events a second beside the edits.
const LOAD: f64 = 2000.0;

pub async fn run(report: &mut Report) {
    // Its first client chooses who does TLS.
    let _ = http::client();
    let cluster = shared_cluster().await;
    let client = client(&cluster.kubeconfig("admin")).await;
    let bare = apply_many(&client, &cluster.fresh_namespace(), &topic_prefix()).await;
    report.add("2 000 resources applied, nobody watching (the limit)", format!("{bare:.1} s"), rate(bare));

    let namespace = cluster.fresh_namespace();
    let bus = Bus::Kafka(shared_kafka().await);
    let platform = Platform::new("control", fresh_database().await, bus).in_namespace(&namespace);
    let mut controllers = platform.controllers_of(&cluster.kubeconfig("admin"), "").ready().await;
    let _relay = platform.relay("").ready().await;
    let ingest = platform.ingest();
    let port = ingest.port;
    let _ingest = ingest.ready().await;

    first_time(&client, &namespace, &controllers, report).await;
    restart(&mut controllers, report).await;
    edits(&client, &namespace, port, report).await;
}

/// Applies everything; returns the seconds that it took.
async fn apply_many(client: &Client, namespace: &str, prefix: &str) -> f64 {
    let begun = Instant::now();
    let topics: Api<Topic> = Api::namespaced(client.clone(), namespace);
    let event_types: Api<EventType> = Api::namespaced(client.clone(), namespace);
    apply_all(&topics, (0..MANY).map(|number| topic(prefix, number)).collect()).await;
    apply_all(&event_types, (0..MANY).map(event_type).collect()).await;
    begun.elapsed().as_secs_f64()
}

async fn first_time(client: &Client, namespace: &str, controllers: &Process, report: &mut Report) {
    let begun = Instant::now();
    let applied = apply_many(client, namespace, &topic_prefix()).await;
    report.add("1 000 Topics and 1 000 EventTypes applied", format!("{applied:.1} s"), rate(applied));
    until_all_run(controllers).await;
    let took = begun.elapsed().as_secs_f64();
    report.add("… until topics are made, and all is acknowledged", format!("{took:.1} s"), "from the first apply");
    let statuses = async {
        until_ready::<Topic>(client, namespace, MANY).await;
        until_ready::<EventType>(client, namespace, MANY).await;
    };
    timeout(PATIENCE, statuses).await.expect("every status says Ready");
    let took = begun.elapsed().as_secs_f64();
    report.add("… until every status says Ready", format!("{took:.1} s"), "writes to the API: 50/s (the limit)");
    until_told(controllers).await;
    let took = begun.elapsed().as_secs_f64();
    report.add("… until every Event about it is recorded", format!("{took:.1} s"), "");
    let requests = by_label(controllers, REQUESTS, "verb").await;
    report.add("… requests of the controllers to the API", sum(&requests), said(&requests));
    let calls = by_label(controllers, CALLS, "call").await;
    report.add("… calls of the controllers to the broker", sum(&calls), said(&calls));
    report.add("… peak memory of the controllers", format!("{:.0} MB", status_mb(controllers.pid(), "VmHWM:")), "");
}

/// Every resource is known, and every one is ready by the reckoning of the controllers.
async fn until_all_run(controllers: &Process) {
    eventually(PATIENCE, || async {
        let ready = by_label(controllers, "cornjacket_controllers_resources_ready", "kind").await;
        let of = |kind: &str| ready.get(kind).copied().unwrap_or(0.0) >= READY;
        if of("Topic") && of("EventType") { Ok(()) } else { Err(said(&ready)) }
    })
    .await;
}

/// The last Event about a resource that became ready is recorded: they come after the statuses.
async fn until_told(controllers: &Process) {
    eventually(PATIENCE, || async {
        let requests = by_label(controllers, REQUESTS, "resource").await;
        requests.get("events").is_some_and(|events| *events >= 2.0 * READY)
    })
    .await;
}

async fn restart(controllers: &mut Process, report: &mut Report) {
    assert!(controllers.terminate().success(), "an orderly end");
    let begun = Instant::now();
    controllers.start_again();
    let looks = async |least: f64| {
        eventually(PATIENCE, || async {
            controllers.metric("cornjacket_controllers_looks_total").await.is_some_and(|looks| looks >= least)
        })
        .await;
    };
    looks(1.0).await;
    report.add(
        "restart: until the first look at 2 000 resources",
        format!("{:.1} s", begun.elapsed().as_secs_f64()),
        "",
    );
    let asked = "cornjacket_controllers_broker_calls_total{call=\"describe_configs\"}";
    eventually(PATIENCE, || async { controllers.metric(asked).await.is_some_and(|calls| calls >= 1.0) }).await;
    report.add(
        "restart: until 1 000 topics are compared",
        format!("{:.1} s", begun.elapsed().as_secs_f64()),
        "target 60 s",
    );
    looks(10.0).await;
    let writes = controllers.metric("cornjacket_controllers_status_writes_total").await.unwrap_or(0.0);
    report.add("restart: statuses written", format!("{writes}"), "target 0");
    let requests = by_label(controllers, REQUESTS, "verb").await;
    report.add("restart: requests to the API", sum(&requests), said(&requests));
    let calls = by_label(controllers, CALLS, "call").await;
    report.add("restart: calls to the broker", sum(&calls), said(&calls));
}

/// A metric of a process, summed by one of its labels.
async fn by_label(process: &Process, name: &str, label: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    let Ok(answer) = http::get(&http::client(), &process.url("/metrics")).await else { return sums };
    for line in answer.body.as_str().unwrap_or_default().lines() {
        let Some((labels, value)) = line.strip_prefix(name).and_then(|rest| rest.rsplit_once(' ')) else { continue };
        let named = labels.split_once(&format!("{label}=\"")).and_then(|(_, rest)| rest.split('"').next());
        if let (Some(named), Ok(value)) = (named, value.parse::<f64>()) {
            *sums.entry(named.to_owned()).or_insert(0.0) += value;
        }
    }
    sums
}

fn sum(by_label: &BTreeMap<String, f64>) -> String {
    by_label.values().sum::<f64>().to_string()
}

/// `create 2000, patch 2000`.
fn said(by_label: &BTreeMap<String, f64>) -> String {
    by_label.iter().map(|(label, value)| format!("{label} {value}")).collect::<Vec<_>>().join(", ")
}

fn rate(seconds: f64) -> String {
    per_second(2 * MANY, seconds)
}

/// From before an edit is applied until ingest answers by it.
async fn edits(client: &Client, namespace: &str, port: u16, report: &mut Report) {
    let sent = Arc::new(AtomicUsize::new(0));
    let load = tokio::spawn(steady(port, LOAD, sent.clone()));
    let begun = Instant::now();
    let api: Api<EventType> = Api::namespaced(client.clone(), namespace);
    let mut connection = Connection::open(port).await.expect("ingest listens");
    let mut times = Vec::with_capacity(EDITS);
    for edit in 0..EDITS {
        let edited_at = Instant::now();
        apply(&api, &edited(EDITED, edit)).await;
        let event =
            format!(r#"{{"event_type":"{}","aggregate_id":"a","payload":{{"value":{edit}}}}}"#, name_of(EDITED));
        while connection.post("/api/v1/events", "application/json", event.as_bytes()).await.expect("an answer") != 202 {
            assert!(edited_at.elapsed() < PATIENCE, "edit {edit} is not served");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times.push(edited_at.elapsed().as_secs_f64());
    }
    let reached = per_second(sent.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    assert!(!load.is_finished(), "the load ended before the measurement");
    load.abort();
    let p50 = percentile(&mut times, 50.0);
    report.add(
        "edit of one EventType among 2 000 resources until it is served, p50",
        format!("{p50:.0} ms"),
        format!("beside {reached}"),
    );
    let p99 = percentile(&mut times, 99.0);
    report.add(
        "edit of one EventType among 2 000 resources until it is served, p99",
        format!("{p99:.0} ms"),
        "target 2 s",
    );
}
