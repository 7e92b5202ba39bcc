//! The API server is away: events flow, restarts included, and afterwards the controllers go on without a storm.

use std::time::Duration;

use serde_json::json;

use super::{TOPIC, event_type};
use crate::harness::{Bus, Cluster, Platform, eventually, fresh_database, http};

const SOON: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn events_flow_without_the_api_server_and_the_controllers_resume() {
    let mut cluster = tokio::task::spawn_blocking(|| Cluster::start_new("away-cluster")).await.unwrap();
    let namespace = cluster.fresh_namespace();
    let platform = Platform::new("cluster-away", fresh_database().await, Bus::Embedded).in_namespace(&namespace);
    let controllers = platform.controllers_of(&cluster.kubeconfig("admin"), "").ready().await;
    let mut ingest = platform.ingest().ready().await;
    let mut relay = platform.relay("").ready().await;
    let mut handler = platform.handle("").ready().await;
    let mut query = platform.query().ready().await;
    let projection = super::PROJECTION;
    cluster.apply(&namespace, &format!("{TOPIC}{}{projection}", event_type("room.left", "{}"))).unwrap();
    let kinds = "topics,eventtypes,projections";
    cluster.must(&["wait", "-n", &namespace, "--for=condition=Ready", "--timeout=60s", kinds, "--all"]);

    cluster.stop_api();
    for process in [&mut ingest, &mut relay, &mut handler, &mut query] {
        process.kill9();
        process.start_again();
        process.until_ready(SOON).await;
    }
    let post = async |n: i64| {
        let event = json!({"event_type": "room.left", "aggregate_id": "a", "payload": {"n": n}});
        http::post(&http::client(), &ingest.url("/api/v1/events"), &event).await.unwrap().status
    };
    let until = async |n: i64| {
        let url = query.url("/api/v1/projections/room_state/a");
        eventually(SOON, || async {
            let answer = http::get(&http::client(), &url).await.map_err(|e| e.to_string())?;
            if answer.body["state"]["n"] == n { Ok(()) } else { Err(answer.body.to_string()) }
        })
        .await;
    };
    assert_eq!(post(1).await, 202);
    until(1).await;

    cluster.start_api();
    cluster.apply(&namespace, &event_type("room.entered", "{}")).unwrap();
    let ready = ["wait", "-n", &namespace, "--for=condition=Ready", "--timeout=60s", "eventtype/room.entered"];
    cluster.must(&ready);
    assert_eq!(post(2).await, 202);
    until(2).await;
    let log = controllers.log();
    let failures = log.lines().filter(|line| line.contains("\"WARN\"")).count();
    assert!(failures < 60, "{failures} warnings");
}
