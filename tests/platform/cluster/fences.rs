//! What is written to an object was computed from how it was seen: an object that has changed since is left as it is.

use std::num::NonZeroU32;
use std::sync::Arc;

use controllers::cluster::kinds::{Guarded, Seen};
use controllers::effects::kubernetes::{ClusterError, Turns, Writer};
use crds::Topic;
use kube::Api;
use serde_json::{Value, json};

use super::{TOPIC, World};
use crate::harness::Bus;

/// The Topic `rooms`, and who writes to it.
struct Case {
    world: World,
    topics: Api<Guarded<Topic>>,
    writer: Writer,
}

impl Case {
    /// No controllers: nobody else writes.
    async fn new(name: &str) -> Self {
        let world = World::new(name, Bus::Embedded).await;
        world.apply(TOPIC);
        let client = world.client().await;
        let turns = Arc::new(Turns::new(NonZeroU32::MIN));
        let writer = Writer::new(client.clone(), turns, world.namespace.clone(), "test".to_owned());
        Self { topics: Api::namespaced(client, &world.namespace), world, writer }
    }

    async fn seen(&self) -> Seen {
        Seen::of(&self.topics.get("rooms").await.unwrap())
    }

    async fn write(&self, seen: &Seen, name: &str) -> Result<(), ClusterError> {
        self.writer.status::<Topic>(seen, &json!({"topicName": name})).await
    }

    fn is(&self) -> Value {
        self.world.get("topic", "rooms").unwrap()
    }
}

/// The status of an object that nobody has looked at.
fn untouched() -> Value {
    json!({"observedGeneration": -1})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_computed_from_an_older_version_is_refused_and_changes_nothing() {
    let case = Case::new("fenced").await;
    let old = case.seen().await;
    case.world.kubectl(&["annotate", "topic", "rooms", "tests.cornjacket.io/changed=once"]);
    let refused = case.write(&old, "old").await;
    assert!(refused.as_ref().is_err_and(ClusterError::is_conflict), "{refused:?}");
    assert_eq!(case.is()["status"], untouched());

    let new = case.seen().await;
    case.write(&new, "new").await.unwrap();
    assert_eq!(case.is()["status"]["topicName"], "new");
    // As a process that was replaced meanwhile would, by what it saw before the other wrote.
    let refused = case.write(&new, "newer").await;
    assert!(refused.as_ref().is_err_and(ClusterError::is_conflict), "{refused:?}");
    let finalizers = ["cornjacket.io/cleanup".to_owned()];
    let refused = case.writer.finalizers::<Topic>(&new, &finalizers).await;
    assert!(refused.as_ref().is_err_and(ClusterError::is_conflict), "{refused:?}");
    assert_eq!(case.is()["status"]["topicName"], "new");
    assert!(case.is()["metadata"]["finalizers"].is_null(), "{}", case.is());

    let newest = case.seen().await;
    case.writer.finalizers::<Topic>(&newest, &finalizers).await.unwrap();
    assert_eq!(case.is()["metadata"]["finalizers"], json!(finalizers));
    case.writer.finalizers::<Topic>(&case.seen().await, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_an_object_that_is_gone_is_not_written_to_one_of_the_same_name() {
    let case = Case::new("fenced-gone").await;
    let gone = case.seen().await;
    case.world.kubectl(&["delete", "topic", "rooms"]);
    let refused = case.write(&gone, "gone").await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(case.world.get("topic", "rooms").is_none(), "it is not made anew by its status");
    case.world.apply(TOPIC);
    let refused = case.write(&gone, "gone").await;
    assert!(refused.as_ref().is_err_and(ClusterError::is_conflict), "{refused:?}");
    assert_eq!(case.is()["status"], untouched());
}
