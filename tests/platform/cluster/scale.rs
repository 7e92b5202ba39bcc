//! `kubectl scale` of a projection: the handler's Deployment gets the pods, by no more rights than the chart gives.

use serde_json::Value;

use super::charts::{PRODUCTION, allow, render};
use super::{PROJECTION, SOON, TOPIC, World, event_type};
use crate::harness::{Bus, eventually};

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is).unwrap_or_else(|| panic!("the chart has no {kind} {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_a_projection_scales_the_handler() {
    let world = World::new("scale", Bus::Embedded).await;
    let objects =
        render("cornjacket", &world.namespace, &[&PRODUCTION[..], &["--set", "roles.handle.replicas=2"]].concat());
    let (account, kubeconfig) = allow(&world, &objects);
    let handler = find(&objects, "Deployment", "cornjacket-handle");
    world.apply(&handler.to_string());

    let mut launch = world.platform.controllers_of(&kubeconfig, "").env("POD_NAMESPACE", &world.namespace);
    let containers = &find(&objects, "Deployment", "cornjacket-controllers")["spec"]["template"]["spec"]["containers"];
    for variable in containers[0]["env"].as_array().unwrap() {
        let (name, value) = (variable["name"].as_str().unwrap(), variable["value"].as_str());
        if let (true, Some(value)) = (name.starts_with("CORNJACKET_HANDLER_"), value) {
            launch = launch.env(name, value);
        }
    }
    let controllers = launch.ready().await;
    let (_registry, _lifecycle) = world.data_plane();
    let _handler = world.platform.handle("").ready().await;
    let other = PROJECTION.replace("room-state", "other").replace("room_state", "other");
    world.apply(&format!("{TOPIC}{}{PROJECTION}{other}", event_type("room.left", "{}")));
    world.until_ready_is("projection", "room-state", "True", "Available").await;

    let pods = async |wanted: i64| {
        eventually(SOON, || async {
            let is = world.get("deployment", "cornjacket-handle").unwrap()["spec"]["replicas"].as_i64();
            if is == Some(wanted) { Ok(()) } else { Err(format!("{is:?} pods, not {wanted}")) }
        })
        .await;
    };
    world.kubectl(&["scale", "projection/room-state", "--replicas=3"]);
    pods(3).await;
    world.kubectl(&["scale", "projection/other", "--replicas=5"]);
    pods(5).await;
    // Somebody else's hand on it is put right.
    world.kubectl(&["scale", "deployment/cornjacket-handle", "--replicas=1"]);
    pods(5).await;
    world.kubectl(&["delete", "projection", "other"]);
    pods(3).await;

    // What an autoscaler reads: the instances that run it, and how to find them.
    let scale = world.kubectl(&["get", "projection", "room-state", "--subresource=scale", "-o", "json"]);
    let scale: Value = serde_json::from_str(&scale).unwrap();
    assert_eq!(scale["status"]["replicas"], 1, "{scale}");
    let selector = scale["status"]["selector"].as_str().unwrap().to_owned();
    let labels = handler["spec"]["selector"]["matchLabels"].as_object().unwrap();
    let mut wanted: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
    let mut said: Vec<String> = selector.split(',').map(str::to_owned).collect();
    wanted.sort();
    said.sort();
    assert_eq!(said, wanted);

    world.kubectl(&["patch", "projection", "room-state", "--type=merge", "-p", r#"{"spec":{"replicas":null}}"#]);
    pods(2).await;

    assert!(!controllers.log().contains("orbidden"), "{}", controllers.log());
    let may = |arguments: &[&str]| {
        let common = ["-n", &world.namespace, "--as", &account];
        world.cluster.kubectl(&[&["auth", "can-i"], arguments, &common].concat()).status.success()
    };
    assert!(may(&["patch", "deployments/cornjacket-handle", "--subresource=scale"]));
    assert!(!may(&["patch", "deployments/cornjacket-query", "--subresource=scale"]));
    assert!(!may(&["patch", "deployments/cornjacket-handle"]));
}
