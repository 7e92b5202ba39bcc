//! The charts, as an API server takes them: every object is accepted, every pod passes the restricted standard, and the
//! controllers need no more than they are allowed.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::namespaces::Second;
use super::{SOON, TOPIC, World, acknowledging, event_type};
use crate::harness::{Bus, eventually};

/// Kinds that a bare API server does not know; `foreign.rs` looks at them.
const FOREIGN: [&str; 3] = ["IngressRoute", "ServiceMonitor", "PrometheusRule"];

/// Helm, found or built by the script that `make check` uses as well.
fn helm() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-helm");
    let output = Command::new(script).output().expect("scripts/install-helm starts");
    assert!(output.status.success(), "no Helm: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}

/// The objects of a chart, rendered for a namespace.
pub fn render(chart: &str, namespace: &str, arguments: &[&str]) -> Vec<Value> {
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts");
    let mut command = Command::new(helm());
    command.current_dir(&charts).args(["template", "cornjacket", chart, "-n", namespace, "--kube-version", "1.34.0"]);
    let output = command.args(arguments).output().expect("helm starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let documents = text.split("\n---").map(|text| text.trim_start_matches("---"));
    let parsed = documents.map(|text| serde_saphyr::from_str::<Value>(text).unwrap_or_else(|e| panic!("{e}: {text}")));
    parsed.filter(Value::is_object).collect()
}

pub const PRODUCTION: [&str; 2] = ["-f", "cornjacket/values-production.yaml"];
const DEVELOPMENT: [&str; 2] = ["-f", "cornjacket/values-dev.yaml"];
pub const EVERYTHING: [&str; 4] = ["-f", "cornjacket/values-production.yaml", "-f", "tests/values-everything.yaml"];

fn profiles() -> Vec<Vec<&'static str>> {
    let mut single = DEVELOPMENT.to_vec();
    single.extend(["--set", "single=true", "--set", "dev.persistence=false"]);
    vec![PRODUCTION.to_vec(), DEVELOPMENT.to_vec(), single, EVERYTHING.to_vec()]
}

/// There is no class of that name here.
fn without_priority(pod_spec: &mut Value) {
    pod_spec.as_object_mut().expect("a specification").remove("priorityClassName");
}

/// A pod as a Deployment or StatefulSet would make it, or the pod itself.
fn pod_of(object: &Value) -> Option<Value> {
    let name = object["metadata"]["name"].clone();
    match object["kind"].as_str()? {
        "Pod" => Some(object.clone()),
        "Deployment" | "StatefulSet" | "Job" => {
            let template = &object["spec"]["template"];
            let labels = &template["metadata"]["labels"];
            let metadata = json!({"name": name, "labels": labels});
            let mut spec = template["spec"].clone();
            let claims = object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
            let volumes = claims.map(|claim| json!({"name": claim["metadata"]["name"], "emptyDir": {}}));
            let mut all = spec["volumes"].as_array().cloned().unwrap_or_default();
            all.extend(volumes);
            spec["volumes"] = Value::Array(all);
            without_priority(&mut spec);
            Some(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
        }
        _ => None,
    }
}

/// As one text for kubectl.
pub fn documents<'a>(objects: impl Iterator<Item = &'a Value>) -> String {
    objects.map(ToString::to_string).collect::<Vec<_>>().join("\n---\n")
}

impl World {
    fn try_out(&self, objects: &[Value]) -> String {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), list).unwrap();
        self.kubectl(&["apply", "--dry-run=server", "-f", &file.path().display().to_string()])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_of_the_charts_is_accepted_and_every_pod_passes_the_restricted_standard() {
    let world = World::new("charts", Bus::Embedded).await;
    let standard = "pod-security.kubernetes.io/enforce=restricted";
    world.cluster.must(&["label", "namespace", &world.namespace, standard]);
    for profile in profiles() {
        let mut objects = render("cornjacket", &world.namespace, &profile);
        objects.retain(|object| !FOREIGN.iter().any(|kind| object["kind"] == *kind));
        // Bindings in other namespaces that are watched have no namespace to be in here.
        objects.retain(|o| o["metadata"]["namespace"].as_str().is_none_or(|n| n == world.namespace));
        objects.iter_mut().filter(|object| object["kind"] == "Pod").for_each(|pod| without_priority(&mut pod["spec"]));
        // Pods are only accepted where their accounts are.
        let accounts = objects.iter().filter(|object| object["kind"] == "ServiceAccount");
        world.apply(&documents(accounts));
        let said = world.try_out(&objects);
        assert!(!said.contains("Warning"), "{profile:?}: {said}");
        let pods: Vec<Value> = objects.iter().filter_map(pod_of).collect();
        assert!(!pods.is_empty());
        world.try_out(&pods);
    }
    let kinds = render("cornjacket-crds", &world.namespace, &[]);
    assert_eq!(kinds.len(), 4);
    world.try_out(&kinds);
}

/// Lets the controllers do what the chart allows them; who they are, and the kubeconfig of that.
pub fn allow(world: &World, objects: &[Value]) -> (String, PathBuf) {
    let rules = objects.iter().filter(|o| ["Role", "RoleBinding"].iter().any(|kind| o["kind"] == *kind));
    world.apply(&documents(rules));
    let account = format!("system:serviceaccount:{}:cornjacket-controllers", world.namespace);
    let file = format!("allowed-{}", world.namespace);
    world.cluster.write_kubeconfig(&file, &account, None);
    (account, world.cluster.kubeconfig(&file))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_need_no_more_than_the_chart_allows() {
    let world = World::new("allowed", Bus::Embedded).await;
    let (account, kubeconfig) = allow(&world, &render("cornjacket", &world.namespace, &PRODUCTION));
    let controllers = world.platform.controllers_of(&kubeconfig, "").ready().await;
    let (_registry, _lifecycle) = world.data_plane();
    let deletes = TOPIC.replace("{prefixes", "{deletionPolicy: Delete, prefixes");
    world.apply(&format!("{deletes}{}", event_type("room.left", "{}")));
    world.until_ready_is("topic", "rooms", "True", "Available").await;
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    world.kubectl(&["delete", "topic", "rooms", "--timeout=60s"]);
    eventually(SOON, || async {
        let told = world.kubectl(&["get", "events.events.k8s.io"]);
        if told.contains("Available") { Ok(()) } else { Err(told) }
    })
    .await;
    assert!(!controllers.log().contains("orbidden"), "{}", controllers.log());
    let may = |verb: &str, what: &str| {
        let output = world.cluster.kubectl(&["auth", "can-i", verb, what, "-n", &world.namespace, "--as", &account]);
        output.status.success()
    };
    assert!(may("patch", "topics/status"));
    for (verb, what) in [
        ("get", "secrets"),
        ("list", "secrets"),
        ("delete", "topics"),
        ("create", "topics"),
        ("get", "pods"),
        ("list", "configmaps"),
    ] {
        assert!(!may(verb, what), "{verb} {what}");
    }
}

/// The objects that let controllers of `world` rule another namespace as well.
fn rules_of_both(world: &World, other: &str) -> String {
    let both = format!("watchNamespaces={{{},{other}}}", world.namespace);
    let databases =
        [&world.namespace, other].map(|namespace| format!("databases.perNamespace.{namespace}=databases-{namespace}"));
    let sets = ["--set", &both, "--set", &databases[0], "--set", &databases[1], "--set", "rbac.clusterCleanup=true"];
    let arguments = [&PRODUCTION[..], &sets].concat();
    let mut objects = render("cornjacket", &world.namespace, &arguments);
    objects.retain(|object| object["apiVersion"] == "rbac.authorization.k8s.io/v1");
    // Those without a namespace of their own are for that of the release.
    for object in objects.iter_mut().filter(|o| ["Role", "RoleBinding"].iter().any(|kind| o["kind"] == *kind)) {
        if object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!(world.namespace);
        }
    }
    documents(objects.iter())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_namespace_that_is_deleted_is_let_go_though_the_rights_in_it_went_first() {
    let world = World::new("cleanup", Bus::Embedded).await;
    let second = Second::beside(&world).await;
    let other = second.namespace.clone();
    let rules = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(rules.path(), rules_of_both(&world, &other)).unwrap();
    let all = rules.path().display().to_string();
    world.cluster.must(&["apply", "-f", &all]);
    let account = format!("system:serviceaccount:{}:cornjacket-controllers", world.namespace);
    world.cluster.write_kubeconfig("cleanup", &account, None);
    let launch = second.ruled_by(world.platform.controllers_of(&world.cluster.kubeconfig("cleanup"), ""), &world);
    let controllers = launch.ready().await;
    let _data_plane = acknowledging(&second.database.url, &other);
    world.cluster.apply(&other, &TOPIC.replace("{prefixes", "{deletionPolicy: Delete, prefixes")).unwrap();
    world.cluster.must(&["wait", "-n", &other, "--for=condition=Ready", "--timeout=60s", "topic/rooms"]);
    let topic = world.cluster.get(&other, "topic", "rooms").unwrap();
    assert!(topic["metadata"]["finalizers"].is_array(), "{topic}");
    world.cluster.must(&["delete", "rolebinding", "-n", &other, "--all"]);
    world.cluster.must(&["delete", "namespace", &other, "--timeout=60s"]);
    assert!(world.cluster.get(&other, "topic", "rooms").is_none(), "{}", controllers.log());
    world.cluster.must(&["delete", "--ignore-not-found", "-f", &all]);
}
