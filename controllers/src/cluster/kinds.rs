//! The four kinds as a cluster has them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use chrono::{DateTime, Utc};
use crds::registration::{Kind, ResourceKey};
use crds::shared::{DeletionPolicy, ManagementPolicy, RECONCILE_REQUESTED_AT, Reconciliation};
use crds::{EventType, Projection, Topic, WebhookAction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::decide::FINALIZER;
use crate::resource::{Declared, Resource, Unreadable, policies};

/// One of the four kinds.
pub trait Declarable:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const KIND: Kind;

    fn resource(&self) -> Resource;

    /// What stands under `.status`.
    fn status(&self) -> Option<Value>;
}

macro_rules! declarable {
    ($($kind:ident),*) => {
        $(impl Declarable for $kind {
            const KIND: Kind = Kind::$kind;

            fn resource(&self) -> Resource {
                Resource::$kind(Box::new(self.clone()))
            }

            fn status(&self) -> Option<Value> {
                self.status.as_ref().and_then(|status| serde_json::to_value(status).ok())
            }
        })*
    };
}

declarable!(Topic, EventType, Projection, WebhookAction);

/// An object of the watch: one that cannot be read is no reason to miss the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// Of an object, what a look depends on: the spec by its generation, and what is wished by annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matter {
    uid: Option<String>,
    generation: Option<i64>,
    deleting: bool,
    annotations: BTreeMap<String, String>,
}

impl Matter {
    pub fn of<K: Declarable>(object: &Guarded<K>) -> Self {
        let meta = object.meta();
        Self {
            uid: meta.uid.clone(),
            generation: meta.generation,
            deleting: meta.deletion_timestamp.is_some(),
            annotations: object.annotations().clone(),
        }
    }

    /// Forgets what nobody here reads, and what is most of the metadata: who set which field, and the manifest once more.
    pub fn keep<K: Declarable>(object: &mut Guarded<K>) {
        object.meta_mut().managed_fields = None;
        object.annotations_mut().remove(LAST_APPLIED);
    }
}

/// Where kubectl keeps the manifest that it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What is decided by: an object without its spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub key: ResourceKey,
    pub uid: String,
    pub resource_version: Option<String>,
    pub generation: i64,
    pub created: Option<DateTime<Utc>>,
    pub deleting: bool,
    /// When it was asked to go, by the API server's clock.
    pub deleted_at: Option<DateTime<Utc>>,
    pub finalizers: Vec<String>,
    /// The annotation that asks for a look now.
    pub requested_at: Option<String>,
    pub status: Option<Value>,
    /// Or why the object cannot be read.
    pub resource: Result<Resource, String>,
}

impl Seen {
    pub fn of<K: Declarable>(object: &Guarded<K>) -> Self {
        Self { status: status_of(object), ..Self::without_status(object) }
    }

    pub fn without_status<K: Declarable>(object: &Guarded<K>) -> Self {
        let meta = object.meta();
        let time = |at: &Time| DateTime::from_timestamp(at.0.as_second(), 0);
        Self {
            key: key::<K>(meta),
            uid: object.uid().unwrap_or_default(),
            resource_version: meta.resource_version.clone(),
            generation: meta.generation.unwrap_or(1),
            created: meta.creation_timestamp.as_ref().and_then(time),
            deleting: meta.deletion_timestamp.is_some(),
            deleted_at: meta.deletion_timestamp.as_ref().and_then(time),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            requested_at: object.annotations().get(RECONCILE_REQUESTED_AT).cloned(),
            status: None,
            resource: object.0.as_ref().map(Declarable::resource).map_err(|invalid| invalid.error.clone()),
        }
    }

    /// As the rest of the controllers want it.
    pub fn into_declared(self) -> Declared {
        let kind = self.key.kind;
        let unreadable = |error: &String| Unreadable {
            reason: crds::reason::Reason::InvalidSpec,
            message: format!("the object cannot be read as {kind}: {error}; mend it and apply it again"),
        };
        Declared {
            origin: format!("{} {}", self.key.kind, self.key.name),
            resource: self.resource.map_err(|error| unreadable(&error)),
            key: self.key,
            generation: self.generation,
            created: self.created,
        }
    }

    /// Whether it cannot go before we let it.
    pub fn is_held(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }

    /// The finalizers that are not ours.
    pub fn others(&self) -> Vec<String> {
        self.finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect()
    }

    /// Whether deleting the object deletes something outside of the cluster as well. What is paused or only observed is left
    /// alone in this too.
    pub fn deletes(&self) -> bool {
        let owns = self.key.kind != Kind::EventType;
        let asks = |resource: &Resource| {
            let policies = policies(resource);
            policies.deletion == DeletionPolicy::Delete
                && policies.management == ManagementPolicy::Manage
                && policies.reconciliation == Reconciliation::Active
        };
        owns && self.resource.as_ref().is_ok_and(asks)
    }
}

pub fn status_of<K: Declarable>(object: &Guarded<K>) -> Option<Value> {
    object.0.as_ref().ok().and_then(Declarable::status)
}

fn key<K: Declarable>(meta: &ObjectMeta) -> ResourceKey {
    ResourceKey {
        namespace: meta.namespace.clone().unwrap_or_default(),
        kind: K::KIND,
        name: meta.name.clone().unwrap_or_default(),
    }
}
