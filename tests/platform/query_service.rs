//! The query service on a database of the test's own, which the test fills by SQL as relay and handler would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cornjacket::cli::event::sse::{Decoder, Frame};
use cornjacket::database;
use cornjacket::lifecycle::{Lifecycle, Stage};
use cornjacket::operate::Readiness;
use cornjacket::projection::store::{self, Target};
use cornjacket::projection::{Program, Row, Subject};
use cornjacket::query::{self, Limits, Sources};
use cornjacket::registry::{Catalog, LoadedProjection};
use crds::registration::{self, Kind, Projection, ResourceKey};
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::Client;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::http::{self, Answer};
use crate::harness::{Database, fresh_database};

pub struct Service {
    pub pool: PgPool,
    pub url: String,
    pub client: Client,
    pub lifecycle: Lifecycle,
    catalog: watch::Sender<Arc<Catalog>>,
}

impl Service {
    pub async fn start() -> Self {
        Self::on(&fresh_database().await, Limits::default()).await
    }

    pub async fn on(database: &Database, limits: Limits) -> Self {
        let options = PgPoolOptions::new().max_connections(8).acquire_timeout(Duration::from_secs(5));
        let pool = options.connect(&database.url).await.unwrap();
        migrate(database, &pool).await;
        let (sender, catalog) = watch::channel(Arc::new(Catalog::default()));
        let lifecycle = Lifecycle::new();
        let sources = Sources { projections: pool.clone(), series: pool.clone(), events: pool.clone(), catalog };
        let gate = Readiness::default().gate("database", "connecting");
        let service = query::start(sources, limits, &lifecycle, gate);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = cornjacket::operate::http::serve(listener, query::routes(service), lifecycle.token(Stage::Serve));
        lifecycle.spawn(Stage::Serve, "http", serve);
        Self { pool, url, client: http::client(), lifecycle, catalog: sender }
    }

    pub async fn get(&self, path: &str) -> Answer {
        http::get(&self.client, &format!("{}{path}", self.url)).await.unwrap()
    }

    /// Routes every event to this topic.
    pub fn route(&self, topic_name: &str) {
        let topic = json!({"topicName": topic_name, "default": true, "partitions": 12, "replicationFactor": 1});
        let catalog = Catalog { topics: vec![serde_json::from_value(topic).unwrap()], ..Catalog::default() };
        self.catalog.send_replace(Arc::new(catalog));
    }

    /// A projection of this type is registered.
    pub fn declare(&self, projection_type: &str) {
        let spec: Projection = serde_json::from_value(json!({
            "type": projection_type, "source": {"eventTypes": ["sensor.reading"]}, "fold": "latest",
            "startFrom": "Earliest", "onError": "DeadLetter", "rebuild": "BlueGreen",
        }))
        .unwrap();
        let key = ResourceKey { namespace: "default".into(), kind: Kind::Projection, name: projection_type.into() };
        let program = Arc::new(Program::compile(&spec).unwrap());
        let loaded = Arc::new(LoadedProjection { key, generation: 1, hash: String::new(), spec, program });
        let catalog = Catalog { projections: [(projection_type.to_owned(), loaded)].into(), ..Catalog::default() };
        self.catalog.send_replace(Arc::new(catalog));
    }

    /// Writes a row as the handler does, in a transaction of its own.
    pub async fn project(&self, projection_type: &str, aggregate_id: &str, state: Value) {
        project(&mut self.pool.acquire().await.unwrap(), projection_type, aggregate_id, &state).await;
    }

    pub async fn stream(&self, path: &str, last_event_id: Option<&str>) -> Stream {
        Stream::open(&format!("{}{path}", self.url), last_event_id).await
    }
}

/// As the product does, and one partition for all time.
async fn migrate(database: &Database, pool: &PgPool) {
    let url = SecretString::from(database.url.clone());
    let services = BTreeSet::from([database::Service::Ingestion, database::Service::EventHandler]);
    database::migrate(&url, &services).await.unwrap();
    let partition = "CREATE TABLE event_store_all PARTITION OF event_store DEFAULT";
    sqlx::query(partition).execute(pool).await.unwrap();
}

/// A row's position only grows.
static NEXT: AtomicI64 = AtomicI64::new(1);

/// Writes a row as the handler does.
pub async fn project(connection: &mut PgConnection, projection_type: &str, aggregate_id: &str, state: &Value) {
    let program = Arc::new(Program::compile(&latest(projection_type)).unwrap());
    let subject = Subject { projection_type: projection_type.to_owned(), program, applied_through: vec![0; 64] };
    let row = Row {
        state: state.clone(),
        last_event_id: Uuid::now_v7(),
        last_event_timestamp: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
        shard: 0,
        position: NEXT.fetch_add(1, Ordering::Relaxed),
        positions: None,
    };
    let key = (0, aggregate_id.to_owned());
    store::write(connection, Target::Live, &[subject], &[(&key, &row)]).await.unwrap();
}

fn latest(projection_type: &str) -> registration::Projection {
    registration::Projection {
        projection_type: projection_type.to_owned(),
        source: registration::Source { event_types: vec!["t".to_owned()], prefixes: vec![] },
        filter: None,
        key: None,
        fold: registration::Fold::Latest,
        start_from: registration::StartFrom::Earliest,
        on_error: registration::OnError::DeadLetter,
        rebuild: registration::Rebuild::BlueGreen,
        retention_seconds: None,
        indexes: vec![],
        reads_event_store: false,
    }
}

/// Appends an event as a relay does: numbered in its shard, the head moved in the same transaction.
pub async fn append(pool: &PgPool, event_type: &str, aggregate_id: &str) -> (Uuid, i16, i64) {
    let shard = cornjacket::event::shard_of(aggregate_id);
    let id = Uuid::now_v7();
    let position: i64 = sqlx::query_scalar(
        "WITH head AS (UPDATE outbox_shard SET position = position + 1 WHERE shard = $1 RETURNING position)
         INSERT INTO event_store SELECT $2, $3, $4, now(), '{\"n\": 1}', '{}', now(), $1, position FROM head
         RETURNING position",
    )
    .bind(shard)
    .bind(id)
    .bind(event_type)
    .bind(aggregate_id)
    .fetch_one(pool)
    .await
    .unwrap();
    (id, shard, position)
}

pub struct Stream {
    bytes: BoxStream<'static, Result<Vec<u8>, String>>,
    decoder: Decoder,
    frames: Vec<Frame>,
}

impl Stream {
    /// Opens a stream at a URL.
    pub async fn open(url: &str, last_event_id: Option<&str>) -> Self {
        let client = Client::builder().no_proxy().build().unwrap();
        let mut request = client.get(url);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{url}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let bytes = response.bytes_stream().map(|piece| piece.map(|b| b.to_vec()).map_err(|e| e.to_string())).boxed();
        Self { bytes, decoder: Decoder::default(), frames: Vec::new() }
    }

    /// The next event; `None` when the stream ends.
    pub async fn next(&mut self) -> Option<Frame> {
        let next = async {
            while self.frames.is_empty() {
                let bytes = self.bytes.next().await?.ok()?;
                self.frames.extend(self.decoder.push(&bytes).unwrap());
            }
            Some(self.frames.remove(0))
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.expect("an event within 20 s")
    }

    /// The next row: its aggregate id, its state and the id of the event.
    pub async fn row(&mut self) -> (String, Value, String) {
        let frame = self.next().await.expect("the stream goes on");
        assert_eq!(frame.event, "projection");
        let row: Value = serde_json::from_str(&frame.data).unwrap();
        (row["aggregate_id"].as_str().unwrap().to_owned(), row["state"].clone(), frame.id)
    }

    /// The id of a stream on which nothing has come yet.
    pub async fn first_id(&mut self) -> String {
        while self.decoder.last_id().is_empty() {
            let bytes = self.bytes.next().await.expect("the stream goes on").unwrap();
            self.frames.extend(self.decoder.push(&bytes).unwrap());
        }
        self.decoder.last_id().to_owned()
    }
}

/// The states in an answer's `projections`, by aggregate.
pub fn states(answer: &Answer) -> BTreeMap<String, Value> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let rows = answer.body["projections"].as_array().unwrap();
    rows.iter().map(|row| (row["aggregate_id"].as_str().unwrap().to_owned(), row["state"].clone())).collect()
}

/// What a refusal says: its status and its `error`, after a look at the fields beside it.
pub fn refusal(answer: &Answer) -> (u16, String) {
    let body = &answer.body;
    assert_eq!(body["status"], json!(answer.status), "{body}");
    assert!(body["type"].as_str().unwrap().starts_with("urn:cornjacket:problem:"), "{body}");
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
    (answer.status, body["error"].as_str().unwrap().to_owned())
}
