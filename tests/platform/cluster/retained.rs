//! What is retained outlives its objects and their namespace, under controllers that rule them.

use std::sync::{Arc, Mutex};

use crds::{EventType, Projection, Topic, WebhookAction};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};

use super::deletion::{ROWS, all_four_kinds};
use super::{SOON, World};
use crate::harness::{Bus, administered, eventually, shared_kafka};

/// What became of objects, in the order in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Happened {
    Changed { finalizers: Vec<String> },
    Deleted,
}

type History = Arc<Mutex<Vec<Happened>>>;

/// Notes every version of every object of a kind, from now on.
async fn watch(world: &World, kind: ApiResource, history: History) {
    let api: Api<DynamicObject> = Api::namespaced_with(world.client().await, &world.namespace, &kind);
    let now = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let events = api.watch(&WatchParams::default(), &now).await.unwrap();
    tokio::spawn(events.boxed().try_for_each(move |event| {
        let happened = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                Some(Happened::Changed { finalizers: object.finalizers().to_vec() })
            }
            WatchEvent::Deleted(_) => Some(Happened::Deleted),
            WatchEvent::Bookmark(_) => None,
            WatchEvent::Error(error) => panic!("{error:?}"),
        };
        history.lock().unwrap().extend(happened);
        async { Ok(()) }
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retained_outlives_its_objects_and_their_namespace() {
    let brokers = shared_kafka().await;
    let world = World::new("outlives", Bus::Kafka(brokers.clone())).await;
    let history = History::default();
    for kind in [
        ApiResource::erase::<Topic>(&()),
        ApiResource::erase::<EventType>(&()),
        ApiResource::erase::<Projection>(&()),
        ApiResource::erase::<WebhookAction>(&()),
    ] {
        watch(&world, kind, history.clone()).await;
    }
    let controllers = world.controllers("").await;
    let _relay = world.platform.relay("").ready().await;
    let _handler = world.platform.handle("").ready().await;
    let _query = world.platform.query().ready().await;
    let ingest = world.platform.ingest().ready().await;
    world.apply(&all_four_kinds("outlives", "Retain"));
    world.wait_for_all();
    world.one_row(&ingest).await;

    let broker = administered(&brokers);
    let is_there = async || broker.topics().await.unwrap().contains_key("outlives-rooms");
    assert!(is_there().await);
    world.kubectl(&["delete", "topic,eventtype,projection,webhookaction", "--all", "--timeout=60s"]);
    let active = "SELECT count(*) FROM registration WHERE state = 'active'";
    eventually(SOON, || async { world.count(active).await == 0 }).await;
    assert!(is_there().await);
    assert_eq!(world.count(ROWS).await, 1);

    let is_over = || history.lock().unwrap().iter().filter(|happened| **happened == Happened::Deleted).count() == 4;
    eventually(SOON, async || is_over()).await;
    world.delete_namespace();
    assert!(is_there().await);
    assert_eq!(world.count(ROWS).await, 1);
    let history = history.lock().unwrap();
    let held = |happened: &&Happened| matches!(happened, Happened::Changed { finalizers } if !finalizers.is_empty());
    assert_eq!(history.iter().find(held), None, "nothing of ours ever held one up");
    assert!(history.len() > 8, "statuses were written between making and deleting: {history:?}");
    let left = controllers.log().contains("left behind");
    assert!(!left, "{}", controllers.log());
}
