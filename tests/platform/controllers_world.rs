//! A directory of manifests, controllers on it, and a registry that loads what they register; in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use controllers::{Config, Platform, Source, State};
use cornjacket::database::{self, Service};
use cornjacket::lifecycle::Lifecycle;
use cornjacket::operate::Readiness;
use cornjacket::registry::{self, Catalog, Registry, Role};
use crds::secret::PlatformKey;
use secrecy::SecretString;
use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{Database, eventually, fresh_database};

/// Changes are picked up within a second or two; a loaded machine gets more.
pub const SOON: Duration = Duration::from_secs(15);

/// The platform's key, the same for every start.
pub fn key() -> PlatformKey {
    PlatformKey::new(&[42; 32])
}

/// How often the broker is looked at.
pub const DRIFT: Duration = Duration::from_secs(1);

pub struct World {
    pub url: SecretString,
    pub pool: PgPool,
    pub resources: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::on(&fresh_database().await).await
    }

    pub async fn on(database: &Database) -> Self {
        let url = SecretString::from(database.url.clone());
        database::migrate(&url, &[Service::Ingestion, Service::EventHandler].into()).await.unwrap();
        let pool = database::pool(&url, "test", 4).unwrap();
        Self { url, pool, resources: tempfile::tempdir().unwrap() }
    }

    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.resources.path().join(file), text).unwrap();
    }

    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.resources.path().join(file)).unwrap();
    }

    /// Starts controllers. They stop when the token is cancelled.
    pub fn controllers(&self, kafka: Option<BTreeMap<String, String>>) -> (CancellationToken, watch::Receiver<State>) {
        let options = database::options(&self.url, "test").unwrap();
        let platform = Platform {
            namespace: "default".to_owned(),
            home: options.clone(),
            // The same database by another URL counts once.
            others: vec![options.clone().application_name("again")],
            tsdb: options.clone(),
            actions: options,
            kafka,
            drift: DRIFT,
            secrets_key: Some(Arc::new(key())),
            handler_selector: None,
        };
        let config = Config { source: Source::Directory(self.resources.path().to_owned()), platform };
        let (report, state) = watch::channel(State::Starting);
        let stop = CancellationToken::new();
        tokio::spawn(controllers::run(config, report, stop.clone()));
        (stop, state)
    }

    /// Starts a data-plane process of these roles.
    pub fn data_plane(&self, roles: &[Role]) -> (Registry, Lifecycle) {
        let lifecycle = Lifecycle::new();
        let settings = registry::Settings {
            pool: self.pool.clone(),
            namespace: "default".to_owned(),
            roles: roles.to_vec(),
            instance: Uuid::now_v7(),
        };
        let gate = Readiness::default().gate("registrations", "loading");
        (registry::start(settings, &lifecycle, gate), lifecycle)
    }

    /// Status, reason and message of a condition.
    pub async fn condition(&self, kind: &str, name: &str, condition: &str) -> Option<(String, String, String)> {
        let status: Value = sqlx::query_scalar("SELECT status FROM resource_status WHERE kind = $1 AND name = $2")
            .bind(kind)
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .ok()??;
        let found = status["conditions"].as_array()?.iter().find(|c| c["type"] == condition)?.clone();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    /// Waits until `Ready` has this status and reason; gives the message.
    pub async fn until_ready_is(&self, kind: &str, name: &str, status: &str, reason: &str) -> String {
        eventually(SOON, || async {
            let ready = self.condition(kind, name, "Ready").await.ok_or("no status")?;
            if (ready.0.as_str(), ready.1.as_str()) == (status, reason) {
                Ok(ready.2)
            } else {
                Err(format!("{ready:?}"))
            }
        })
        .await
    }
}

/// Waits until the catalog is as wanted.
pub async fn until(catalog: &mut watch::Receiver<Arc<Catalog>>, wanted: impl FnMut(&Arc<Catalog>) -> bool) {
    tokio::time::timeout(SOON, catalog.wait_for(wanted)).await.expect("the catalog changes in time").expect("it runs");
}

pub fn topic(name: &str, spec: &str) -> String {
    manifest("Topic", name, spec)
}

pub fn manifest(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: cornjacket.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// An event type whose payloads have a `value` of this JSON type.
pub fn reading(value: &str) -> String {
    let schema = format!("{{type: object, properties: {{value: {{type: {value}}}}}}}");
    manifest("EventType", "reading", &format!("{{type: sensor.reading, versions: [{{version: 1, schema: {schema}}}]}}"))
}
