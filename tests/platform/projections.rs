//! Projections over their life: new, changed, halted, removed; dead letters; rows fed by several shards.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::harness::{Bus, Platform, Process, eventually, fresh_database, http, shared_kafka};

pub const SOON: Duration = Duration::from_mins(1);

/// A platform whose every role runs, and what its tests ask.
pub struct World {
    pub platform: Platform,
    pub pool: PgPool,
    pub ingest: Process,
    pub handle: Process,
    _others: Vec<Process>,
}

impl World {
    pub async fn start(name: &str, bus: Bus) -> Self {
        Self::on(Platform::new(name, fresh_database().await, bus)).await
    }

    pub async fn on(platform: Platform) -> Self {
        let controllers = platform.controllers().ready().await;
        let (ingest, relay, handle) =
            tokio::join!(platform.ingest().ready(), platform.relay("").ready(), platform.handle("").ready());
        let pool = platform.database().pool().await;
        Self { platform, pool, ingest, handle, _others: vec![controllers, relay] }
    }

    pub fn handle_log(&self) -> String {
        self.handle.log()
    }

    pub async fn post(&self, aggregate: &str, payload: Value) {
        self.post_typed("sensor.reading", aggregate, payload).await;
    }

    pub async fn post_typed(&self, event_type: &str, aggregate: &str, payload: Value) {
        let event = json!({"event_type": event_type, "aggregate_id": aggregate, "payload": payload});
        let answer = http::post(&http::client(), &self.ingest.url("/api/v1/events"), &event).await.expect("an answer");
        assert_eq!(answer.status, 202, "{}", answer.body);
    }

    pub fn declare(&self, file: &str, manifest: &str) {
        write(self.platform.resources(), file, manifest);
    }

    async fn state(&self, projection: &str, key: &str) -> Option<Value> {
        sqlx::query_scalar("SELECT state FROM projections WHERE projection_type = $1 AND aggregate_id = $2")
            .bind(projection)
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .expect("an answer")
    }

    pub async fn until_state(&self, projection: &str, key: &str, wanted: Value) {
        eventually(SOON, || async {
            let state = self.state(projection, key).await;
            if state.as_ref() == Some(&wanted) { Ok(()) } else { Err(format!("{projection}/{key} is {state:?}")) }
        })
        .await;
    }

    /// Status and message of a projection.
    async fn progress(&self, projection: &str) -> Option<(String, Option<String>)> {
        sqlx::query_as("SELECT status, message FROM projection_progress WHERE projection_type = $1")
            .bind(projection)
            .fetch_optional(&self.pool)
            .await
            .expect("an answer")
    }

    /// Waits until a projection is served as it is registered (after a change: by another definition than `before`);
    /// gives the hash of the definition.
    pub async fn until_live(&self, projection: &str, before: Option<&str>) -> String {
        eventually(SOON, || async {
            let row: Option<(Option<String>, String, bool)> =
                sqlx::query_as("SELECT live_hash, status, beside FROM projection_progress WHERE projection_type = $1")
                    .bind(projection)
                    .fetch_optional(&self.pool)
                    .await
                    .expect("an answer");
            match row {
                Some((Some(hash), status, false)) if status == "live" && before != Some(hash.as_str()) => Ok(hash),
                other => Err(format!("{projection} is {other:?}")),
            }
        })
        .await
    }

    pub async fn until_status(&self, projection: &str, wanted: &str) -> Option<String> {
        eventually(SOON, || async {
            match self.progress(projection).await {
                Some((status, message)) if status == wanted => Ok(message),
                other => Err(format!("{projection} is {other:?}")),
            }
        })
        .await
    }
}

fn write(directory: &Path, file: &str, manifest: &str) {
    std::fs::write(directory.join(file), manifest).expect("our own directory");
}

pub fn projection(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cornjacket.io/v1alpha1\nkind: Projection\nmetadata: {{name: {name}}}\nspec:\n  type: {name}\n{spec}"
    )
}

pub const COUNT: &str =
    "  source: {eventTypes: [sensor.reading]}\n  fields:\n    n: \"has(state.n) ? state.n + 1 : 1\"\n";

async fn a_changed_projection_is_rebuilt_beside_the_live_one(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    world.declare("count.yaml", &projection("count", COUNT));
    for value in 1..=5 {
        world.post("a", json!({"value": value})).await;
    }
    world.until_state("count", "a", json!({"n": 5})).await;
    let id: uuid::Uuid = row_id(&world.pool).await;

    // Readers never see a row of neither definition, whatever they ask while it is swapped.
    let (pool, stop) = (world.pool.clone(), tokio_util::sync::CancellationToken::new());
    let watching = tokio::spawn(watch(pool, stop.clone()));
    let doubled = COUNT.replace("state.n + 1 : 1", "state.n + 2 : 2");
    world.declare("count.yaml", &projection("count", &doubled));
    world.until_state("count", "a", json!({"n": 10})).await;
    stop.cancel();
    watching.await.expect("only whole rows were seen");
    world.post("a", json!({"value": 6})).await;
    world.until_state("count", "a", json!({"n": 12})).await;
    assert_eq!(row_id(&world.pool).await, id, "a key keeps its projection id over a rebuild");
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM projections_rebuild").fetch_one(&world.pool).await.expect("an answer");
    assert_eq!(left, 0);
}

async fn row_id(pool: &PgPool) -> uuid::Uuid {
    sqlx::query_scalar("SELECT projection_id FROM projections WHERE projection_type = 'count' AND aggregate_id = 'a'")
        .fetch_one(pool)
        .await
        .expect("a row")
}

async fn watch(pool: PgPool, stop: tokio_util::sync::CancellationToken) {
    while !stop.is_cancelled() {
        let state: Option<Value> =
            sqlx::query_scalar("SELECT state FROM projections WHERE projection_type = 'count' AND aggregate_id = 'a'")
                .fetch_optional(&pool)
                .await
                .expect("an answer");
        let n = state.expect("the row is never away")["n"].as_i64().expect("a number");
        assert!(n == 5 || n == 10, "half a rebuild was seen: {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_projection_is_rebuilt_beside_the_live_one_on_the_embedded_bus() {
    a_changed_projection_is_rebuilt_beside_the_live_one("rebuild-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_projection_is_rebuilt_beside_the_live_one_on_kafka() {
    a_changed_projection_is_rebuilt_beside_the_live_one("rebuild-kafka", Bus::Kafka(shared_kafka().await)).await;
}

async fn a_new_projection_reads_what_was_before_it_or_only_what_comes_after(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    for value in 1..=3 {
        world.post("a", json!({"value": value})).await;
    }
    world.until_state("sensor_history", "a", json!({"count": 3, "sum": 6, "last": 3, "ordered": true})).await;
    world.declare("early.yaml", &projection("early", COUNT));
    world.declare("late.yaml", &projection("late", &format!("{COUNT}  startFrom: Latest\n")));
    world.until_status("late", "live").await;
    world.until_state("early", "a", json!({"n": 3})).await;
    world.post("a", json!({"value": 4})).await;
    world.until_state("early", "a", json!({"n": 4})).await;
    world.until_state("late", "a", json!({"n": 1})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_projection_reads_what_was_before_it_or_only_what_comes_after_on_the_embedded_bus() {
    a_new_projection_reads_what_was_before_it_or_only_what_comes_after("start-from-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_projection_reads_what_was_before_it_or_only_what_comes_after_on_kafka() {
    a_new_projection_reads_what_was_before_it_or_only_what_comes_after(
        "start-from-kafka",
        Bus::Kafka(shared_kafka().await),
    )
    .await;
}

/// An event that a projection cannot fold: its schema allows it, the expression does not.
const PICKY: &str = "  source: {eventTypes: [thing.seen]}\n  fields:\n    sum: \"(has(state.sum) ? state.sum : 0) + event.payload.v\"\n";

async fn a_poison_event_becomes_a_dead_letter_and_the_stream_goes_on(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    world.declare("picky.yaml", &projection("picky", PICKY));
    world.until_status("picky", "live").await;
    for payload in [json!({"v": 1}), json!({"v": "poison"}), json!({"v": 3})] {
        world.post_typed("thing.seen", "a", payload).await;
    }
    world.post_typed("thing.seen", "b", json!({"v": 5})).await;
    world.until_state("picky", "b", json!({"sum": 5})).await;
    world.until_state("picky", "a", json!({"sum": 4})).await;
    let letters: Vec<(String, String, i32, String, Value)> = sqlx::query_as(
        "SELECT consumer, subject, retry_count, error_message, event_payload->'payload' FROM dlq WHERE status = 'pending'",
    )
    .fetch_all(&world.pool)
    .await
    .expect("an answer");
    let [(consumer, subject, retries, message, payload)] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((consumer.as_str(), subject.as_str(), *retries), ("event-handler", "picky", 3));
    assert!(message.contains("fields.sum"), "{message}");
    assert_eq!(payload, &json!({"v": "poison"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_becomes_a_dead_letter_and_the_stream_goes_on_on_the_embedded_bus() {
    a_poison_event_becomes_a_dead_letter_and_the_stream_goes_on("poison-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_becomes_a_dead_letter_and_the_stream_goes_on_on_kafka() {
    a_poison_event_becomes_a_dead_letter_and_the_stream_goes_on("poison-kafka", Bus::Kafka(shared_kafka().await)).await;
}

async fn a_halting_projection_stops_at_the_event_and_goes_on_when_it_is_mended(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    world.declare("picky.yaml", &projection("picky", &format!("{PICKY}  onError: Halt\n")));
    world.until_status("picky", "live").await;
    for payload in [json!({"v": 1}), json!({"v": "poison", "skip": true}), json!({"v": 3})] {
        world.post_typed("thing.seen", "a", payload).await;
    }
    let message = world.until_status("picky", "halted").await.expect("it says why");
    assert!(message.contains("fields.sum"), "{message}");
    world.post("other", json!({"value": 1})).await;
    world.until_state("sensor_state", "other", json!({"value": 1})).await;
    let mended = PICKY.replace("event.payload.v\"", "(has(event.payload.skip) ? 100 : event.payload.v)\"");
    world.declare("picky.yaml", &projection("picky", &format!("{mended}  onError: Halt\n")));
    world.until_state("picky", "a", json!({"sum": 104})).await;
    let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dlq").fetch_one(&world.pool).await.expect("an answer");
    assert_eq!(letters, 0, "nothing was given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halting_projection_stops_at_the_event_and_goes_on_when_it_is_mended_on_the_embedded_bus() {
    a_halting_projection_stops_at_the_event_and_goes_on_when_it_is_mended("halt-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halting_projection_stops_at_the_event_and_goes_on_when_it_is_mended_on_kafka() {
    a_halting_projection_stops_at_the_event_and_goes_on_when_it_is_mended(
        "halt-kafka",
        Bus::Kafka(shared_kafka().await),
    )
    .await;
}

async fn one_row_fed_by_many_shards_and_two_handlers_counts_every_event_once(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    let spec = format!("{COUNT}  key: \"'all'\"\n");
    world.declare("total.yaml", &projection("total", &spec));
    eventually(SOON, || async { world.progress("total").await }).await;
    let _second = world.platform.handle("second").ready().await;
    for round in 0..10 {
        let posts = (0..20).map(|device| world.post_owned(format!("device-{device}"), round));
        futures::future::join_all(posts).await;
    }
    world.until_state("total", "all", json!({"n": 200})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_fed_by_many_shards_and_two_handlers_counts_every_event_once_on_the_embedded_bus() {
    one_row_fed_by_many_shards_and_two_handlers_counts_every_event_once("own-key-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_fed_by_many_shards_and_two_handlers_counts_every_event_once_on_kafka() {
    let bus = Bus::Kafka(shared_kafka().await);
    one_row_fed_by_many_shards_and_two_handlers_counts_every_event_once("own-key-kafka", bus).await;
}

impl World {
    async fn post_owned(&self, aggregate: String, value: i32) {
        self.post(&aggregate, json!({"value": value})).await;
    }
}

/// The handler starts while registrations are still being loaded: what it served goes on being served.
async fn a_restart_of_the_handler_takes_no_projection_from_its_rows(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    world.post("a", json!({"value": 1})).await;
    world.until_state("sensor_history", "a", json!({"count": 1, "sum": 1, "last": 1, "ordered": true})).await;
    let again = world.platform.handle("again").ready().await;
    world.post("a", json!({"value": 2})).await;
    world.until_state("sensor_history", "a", json!({"count": 2, "sum": 3, "last": 2, "ordered": true})).await;
    assert!(!again.log().contains("removed: its rows stay"), "{}", again.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_handler_takes_no_projection_from_its_rows_on_the_embedded_bus() {
    a_restart_of_the_handler_takes_no_projection_from_its_rows("restart-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_handler_takes_no_projection_from_its_rows_on_kafka() {
    a_restart_of_the_handler_takes_no_projection_from_its_rows("restart-kafka", Bus::Kafka(shared_kafka().await)).await;
}

async fn a_removed_projection_keeps_its_rows_and_catches_up_when_it_is_back(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    world.declare("count.yaml", &projection("count", COUNT));
    world.post("a", json!({"value": 1})).await;
    world.until_state("count", "a", json!({"n": 1})).await;
    std::fs::remove_file(world.platform.resources().join("count.yaml")).expect("our own file");
    world.until_status("count", "removed").await;
    world.post("a", json!({"value": 2})).await;
    world.until_state("sensor_state", "a", json!({"value": 2})).await;
    assert_eq!(world.state("count", "a").await, Some(json!({"n": 1})));
    world.declare("count.yaml", &projection("count", COUNT));
    world.until_state("count", "a", json!({"n": 2})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_projection_keeps_its_rows_and_catches_up_when_it_is_back_on_the_embedded_bus() {
    a_removed_projection_keeps_its_rows_and_catches_up_when_it_is_back("removed-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_projection_keeps_its_rows_and_catches_up_when_it_is_back_on_kafka() {
    a_removed_projection_keeps_its_rows_and_catches_up_when_it_is_back(
        "removed-kafka",
        Bus::Kafka(shared_kafka().await),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_bus_loses_and_repeats_nothing() {
    let database = fresh_database().await;
    let brokers = shared_kafka().await;
    let mut posted = 0;
    let embedded = Platform::new("bus-change", database.clone(), Bus::Embedded);
    let kafka = embedded.on(Bus::Kafka(brokers));
    for platform in [&embedded, &kafka, &embedded] {
        let controllers = platform.controllers().ready().await;
        let (ingest, relay, handle) =
            tokio::join!(platform.ingest().ready(), platform.relay("").ready(), platform.handle("").ready());
        for _ in 0..20 {
            posted += 1;
            let event = json!({"event_type": "sensor.reading", "aggregate_id": "a", "payload": {"value": posted}});
            let url = ingest.url("/api/v1/events");
            let answer = http::post(&http::client(), &url, &event).await.expect("an answer");
            assert_eq!(answer.status, 202);
        }
        let wanted = json!({"count": posted, "sum": posted * (posted + 1) / 2, "last": posted, "ordered": true});
        let pool = database.pool().await;
        eventually(SOON, || async {
            let state: Option<Value> = sqlx::query_scalar(
                "SELECT state FROM projections WHERE projection_type = 'sensor_history' AND aggregate_id = 'a'",
            )
            .fetch_optional(&pool)
            .await
            .expect("an answer");
            if state.as_ref() == Some(&wanted) { Ok(()) } else { Err(format!("{state:?} is not {wanted}")) }
        })
        .await;
        for mut process in [handle, relay, ingest, controllers] {
            assert!(process.terminate().success(), "{}", process.log());
        }
    }
}
