//! Ingest on a real database and a real listener, in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cornjacket::ingest::{self, Settings};
use cornjacket::lifecycle::{Lifecycle, Stage};
use cornjacket::operate::{Readiness, http};
use cornjacket::outbox::OnCommit;
use cornjacket::registry::{Catalog, LoadedEventType};
use crds::language::schema::PayloadSchema;
use crds::registration::{EventType, Kind, ResourceKey, SchemaVersion, Validation};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::harness::http::client;
use crate::harness::{Database, eventually, fresh_database};

/// The tables of the ingestion database.
pub async fn migrate(pool: &PgPool) {
    for migration in [
        include_str!("../../migrations/shared/0001_registration.sql"),
        include_str!("../../migrations/ingestion/0001_outbox_and_event_store.sql"),
    ] {
        sqlx::raw_sql(migration).execute(pool).await.unwrap();
    }
}

/// A running ingest.
pub struct World {
    pub client: Client,
    pub pool: PgPool,
    pub readiness: Readiness,
    base: String,
    _catalog: watch::Sender<Arc<Catalog>>,
}

impl World {
    /// On a database of its own.
    pub async fn start(settings: Settings) -> Self {
        let database = fresh_database().await;
        Self::start_on(&database, &database.url, settings).await
    }

    /// On a database, by way of another address of it.
    pub async fn start_on(database: &Database, address: &str, settings: Settings) -> Self {
        let pool = database.pool().await;
        migrate(&pool).await;
        let lifecycle = Lifecycle::new();
        let readiness = Readiness::default();
        let (sender, catalog) = watch::channel(Arc::new(catalog()));
        let on_commit: OnCommit = Arc::new(|_| {});
        let gate = readiness.gate("database", "connecting");
        let state = ingest::start(&lifecycle, &address.parse().unwrap(), catalog, &settings, gate, &on_commit);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = lifecycle.token(Stage::Accept);
        lifecycle.spawn(Stage::Accept, "http", http::serve(listener, ingest::routes(state), stop));
        let world = Self { client: client(), pool, readiness, base, _catalog: sender };
        world.until_ready().await;
        world
    }

    pub async fn until_ready(&self) {
        eventually(Duration::from_secs(20), || async { self.readiness.pending().is_empty() }).await;
    }

    pub fn post_to(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    /// The address to connect to without a client.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub async fn post(&self, body: &Value) -> (u16, Value) {
        read(self.post_to("/api/v1/events").json(body)).await
    }

    pub async fn outbox_rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&self.pool).await.unwrap()
    }

    pub async fn keys(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM idempotency").fetch_one(&self.pool).await.unwrap()
    }
}

/// Sends a request; its status and its body.
pub async fn read(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// An event that nothing is wrong with.
pub fn reading(aggregate: &str, value: i64) -> Value {
    json!({"event_type": "sensor.reading", "aggregate_id": aggregate, "payload": {"value": value, "unit": "c"}})
}

/// `sensor.reading` enforces its schema, `sensor.warned` only warns.
fn catalog() -> Catalog {
    let types = [("sensor.reading", Validation::Enforce), ("sensor.warned", Validation::Warn)];
    let event_types: BTreeMap<_, _> =
        types.map(|(name, validation)| (name.to_owned(), Arc::new(loaded(name, validation)))).into();
    Catalog { loaded: true, event_types, ..Catalog::default() }
}

fn loaded(name: &str, validation: Validation) -> LoadedEventType {
    let schema = json!({
        "type": "object",
        "required": ["value", "unit"],
        "properties": {"value": {"type": "number"}, "unit": {"type": "string"}},
    });
    LoadedEventType {
        key: ResourceKey { namespace: "default".to_owned(), kind: Kind::EventType, name: name.to_owned() },
        generation: 1,
        hash: String::new(),
        schemas: [(1, PayloadSchema::compile(&schema).unwrap())].into(),
        spec: EventType {
            event_type: name.to_owned(),
            description: Some("a reading".to_owned()),
            owner: None,
            topic: "sensor-events".to_owned(),
            validation,
            versions: vec![SchemaVersion { version: 1, schema, deprecated: false }],
            examples: vec![json!({"value": 1, "unit": "c"})],
            mqtt: Vec::new(),
        },
    }
}
