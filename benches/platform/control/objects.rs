//! The objects of the control plane's measurement, and how they are applied: by server-side apply, so many at a time.

use std::path::Path;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Applied at the same time.
const CONCURRENCY: usize = 16;
const API_VERSION: &str = "cornjacket.io/v1alpha1";

/// A client without the controllers' bounds.
pub async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("our own file");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a cluster");
    Client::try_from(config).expect("a client")
}

/// Topic `number` of those whose names on the broker begin with `prefix`; the first takes what no other does.
pub fn topic(prefix: &str, number: usize) -> Value {
    let mut spec = json!({
        "topicName": format!("{prefix}-{number}"), "partitions": 1, "replicationFactor": 1, "retention": "1h",
    });
    if number == 0 {
        (spec["default"], spec["partitions"]) = (json!(true), json!(4));
    } else {
        spec["prefixes"] = json!([format!("bench-{number}.")]);
    }
    json!({"apiVersion": API_VERSION, "kind": "Topic", "metadata": {"name": format!("bench-{number}")}, "spec": spec})
}

/// EventType `number`, routed to the topic of that number; the first is the one that the load sends.
pub fn event_type(number: usize) -> Value {
    let name = if number == 0 { "sensor.reading".to_owned() } else { name_of(number) };
    let schema = json!({
        "type": "object", "required": ["value"],
        "properties": {"value": {"type": "integer"}, "unit": {"type": "string", "maxLength": 16}},
    });
    let spec = json!({"versions": [{"version": 1, "schema": schema}], "examples": [{"value": 1, "unit": "mm"}]});
    json!({"apiVersion": API_VERSION, "kind": "EventType", "metadata": {"name": name}, "spec": spec})
}

/// An EventType whose schema lets one number through.
pub fn edited(number: usize, only: usize) -> Value {
    let schema = json!({"type": "object", "required": ["value"], "properties": {"value": {"const": only}}});
    let spec = json!({"versions": [{"version": 1, "schema": schema}], "compatibility": "None"});
    json!({"apiVersion": API_VERSION, "kind": "EventType", "metadata": {"name": name_of(number)}, "spec": spec})
}

pub fn name_of(number: usize) -> String {
    format!("bench-{number}.happened")
}

/// Applies one object.
pub async fn apply<K>(api: &Api<K>, object: &Value)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let name = object["metadata"]["name"].as_str().expect("it has one");
    api.patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(object)).await.expect("applied");
}

/// Applies many.
pub async fn apply_all<K>(api: &Api<K>, objects: Vec<Value>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    stream::iter(objects).for_each_concurrent(CONCURRENCY, |object| async move { apply(api, &object).await }).await;
}

/// Waits until so many of a kind are Ready by their own status, and of their newest generation.
pub async fn until_ready<K>(client: &Client, namespace: &str, wanted: usize)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K: serde::Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let is_ready = |object: &K| {
        let object = serde_json::to_value(object).expect("it was JSON");
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        object["status"]["observedGeneration"] == object["metadata"]["generation"]
            && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    // A list costs the API server as much as many writes.
    while api.list(&ListParams::default()).await.expect("a list").items.iter().filter(|o| is_ready(o)).count() < wanted
    {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
