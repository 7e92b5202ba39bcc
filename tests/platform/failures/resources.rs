//! Manifests are added, edited, removed and broken while events come in.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Kind, Running, turn, verify};
use crate::harness::http::{self, Answer};
use crate::harness::{Launch, Process, eventually, fresh_database, promised};

/// A change of a manifest is served this long after it was written.
const SERVED: Duration = Duration::from_secs(10);

/// A platform under load, and what is asked of it.
struct World {
    running: Running,
    query: Process,
    pool: PgPool,
}

impl World {
    fn file(&self, name: &str) -> PathBuf {
        self.running.platform.resources().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Instant {
        std::fs::write(self.file(name), text).unwrap();
        Instant::now()
    }

    async fn event_type(&self, name: &str) -> u16 {
        let url = self.running.ingest.url(&format!("/api/v1/event-types/{name}"));
        http::get(&http::client(), &url).await.unwrap().status
    }

    async fn post(&self, event_type: &str, payload: Value) -> Answer {
        let event = json!({"event_type": event_type, "aggregate_id": "a", "payload": payload});
        http::post(&http::client(), &self.running.ingest.url("/api/v1/events"), &event).await.unwrap()
    }

    /// A state as a client reads it.
    async fn state(&self, projection: &str, key: &str) -> Value {
        let url = self.query.url(&format!("/api/v1/projections/{projection}/{key}"));
        http::get(&http::client(), &url).await.unwrap().body["state"].clone()
    }

    /// What `cornjacket get` prints.
    async fn get(&self) -> String {
        let launch = Launch::new("get", 0, &["get", "-o", "wide"])
            .env("EVENTHANDLER_DATABASE_URL", &self.running.platform.database().url);
        let output = tokio::task::spawn_blocking(move || launch.command().output().unwrap()).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Of a projection that counts by `step`: whether every device's count is that of its history.
async fn counts_by(pool: &PgPool, step: i64) -> Result<(), String> {
    let (wrong, right): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE c IS DISTINCT FROM $1 * h), count(*) FILTER (WHERE c = $1 * h) FROM (
           SELECT (SELECT (state->>'n')::bigint FROM projections c
                    WHERE c.projection_type = 'readings' AND c.aggregate_id = h.aggregate_id) AS c,
                  (h.state->>'count')::bigint AS h
             FROM projections h WHERE h.projection_type = 'sensor_history') AS both_counts",
    )
    .bind(step)
    .fetch_one(pool)
    .await
    .map_err(|e| e.to_string())?;
    if wrong == 0 && right > 0 { Ok(()) } else { Err(format!("{wrong} are wrong, {right} are right")) }
}

fn event_type(name: &str, value: &str) -> String {
    let schema = format!("{{type: object, required: [value], properties: {{value: {{type: {value}}}}}}}");
    manifest("EventType", name, &format!("{{versions: [{{version: 1, schema: {schema}}}]}}"))
}

fn counting(step: i64) -> String {
    let n = format!("has(state.n) ? state.n + {step} : {step}");
    let spec = format!("{{type: readings, source: {{eventTypes: [sensor.reading]}}, fields: {{n: '{n}'}}}}");
    manifest("Projection", "readings", &spec)
}

fn manifest(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: cornjacket.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// Waits for what must hold soon after a manifest was written.
async fn served<F: Future<Output = Result<(), String>>>(what: &str, written: Instant, holds: impl FnMut() -> F) {
    promised(SERVED.saturating_sub(written.elapsed()), holds).await;
    eprintln!("{what} after {:?}", written.elapsed());
}

fn so(holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err("not so yet".to_owned()) }
}

async fn manifests_change_under_load(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let running = Running::start(&format!("resources-{kind:?}"), fresh_database().await, bus).await;
    let query = running.platform.query().ready().await;
    let pool = running.platform.database().pool().await;
    let world = World { running, query, pool };
    added(&world).await;
    edited(&world).await;
    broken(&world).await;
    removed(&world).await;
    let World { running, pool, .. } = world;
    let outcome = running.load.finish().await;
    assert!(outcome.refused.is_empty(), "no change refuses an event: {:?}", outcome.refused);
    verify(&pool, &outcome).await;
    eventually(SERVED, || counts_by(&pool, 2)).await;
}

/// An event type and two projections: one of it, and one of the events that come in all the time.
async fn added(world: &World) {
    let latest = "{type: cpu_state, source: {eventTypes: [cpu.load]}, latest: {}}";
    world.write("cpu.state.yaml", &manifest("Projection", "cpu-state", latest));
    world.write("readings.yaml", &counting(1));
    let written = world.write("cpu.yaml", &event_type("cpu.load", "integer"));
    served("a new event type", written, || async { so(world.event_type("cpu.load").await == 200) }).await;
    assert_eq!(world.post("cpu.load", json!({"value": "high"})).await.status, 400, "its schema is in force");
    assert_eq!(world.post("cpu.load", json!({"value": 7})).await.status, 202);
    served("a new projection", written, || async { so(world.state("cpu_state", "a").await == json!({"value": 7})) })
        .await;
    eventually(SERVED, || counts_by(&world.pool, 1)).await;
}

/// A schema that allows more, and a projection that folds otherwise.
async fn edited(world: &World) {
    let written = world.write("cpu.yaml", &event_type("cpu.load", "[integer, string]"));
    served("an edited event type", written, || async {
        so(world.post("cpu.load", json!({"value": "high"})).await.status == 202)
    })
    .await;
    let written = world.write("readings.yaml", &counting(2));
    served("an edited projection", written, || counts_by(&world.pool, 2)).await;
}

/// What cannot be read, and what can be read and makes no sense: the last good version stays, and `get` says why.
async fn broken(world: &World) {
    let whole = std::fs::read_to_string(world.file("sensors.yaml")).unwrap();
    let edits = [
        (whole.replace("kind: EventType", "kind: [EventType"), "InvalidManifest"),
        (whole.replace("type: integer", "type: sting"), "InvalidSchema"),
    ];
    for (edit, reason) in edits {
        let written = world.write("sensors.yaml", &edit);
        served(reason, written, || async {
            let told = world.get().await;
            let line = told.lines().find(|line| line.contains("sensor.reading") && line.contains(reason));
            so(line.is_some_and(|line| line.contains("still served")))
        })
        .await;
        assert_eq!(world.post("sensor.reading", json!({"value": "high"})).await.status, 400, "the schema is in force");
        world.running.load.more(100).await;
    }
    let written = world.write("sensors.yaml", &whole);
    served("a mended file", written, || async { so(!world.get().await.contains("still served")) }).await;
}

async fn removed(world: &World) {
    std::fs::remove_file(world.file("cpu.state.yaml")).unwrap();
    std::fs::remove_file(world.file("cpu.yaml")).unwrap();
    let written = Instant::now();
    served("a removed event type", written, || async { so(world.event_type("cpu.load").await == 404) }).await;
    served("a removed projection", written, || async {
        let status: String =
            sqlx::query_scalar("SELECT status FROM projection_progress WHERE projection_type = 'cpu_state'")
                .fetch_one(&world.pool)
                .await
                .map_err(|e| e.to_string())?;
        so(status == "removed")
    })
    .await;
    world.running.load.more(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_change_under_load_on_the_embedded_bus() {
    manifests_change_under_load(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_change_under_load_on_kafka() {
    manifests_change_under_load(Kind::Kafka).await;
}
