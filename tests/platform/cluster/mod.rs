//! The controllers in a cluster: a real API server, each test in a namespace of its own.

mod apply;
mod approval;
mod away;
mod broker;
mod charts;
mod crashes;
mod databases;
mod deletion;
mod fences;
mod foreign;
mod heard;
mod leaders;
mod namespaces;
mod refused;
mod retained;
mod scale;
mod status;
mod storm;
mod unreadable;
mod webhooks;

use std::path::PathBuf;
use std::time::Duration;

use cornjacket::database;
use cornjacket::lifecycle::Lifecycle;
use cornjacket::operate::Readiness;
use cornjacket::registry::{self, Registry, Role};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use secrecy::SecretString;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Bus, Cluster, Database, Platform, Process, eventually, fresh_database, shared_cluster};

pub const SOON: Duration = Duration::from_mins(1);
/// The handler says itself what it runs: where a projection is to be ready, there has to be a real one.
const ALL: [Role; 3] = [Role::Ingest, Role::Relay, Role::Query];

/// A namespace, and a platform that is ruled from it.
pub struct World {
    pub cluster: &'static Cluster,
    pub namespace: String,
    pub platform: Platform,
    pub pool: PgPool,
}

impl World {
    pub async fn new(name: &str, bus: Bus) -> Self {
        Self::on(fresh_database().await, name, bus).await
    }

    pub async fn on(database: Database, name: &str, bus: Bus) -> Self {
        let cluster = shared_cluster().await;
        let namespace = cluster.fresh_namespace();
        let platform = Platform::new(&format!("cluster-{name}"), database, bus).in_namespace(&namespace);
        assert!(platform.migrate().status().unwrap().success());
        let pool = platform.database().pool().await;
        Self { cluster, namespace, platform, pool }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster.kubeconfig("admin")
    }

    /// A client of the API server, as the administrator.
    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// Starts controllers; `instance` tells several apart.
    pub async fn controllers(&self, instance: &str) -> Process {
        self.platform.controllers_of(&self.kubeconfig(), instance).ready().await
    }

    /// Acknowledges what is registered, as processes of all roles but the handler would.
    pub fn data_plane(&self) -> (Registry, Lifecycle) {
        acknowledging(&self.platform.database().url, &self.namespace)
    }

    /// # Panics
    /// kubectl refused.
    pub fn apply(&self, manifests: &str) {
        let said = self.cluster.apply(&self.namespace, manifests).unwrap();
        assert!(!said.contains("Warning"), "{said}");
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", &self.namespace];
        all.extend(arguments);
        self.cluster.must(&all)
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.cluster.get(&self.namespace, kind, name)
    }

    /// Status, reason and message of a condition.
    pub fn condition(&self, kind: &str, name: &str, condition: &str) -> Option<(String, String, String)> {
        let object = self.get(kind, name)?;
        let found = object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == condition)?.clone();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    /// Waits until `Ready` has this status and reason for the newest generation; gives the message.
    pub async fn until_ready_is(&self, kind: &str, name: &str, status: &str, reason: &str) -> String {
        eventually(SOON, || async {
            let object = self.get(kind, name).ok_or("no such object")?;
            if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
                return Err(format!("not looked at: {}", object["status"]));
            }
            let ready = self.condition(kind, name, "Ready").ok_or("no condition")?;
            if (ready.0.as_str(), ready.1.as_str()) == (status, reason) {
                Ok(ready.2)
            } else {
                Err(format!("{ready:?}"))
            }
        })
        .await
    }

    /// Waits until every resource in the namespace is ready.
    pub fn wait_for_all(&self) {
        let kinds = "topics,eventtypes,projections";
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", kinds, "--all"]);
    }
}

/// Acknowledges what is registered in a namespace, as processes of all roles but the handler would.
pub fn acknowledging(database_url: &str, namespace: &str) -> (Registry, Lifecycle) {
    let lifecycle = Lifecycle::new();
    let url = SecretString::from(database_url.to_owned());
    let settings = registry::Settings {
        pool: database::pool(&url, "test", 4).unwrap(),
        namespace: namespace.to_owned(),
        roles: ALL.to_vec(),
        instance: Uuid::now_v7(),
    };
    let gate = Readiness::default().gate("registrations", "loading");
    (registry::start(settings, &lifecycle, gate), lifecycle)
}

/// Looks at the whole set that controllers have taken.
pub async fn looks(controllers: &Process) -> f64 {
    controllers.metric("cornjacket_controllers_looks_total").await.unwrap_or(0.0)
}

/// Waits for so many looks more.
pub async fn until_looked(controllers: &Process, more: f64) {
    let first = looks(controllers).await;
    eventually(SOON, || async { looks(controllers).await >= first + more }).await;
}

pub const TOPIC: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: Topic
metadata: {name: rooms}
spec: {prefixes: [room.], default: true}
---
";

pub fn event_type(name: &str, spec: &str) -> String {
    format!("apiVersion: cornjacket.io/v1alpha1\nkind: EventType\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

pub const PROJECTION: &str = "
apiVersion: cornjacket.io/v1alpha1
kind: Projection
metadata: {name: room-state}
spec: {type: room_state, source: {eventTypes: [room.left]}, latest: {}}
---
";
