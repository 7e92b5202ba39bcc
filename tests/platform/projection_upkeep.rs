//! Around the rows of projections: history that retention took, and indexes on fields of the state as queries meet them.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{Bus, Launch, Process, eventually, http, shared_kafka};
use crate::projections::{COUNT, SOON, World, projection};

impl World {
    /// The status document of a projection; null before there is one.
    pub async fn status(&self, name: &str) -> Value {
        sqlx::query_scalar("SELECT status FROM resource_status WHERE kind = 'Projection' AND name = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .expect("an answer")
            .unwrap_or_default()
    }

    /// Status, reason and message of a condition of a projection.
    async fn condition(&self, name: &str, condition: &str) -> Option<(String, String, String)> {
        let status = self.status(name).await;
        let found = status["conditions"].as_array()?.iter().find(|c| c["type"] == condition)?.clone();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    /// Waits for a condition; gives its message.
    pub async fn until_condition(&self, name: &str, condition: &str, status: &str, reason: &str) -> String {
        eventually(SOON, || async {
            let is = self.condition(name, condition).await.ok_or("no such condition")?;
            if (is.0.as_str(), is.1.as_str()) == (status, reason) { Ok(is.2) } else { Err(format!("{is:?}")) }
        })
        .await
    }

    /// What retention does, ahead of time: everything stored until now goes.
    pub async fn forget_events(&self) {
        let partitions: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT tableoid::regclass::text FROM event_store WHERE tableoid <> 'event_store'::regclass",
        )
        .fetch_all(&self.pool)
        .await
        .expect("an answer");
        for partition in partitions {
            let sql = sqlx::AssertSqlSafe(format!("DROP TABLE {partition}"));
            sqlx::query(sql).execute(&self.pool).await.expect("dropped");
        }
    }

    /// Hash of the plan that a projection waits for, if it waits.
    pub async fn plan_hash(&self, name: &str) -> Option<String> {
        self.status(name).await["planHash"].as_str().map(str::to_owned)
    }

    /// A manifest with the approval of what a projection waits for.
    pub async fn approve(&self, name: &str, manifest: &str) -> String {
        let hash = self.plan_hash(name).await.expect("a plan waits");
        let annotated = format!("metadata: {{name: {name}, annotations: {{cornjacket.io/approve: \"{hash}\"}}}}");
        let plain = format!("metadata: {{name: {name}}}");
        assert!(manifest.contains(&plain), "{manifest}");
        manifest.replace(&plain, &annotated)
    }

    async fn get(&self, arguments: &[&str]) -> String {
        let launch = Launch::new("get", 0, arguments).env("EVENTHANDLER_DATABASE_URL", &self.platform.database().url);
        let output = Command::from(launch.command()).output().await.expect("it starts");
        String::from_utf8(output.stdout).expect("text")
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect("a number")
    }
}

async fn rows_made_of_half_a_history_say_so(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    // Ready needs one of every role.
    let _query = world.platform.query().ready().await;
    for value in 1..=3 {
        world.post("a", json!({"value": value})).await;
    }
    let whole = json!({"count": 3, "sum": 6, "last": 3, "ordered": true});
    world.until_state("sensor_history", "a", whole.clone()).await;
    // Neither has anything left to read.
    world.until_status("sensor_history", "live").await;
    world.until_status("sensor_state", "live").await;
    world.forget_events().await;
    world.post("a", json!({"value": 4})).await;
    world.until_state("sensor_state", "a", json!({"value": 4})).await;

    // A new one, and a changed one.
    world.declare("late.yaml", &projection("late", COUNT));
    world.until_state("late", "a", json!({"n": 1})).await;
    let from: String = sqlx::query_scalar(
        "SELECT to_char(min(ingested_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM event_store",
    )
    .fetch_one(&world.pool)
    .await
    .expect("a time");
    let message = world.until_condition("late", "Ready", "True", "HistoryTruncated").await;
    assert!(message.contains(&from), "{message} does not name {from}");
    world.until_condition("late", "ApprovalRequired", "False", "HistoryTruncated").await;
    world.until_condition("sensor-history", "Ready", "True", "Available").await;
    let table = world.get(&["get", "projections"]).await;
    let line = table.lines().find(|line| line.starts_with("late ")).expect("a line");
    assert!(line.contains("HistoryTruncated") && line.contains(&from), "{table}");
    let one: Value = serde_json::from_str(&world.get(&["get", "proj", "late", "-o", "json"]).await).expect("JSON");
    assert!(one["progress"]["historyFrom"].is_string(), "{one}");

    let changed = std::fs::read_to_string(world.platform.resources().join("sensors.yaml")).expect("our own file");
    let changed = changed.replace("    last: \"event.payload.value\"", "    last: \"event.payload.value + 0\"");
    world.declare("sensors.yaml", &changed);
    // Rows of the whole history would become rows of the rest of it: somebody has to want that.
    let message = world.until_condition("sensor-history", "ApprovalRequired", "True", "ApprovalRequired").await;
    assert!(message.contains("[destructive] replace the rows served") && message.contains(&from), "{message}");
    world.until_condition("sensor-history", "Ready", "False", "ApprovalRequired").await;
    let served = json!({"count": 4, "sum": 10, "last": 4, "ordered": true});
    world.until_state("sensor_history", "a", served).await;
    let approved = world.approve("sensor-history", &changed).await;
    world.declare("sensors.yaml", &approved);
    world.until_condition("sensor-history", "Ready", "True", "HistoryTruncated").await;
    world.until_state("sensor_history", "a", json!({"count": 1, "sum": 4, "last": 4, "ordered": false})).await;
    assert!(world.handle_log().contains("HistoryTruncated"), "{}", world.handle_log());

    // The whole of what is stored now is there for the next.
    world.until_condition("sensor-state", "Ready", "True", "Available").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_made_of_half_a_history_say_so_on_the_embedded_bus() {
    rows_made_of_half_a_history_say_so("truncated-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_made_of_half_a_history_say_so_on_kafka() {
    rows_made_of_half_a_history_say_so("truncated-kafka", Bus::Kafka(shared_kafka().await)).await;
}

pub const INDEXED: &str = "  source: {eventTypes: [sensor.reading]}\n  latest: {}\n  indexes: [{field: value}]\n";
pub const BUILT: &str = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'projections_state_%'";

pub async fn until_number(world: &World, sql: &'static str, wanted: i64) {
    eventually(SOON, || async {
        let is = world.number(sql).await;
        if is == wanted { Ok(()) } else { Err(format!("{sql}: {is}, not {wanted}")) }
    })
    .await;
}

/// Rows of every sort under one projection: numbers, texts short and too long for an index, objects, arrays, none.
async fn fill(world: &World) {
    sqlx::query(
        "INSERT INTO projections (projection_id, projection_type, aggregate_id, state, last_event_id,
                last_event_timestamp, shard, position)
         SELECT gen_random_uuid(), 'indexed', 'k' || n, CASE
                  WHEN n = 7 THEN jsonb_build_object('value', repeat('z', 20) || long.text)
                  WHEN n = 8 THEN jsonb_build_object('value', jsonb_build_object('value', 70))
                  WHEN n = 9 THEN jsonb_build_object('value', jsonb_build_array(70, long.text))
                  WHEN n = 10 THEN '{}'::jsonb
                  WHEN n % 2 = 0 THEN jsonb_build_object('value', 'text ' || n)
                  ELSE jsonb_build_object('value', n) END, gen_random_uuid(), now(), 0, n
           FROM generate_series(1, 20000) n,
                (SELECT string_agg(md5(i::text), '') AS text FROM generate_series(1, 500) i) long",
    )
    .execute(&world.pool)
    .await
    .expect("inserted");
    sqlx::query("ANALYZE projections").execute(&world.pool).await.expect("analysed");
}

async fn found(query: &Process, filters: &str) -> Vec<String> {
    let url = query.url(&format!("/api/v1/projections/indexed?limit=100&{filters}"));
    let answer = http::get(&http::client(), &url).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let rows = answer.body["projections"].as_array().expect("rows").clone();
    rows.iter().map(|row| row["aggregate_id"].as_str().expect("a key").to_owned()).collect()
}

const FILTERS: [&str; 9] = [
    "filter=value:eq:4711",
    "filter=value:eq:text%20500",
    "filter=value:gt:19990",
    "filter=value:lte:5",
    "filter=value:gte:zzz",
    "filter=value:lt:text%20101",
    "filter=value:gt:11&filter=value:lt:17",
    "filter=value:ne:4711&filter=value:lte:9",
    "filter=value:exists:false",
];

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_the_same_rows_by_an_index_on_their_field() {
    let world = World::start("indexed", Bus::Embedded).await;
    let query = world.platform.query().ready().await;
    let plain = INDEXED.replace("  indexes: [{field: value}]\n", "");
    world.declare("indexed.yaml", &projection("indexed", &plain));
    world.until_status("indexed", "live").await;
    fill(&world).await;
    let mut without = Vec::new();
    for filters in FILTERS {
        without.push(found(&query, filters).await);
    }

    world.declare("indexed.yaml", &projection("indexed", INDEXED));
    eventually(SOON, || async {
        let (status, _, message) = world.condition("indexed", "MigrationsApplied").await.ok_or("no condition")?;
        if (status.as_str(), message.as_str()) == ("True", "1 index(es) built") { Ok(()) } else { Err(message) }
    })
    .await;
    world.until_condition("indexed", "Ready", "True", "Available").await;
    let mut with = Vec::new();
    for filters in FILTERS {
        with.push(found(&query, filters).await);
    }
    assert_eq!(with, without);
    assert_eq!((with[0].as_slice(), with[2].len()), (["k4711".to_owned()].as_slice(), 5));
    // Every one of many equal questions uses it, not only the first few that PostgreSQL plans anew by itself.
    let scans = "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes WHERE indexrelname LIKE 'projections_state_%'";
    eventually(SOON, || async {
        let before = world.number(scans).await;
        for _ in 0..20 {
            found(&query, "filter=value:eq:4711").await;
        }
        let more = world.number(scans).await - before;
        if more >= 20 { Ok(()) } else { Err(format!("{more} scans of the index for 20 questions")) }
    })
    .await;

    // A value that no index could hold does not stop the projection.
    let long = (0..3000).map(|n: u32| (n * 7919).to_string()).collect::<Vec<_>>().concat();
    world.post_typed("thing.seen", "x", json!({"value": long})).await;
    world.declare("indexed.yaml", &projection("indexed", &INDEXED.replace("[sensor.reading]", "[thing.seen]")));
    world.until_state("indexed", "x", json!({"value": long})).await;

    world.declare("indexed.yaml", &projection("indexed", &plain));
    until_number(&world, BUILT, 0).await;
    let done = |step: &str| (step.to_owned(), "additive".to_owned(), "done".to_owned());
    eventually(SOON, || async {
        let steps: Vec<(String, String, String)> =
            sqlx::query_as("SELECT split_part(step, ' ', 1), class, state FROM migration_ledger ORDER BY id")
                .fetch_all(&world.pool)
                .await
                .map_err(|error| error.to_string())?;
        if steps == [done("create"), done("analyze"), done("drop")] { Ok(()) } else { Err(format!("{steps:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_built_is_said_and_tried_again_while_events_flow() {
    let world = World::start("index-fails", Bus::Embedded).await;
    // Ready needs one of every role.
    let _query = world.platform.query().ready().await;
    // The name that the index is to have.
    let name: String = sqlx::query_scalar(
        "SELECT 'projections_state_' || left(encode(sha256(convert_to('indexed', 'UTF8') || '\\x00'::bytea || convert_to('value', 'UTF8')), 'hex'), 16)",
    )
    .fetch_one(&world.pool)
    .await
    .expect("a name");
    let make = sqlx::AssertSqlSafe(format!("CREATE TABLE {name} (mine int)"));
    sqlx::query(make).execute(&world.pool).await.expect("created");
    world.declare("indexed.yaml", &projection("indexed", INDEXED));
    let message = world.until_condition("indexed", "Ready", "False", "MigrationFailed").await;
    assert!(message.contains("'value'") && message.contains(&name), "{message}");
    world.post("a", json!({"value": 1})).await;
    world.until_state("indexed", "a", json!({"value": 1})).await;

    let drop = sqlx::AssertSqlSafe(format!("DROP TABLE {name}"));
    sqlx::query(drop).execute(&world.pool).await.expect("dropped");
    world.until_condition("indexed", "Ready", "True", "Available").await;
    until_number(&world, BUILT, 1).await;
}
