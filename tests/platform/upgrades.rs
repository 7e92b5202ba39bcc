//! From one release to the next: what an older one left is served, and one that runs lives on while the next migrates.
//!
//! `fixtures/older_release` was recorded from the first release of these tables, whose migrations were number 1 of each set:
//! its resources, and every row of every table as JSON. Its relay and handler were killed at the end, so that events wait at
//! every place on the way: nine are stored, of which the projections lack two, and two wait in the outbox.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use cornjacket::relay::partitions;
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::harness::{Bus, Platform, Process, eventually, fresh_database, http};

const SOON: Duration = Duration::from_mins(1);
const RESOURCES: &str = include_str!("fixtures/older_release/resources.yaml");
const ROWS: &str = include_str!("fixtures/older_release/rows.json");

/// Applies the migrations that the older release had: number 1 of each set.
async fn migrate_as_the_older_release(pool: &PgPool) {
    for set in ["shared", "ingestion", "eventhandler"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(set);
        let mut migrator = Migrator::new(directory).await.expect("the migrations");
        let first: Vec<_> = migrator.iter().filter(|migration| migration.version == 1).cloned().collect();
        migrator.migrations = Cow::Owned(first);
        migrator.dangerous_set_table_name(format!("cornjacket_migrations_{set}"));
        migrator.run(pool).await.expect("migrated");
    }
}

/// Every time in a value, those inside UUIDs v7 as well, moved by so much.
fn moved(value: &Value, by: TimeDelta) -> Value {
    match value {
        Value::Array(all) => all.iter().map(|value| moved(value, by)).collect(),
        Value::Object(all) => all.iter().map(|(key, value)| (key.clone(), moved(value, by))).collect(),
        Value::String(text) => Value::String(moved_text(text, by)),
        other => other.clone(),
    }
}

fn moved_text(text: &str, by: TimeDelta) -> String {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return (time.to_utc() + by).to_rfc3339_opts(SecondsFormat::Micros, true);
    }
    match Uuid::parse_str(text) {
        Ok(id) if id.get_version_num() == 7 => {
            let millis = i64::try_from(id.as_u128() >> 80).expect("48 bits") + by.num_milliseconds();
            let rest = id.as_u128() & ((1 << 80) - 1);
            let time = u128::from(u64::try_from(millis).expect("after 1970")) << 80;
            Uuid::from_u128(time | rest).to_string()
        }
        _ => text.to_owned(),
    }
}

/// The rows that the older release left a minute ago.
fn rows() -> Value {
    let recorded: Value = serde_json::from_str(ROWS).expect("JSON");
    let outbox = recorded["outbox"].as_array().expect("rows").iter();
    let last = outbox.filter_map(|row| row["created_at"].as_str()).max().expect("a row");
    let last = DateTime::parse_from_rfc3339(last).expect("a time").to_utc();
    // In whole milliseconds, which is what an id can be moved by.
    let by = TimeDelta::milliseconds((Utc::now() - TimeDelta::minutes(1) - last).num_milliseconds());
    moved(&recorded, by)
}

/// Puts rows into their tables.
async fn fill(pool: &PgPool, rows: &Value) {
    let mut connection = pool.acquire().await.expect("a connection");
    partitions::make_ahead(&mut connection, Utc::now()).await.expect("partitions");
    // Those that the migrations themselves put there.
    sqlx::query("TRUNCATE outbox_shard").execute(pool).await.expect("emptied");
    let mut tables: Vec<_> = rows.as_object().expect("tables").iter().collect();
    // Acknowledgements are of instances.
    tables.sort_by_key(|(table, _)| (*table == "registration_ack", *table));
    for (table, rows) in tables {
        let first = rows[0].as_object().expect("a row");
        // The numbers of transactions go on where those of the rows end: here that is another server.
        let columns = first.keys().filter(|column| *column != "changed_by").map(String::as_str).collect::<Vec<_>>();
        let columns = columns.join(", ");
        let sql = format!(
            "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE
             SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, $1)"
        );
        // Safe: made of our own fixture.
        sqlx::query(AssertSqlSafe(sql)).bind(rows).execute(pool).await.unwrap_or_else(|e| panic!("{table}: {e}"));
    }
    sqlx::query("SELECT setval(pg_get_serial_sequence('outbox', 'seq'), 1000)").execute(pool).await.expect("set");
}

/// Every role of this release.
struct Roles {
    ingest: Process,
    query: Process,
    others: [Process; 3],
}

impl Roles {
    async fn start(platform: &Platform) -> Self {
        let (ingest, relay, handle, query, controllers) = tokio::join!(
            platform.ingest().ready(),
            platform.relay("").ready(),
            platform.handle("").ready(),
            platform.query().ready(),
            platform.controllers().ready(),
        );
        Self { ingest, query, others: [relay, handle, controllers] }
    }

    async fn post(&self, aggregate: &str, payload: Value, key: Option<&str>) -> String {
        let event = json!({"event_type": "sensor.reading", "aggregate_id": aggregate, "payload": payload});
        let mut request = http::client().post(self.ingest.url("/api/v1/events")).json(&event);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 202);
        let body: Value = answer.json().await.expect("JSON");
        body["event_id"].as_str().expect("an id").to_owned()
    }

    async fn read(&self, path: &str) -> Value {
        let answer = http::get(&http::client(), &self.query.url(path)).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// Waits until a state is as it must be.
    async fn until_state(&self, projection: &str, key: &str, wanted: Value) {
        let (client, url) = (http::client(), self.query.url(&format!("/api/v1/projections/{projection}/{key}")));
        eventually(SOON, || async {
            let answer = http::get(&client, &url).await.map_err(|e| e.to_string())?;
            if answer.body["state"] == wanted { Ok(()) } else { Err(format!("{projection}/{key}: {}", answer.body)) }
        })
        .await;
    }

    /// Stops all of them in order; nothing they logged was an error.
    fn end(self) {
        for mut process in self.others.into_iter().chain([self.ingest, self.query]) {
            let log = process.log();
            assert!(!log.contains("ERROR"), "{log}");
            assert!(tokio::task::block_in_place(|| process.terminate()).success(), "{log}");
        }
    }
}

/// Waits until every resource is Ready; gives their generations.
async fn until_all_are_ready(pool: &PgPool, count: usize) -> Vec<i64> {
    eventually(SOON, || async {
        let all: Vec<(String, i64, Value)> =
            sqlx::query_as("SELECT name, generation, status FROM resource_status").fetch_all(pool).await.unwrap();
        let ready = |status: &Value| {
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        if all.len() == count && all.iter().all(|(_, _, status)| ready(status)) {
            Ok(all.iter().map(|(_, generation, _)| *generation).collect())
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await
}

/// The ids of an aggregate's events, as the query service tells them.
async fn events_of(roles: &Roles, aggregate: &str) -> Vec<String> {
    let page = roles.read(&format!("/api/v1/events?aggregate_id={aggregate}&limit=100")).await;
    let events = page["events"].as_array().unwrap_or_else(|| panic!("{page}"));
    events.iter().map(|event| event["event_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_release_left_is_served_and_nothing_of_it_is_lost() {
    let platform = Platform::new("older", fresh_database().await, Bus::Embedded);
    std::fs::write(platform.resources().join("sensors.yaml"), RESOURCES).expect("our own directory");
    let pool = platform.database().pool().await;
    migrate_as_the_older_release(&pool).await;
    let rows = rows();
    fill(&pool, &rows).await;

    let roles = Roles::start(&platform).await;
    // What waited in the outbox is stored, what was stored is folded, what was folded is folded once.
    let state = json!({"count": 9, "sum": 45, "last": 9, "ordered": true});
    roles.until_state("sensor_history", "thermometer", state).await;
    roles.until_state("sensor_state", "thermometer", json!({"value": 9})).await;
    roles.until_state("sensor_known", "thermometer", json!({"value": 9, "place": "hall"})).await;
    let of = |table: &str, column: &str| {
        let mut all = rows[table].as_array().expect("rows").clone();
        all.sort_by_key(|row| row["position"].as_i64());
        let ours = all.into_iter().map(|row| if table == "outbox" { row["event_payload"].clone() } else { row });
        let ours = ours.filter(|event| event["aggregate_id"] == "thermometer");
        ours.map(|event| event[column].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    let mut accepted = [of("event_store", "event_id"), of("outbox", "event_id")].concat();
    accepted.sort();
    assert_eq!(accepted.len(), 9);
    assert_eq!(events_of(&roles, "thermometer").await, accepted);

    // Its resources are the same to this release, and run.
    assert_eq!(until_all_are_ready(&pool, 6).await, [1; 6]);
    let letters: Vec<(Uuid, String)> =
        sqlx::query_as("SELECT dlq_id, subject FROM dlq").fetch_all(&pool).await.expect("the dead letters");
    assert_eq!(letters.len(), 1);
    assert_eq!((json!(letters[0].0), letters[0].1.as_str()), (rows["dlq"][0]["dlq_id"].clone(), "sensor_share"));

    // It goes on from there: keys are remembered, the order of an aggregate holds, positions have no gap.
    let again = roles.post("keyed", json!({"value": 1}), Some("order-1")).await;
    assert_eq!(json!(again), rows["idempotency"][0]["event_id"], "the answer of the older release");
    roles.post("thermometer", json!({"value": 10}), None).await;
    let state = json!({"count": 10, "sum": 55, "last": 10, "ordered": true});
    roles.until_state("sensor_history", "thermometer", state).await;
    let gaps: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT position - row_number() OVER (PARTITION BY shard ORDER BY position) AS gap
                                 FROM event_store) AS gaps WHERE gap <> 0",
    )
    .fetch_one(&pool)
    .await
    .expect("an answer");
    assert_eq!(gaps, 0);
    roles.end();
}

/// What a later release may do to the tables of this one: all that only adds.
async fn migrate_as_a_later_release(pool: &PgPool) {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
          WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
            AND relname NOT LIKE 'cornjacket_migrations%'",
    )
    .fetch_all(pool)
    .await
    .expect("the tables");
    assert!(tables.len() > 10, "{tables:?}");
    let mut all = vec!["CREATE TABLE later (id int PRIMARY KEY)".to_owned()];
    for table in &tables {
        all.push(format!(
            "ALTER TABLE {table} ADD COLUMN later_null text, ADD COLUMN later_default text NOT NULL DEFAULT 'none'"
        ));
        all.push(format!("CREATE INDEX later_{table} ON {table} (later_null)"));
    }
    for set in ["shared", "ingestion", "eventhandler"] {
        all.push(format!(
            "INSERT INTO cornjacket_migrations_{set} (version, description, success, checksum, execution_time)
             VALUES (99, 'of a later release', true, '\\x00', 0)"
        ));
    }
    for sql in all {
        // Safe: made of the names of our own tables.
        sqlx::query(AssertSqlSafe(sql.clone())).execute(pool).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_runs_lives_on_while_a_later_one_adds_to_its_tables() {
    let platform = Platform::new("later", fresh_database().await, Bus::Embedded);
    let pool = platform.database().pool().await;
    let roles = Roles::start(&platform).await;
    // Every statement was prepared, and the server may have a plan for it.
    for value in 1..=20 {
        roles.post("a", json!({"value": value}), Some(&format!("before-{value}"))).await;
    }
    let state = json!({"count": 20, "sum": 210, "last": 20, "ordered": true});
    roles.until_state("sensor_history", "a", state).await;

    migrate_as_a_later_release(&pool).await;

    for value in 21..=40 {
        roles.post("a", json!({"value": value}), Some(&format!("after-{value}"))).await;
    }
    let state = json!({"count": 40, "sum": 820, "last": 40, "ordered": true});
    roles.until_state("sensor_history", "a", state).await;
    assert_eq!(events_of(&roles, "a").await.len(), 40);
    // Controllers register, and every role loads and acknowledges.
    let manifest = "apiVersion: cornjacket.io/v1alpha1
kind: Projection
metadata: {name: sensor-count}
spec:
  type: sensor_count
  source: {eventTypes: [sensor.reading]}
  fields: {count: \"has(state.count) ? state.count + 1 : 1\"}
";
    std::fs::write(platform.resources().join("count.yaml"), manifest).expect("our own directory");
    roles.until_state("sensor_count", "a", json!({"count": 40})).await;
    until_all_are_ready(&pool, 5).await;
    roles.end();
}
