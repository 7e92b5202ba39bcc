//! The cluster as the controllers write to it: statuses, finalizers and events.

mod client;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use crds::cause::Chain;
use crds::registration::ResourceKey;
use crds::shared::API_VERSION;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::warn;

pub use self::client::connect;
pub use self::turns::Turns;
use crate::cluster::kinds::{Declarable, Guarded, Seen};
use crate::cluster::scale::HandlerDeployment;

/// Who wrote a field, as the API server keeps it.
pub const MANAGER: &str = "cornjacket-controllers";
/// Longest wait for an answer of the API server.
const ANSWER: Duration = Duration::from_secs(10);

/// The API server could not be asked, or refused. Tried again with backoff.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("cannot reach a cluster: neither a service account nor a kubeconfig says where it is (KUBECONFIG)")]
    Settings(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot {doing}")]
    Refused { doing: &'static str, source: Box<kube::Error> },
    #[error("the API server does not answer in time: cannot {doing}")]
    Silent { doing: &'static str },
    #[error("the lease cannot be held")]
    Lease(#[source] Box<kube_lease_manager::LeaseManagerError>),
    #[error("another process took over")]
    LeaseLost,
    #[error("a watch ended")]
    WatchEnded,
}

impl ClusterError {
    /// What was sent was computed from an older state: to be looked at again at once.
    pub fn is_conflict(&self) -> bool {
        self.has_code(409)
    }

    /// It is gone already.
    pub fn is_gone(&self) -> bool {
        self.has_code(404)
    }

    /// We may not ask for it.
    pub fn is_forbidden(&self) -> bool {
        self.has_code(403)
    }

    fn has_code(&self, code: u16) -> bool {
        matches!(self, Self::Refused { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == code))
    }
}

/// A call with a deadline.
pub async fn ask<T>(
    doing: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    match timeout(ANSWER, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ClusterError::Refused { doing, source: Box::new(error) }),
        Err(_) => Err(ClusterError::Silent { doing }),
    }
}

/// A transition that people are told about.
pub struct Told {
    pub key: ResourceKey,
    event: Event,
    about: ObjectReference,
}

impl Told {
    pub fn of(seen: &Seen, reason: &str, warning: bool, note: &str) -> Self {
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(seen.key.kind.as_str().to_owned()),
            name: Some(seen.key.name.clone()),
            namespace: Some(seen.key.namespace.clone()),
            uid: Some(seen.uid.clone()),
            resource_version: seen.resource_version.clone(),
            ..ObjectReference::default()
        };
        Self { key: seen.key.clone(), event, about }
    }
}

/// Writes what the controllers say of objects of one namespace. Who writes takes a turn first.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    recorder: Recorder,
    turns: Arc<Turns>,
}

impl Writer {
    /// `instance` names this process in events.
    pub fn new(client: Client, turns: Arc<Turns>, namespace: String, instance: String) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, namespace, recorder, turns }
    }

    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// What is read back is read as leniently as the watch does: an object that cannot be read has a status too.
    fn api<K: Declarable>(&self) -> Api<Guarded<K>> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Server-side apply of the whole status, refused if the object has changed since it was seen.
    pub async fn status<K: Declarable>(&self, seen: &Seen, status: &Value) -> Result<(), ClusterError> {
        let name = &seen.key.name;
        let body = json!({
            "apiVersion": API_VERSION,
            "kind": K::KIND.as_str(),
            "metadata": {"name": name, "uid": seen.uid, "resourceVersion": seen.resource_version},
            "status": status,
        });
        let (api, parameters, patch) = (self.api::<K>(), PatchParams::apply(MANAGER).force(), Patch::Apply(&body));
        ask("write the status", api.patch_status(name, &parameters, &patch)).await.map(|_| ())
    }

    /// Replaces the finalizers, unless they have changed since they were seen.
    pub async fn finalizers<K: Declarable>(&self, seen: &Seen, wanted: &[String]) -> Result<(), ClusterError> {
        let body = json!({"metadata": {
            "uid": seen.uid, "resourceVersion": seen.resource_version, "finalizers": wanted,
        }});
        let (api, parameters, patch) = (self.api::<K>(), PatchParams::default(), Patch::Merge(&body));
        match ask("change the finalizers", api.patch(&seen.key.name, &parameters, &patch)).await {
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(()),
        }
    }

    /// Tells people about a transition, by an Event. Nothing depends on it.
    pub async fn tell(&self, told: &Told) {
        if let Err(error) = ask("record an event", self.recorder.publish(&told.event, &told.about)).await {
            warn!(resource = %told.key, error = %Chain(&error), "an event could not be recorded");
        }
    }
}

/// Sets how many pods one Deployment has, and nothing else of it.
#[derive(Clone)]
pub struct Scaler {
    deployments: Api<Deployment>,
    name: String,
}

/// How many pods a Deployment is set to have.
#[derive(Clone, Debug)]
pub struct Size {
    pub replicas: i32,
    resource_version: Option<String>,
}

impl Scaler {
    pub fn new(client: Client, deployment: &HandlerDeployment) -> Self {
        let deployments = Api::namespaced(client, &deployment.namespace);
        Self { deployments, name: deployment.name.clone() }
    }

    pub async fn size(&self) -> Result<Size, ClusterError> {
        let scale = ask("read the size of the handler's Deployment", self.deployments.get_scale(&self.name)).await?;
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or_default();
        Ok(Size { replicas, resource_version: scale.metadata.resource_version })
    }

    /// Refused if the Deployment has changed since its size was read.
    pub async fn resize(&self, was: &Size, replicas: i32) -> Result<(), ClusterError> {
        let body = json!({"metadata": {"resourceVersion": was.resource_version}, "spec": {"replicas": replicas}});
        let (parameters, patch) =
            (PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }, Patch::Merge(&body));
        let patching = self.deployments.patch_scale(&self.name, &parameters, &patch);
        ask("scale the handler's Deployment", patching).await.map(|_| ())
    }
}
