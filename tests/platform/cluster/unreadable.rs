//! An object that cannot be read, as under definitions of another release: it says so, and holds up nobody.

use serde_json::json;

use super::{TOPIC, event_type};
use crate::harness::{Bus, Cluster, Platform, fresh_database};

const UNREADABLE: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: Topic
metadata: {name: unreadable}
spec: {partitions: many}
---
";

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_read_holds_up_no_other() {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start_new("unreadable-cluster")).await.unwrap();
    let namespace = cluster.fresh_namespace();
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let patch = json!([
        {"op": "remove", "path": "/spec/versions/0/selectableFields"},
        {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": anything},
    ]);
    cluster.must(&["patch", "crd", "topics.cornjacket.io", "--type=json", "-p", &patch.to_string()]);
    let unreadable = || cluster.apply(&namespace, UNREADABLE);
    crate::harness::eventually(super::SOON, async || unreadable()).await;
    let platform = Platform::new("unreadable", fresh_database().await, Bus::Embedded).in_namespace(&namespace);
    let _controllers = platform.controllers_of(&cluster.kubeconfig("admin"), "").ready().await;
    let _ingest = platform.ingest().ready().await;
    let _relay = platform.relay("").ready().await;
    cluster.apply(&namespace, &format!("{TOPIC}{}", event_type("room.left", "{}"))).unwrap();
    let wait = |condition: &str, what: &str| {
        let condition = format!("--for=condition={condition}");
        cluster.must(&["wait", "-n", &namespace, &condition, "--timeout=60s", what]);
    };
    wait("Ready", "topic/rooms");
    wait("Ready", "eventtype/room.left");
    wait("Stalled", "topic/unreadable");
    let status = cluster.get(&namespace, "topic", "unreadable").unwrap()["status"].to_string();
    assert!(status.contains("InvalidSpec") && status.contains("many"), "{status}");
    // Mended, it is an object like any other, and the watch is the one from before.
    cluster.apply(&namespace, &UNREADABLE.replace("many", "2")).unwrap();
    wait("Ready", "topic/unreadable");
}
