//! A cluster as the source of resources: the objects of one namespace, as the watches last saw them.

use std::collections::HashMap;
use std::time::Instant;

use crds::registration::ResourceKey;
use crds::{EventType, Projection, Topic, WebhookAction};
use kube::runtime::reflector::Store;
use serde_json::Value;

use crate::cluster::kinds::{Declarable, Guarded, Seen, status_of};
use crate::resource::Declared;

/// What the watches keep of each kind.
#[derive(Clone)]
pub struct Stores {
    pub topics: Store<Guarded<Topic>>,
    pub event_types: Store<Guarded<EventType>>,
    pub projections: Store<Guarded<Projection>>,
    pub webhook_actions: Store<Guarded<WebhookAction>>,
}

/// What tells an object from another of its name, and one wish for a look from the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub uid: String,
    /// The annotation that asks for a look now.
    pub requested_at: Option<String>,
}

/// The whole set at one time.
pub struct Snapshot {
    pub set: Vec<Declared>,
    /// The statuses as the objects have them, as far as they were asked for.
    pub statuses: HashMap<ResourceKey, Value>,
    pub marks: HashMap<ResourceKey, Mark>,
    pub read_at: Instant,
}

impl Stores {
    /// Everything that is declared, with the statuses that are asked for. What is being deleted no longer is declared.
    pub fn snapshot(&self, asks: impl Fn(&ResourceKey) -> bool) -> Snapshot {
        let read_at = Instant::now();
        let mut snapshot = Snapshot { set: Vec::new(), statuses: HashMap::new(), marks: HashMap::new(), read_at };
        snapshot.add(&self.topics, &asks);
        snapshot.add(&self.event_types, &asks);
        snapshot.add(&self.projections, &asks);
        snapshot.add(&self.webhook_actions, &asks);
        snapshot
    }
}

impl Snapshot {
    fn add<K: Declarable>(&mut self, store: &Store<Guarded<K>>, asks: &impl Fn(&ResourceKey) -> bool) {
        for object in store.state() {
            let seen = Seen::without_status::<K>(&object);
            if seen.deleting {
                continue;
            }
            if asks(&seen.key)
                && let Some(status) = status_of::<K>(&object)
            {
                self.statuses.insert(seen.key.clone(), status);
            }
            let mark = Mark { uid: seen.uid.clone(), requested_at: seen.requested_at.clone() };
            self.marks.insert(seen.key.clone(), mark);
            self.set.push(seen.into_declared());
        }
    }
}
