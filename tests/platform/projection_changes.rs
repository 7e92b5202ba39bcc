//! What readers see while a changed projection is rebuilt: beside its rows, in their place, or not at all.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{Bus, Launch, Process, eventually, http, shared_kafka};
use crate::projections::{COUNT, SOON, World, projection};

/// Asks for a row by HTTP until it is stopped, and notes each `n` that was answered; `None`: there was no row.
struct Watch {
    seen: Arc<Mutex<BTreeSet<Option<i64>>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(url: String) -> Self {
        let (seen, stop) = (Arc::<Mutex<BTreeSet<_>>>::default(), CancellationToken::new());
        let (notes, token) = (Arc::clone(&seen), stop.clone());
        let task = tokio::spawn(async move {
            let client = http::client();
            while !token.is_cancelled() {
                let answer = http::get(&client, &url).await.expect("an answer");
                assert!([200, 404].contains(&answer.status), "{} {}", answer.status, answer.body);
                notes.lock().expect("no panic").insert(answer.body["state"]["n"].as_i64());
            }
        });
        Self { seen, stop, task }
    }

    async fn end(self) -> BTreeSet<Option<i64>> {
        self.stop.cancel();
        self.task.await.expect("every answer was one of a row");
        self.seen.lock().expect("no panic").clone()
    }
}

/// A projection with five events of `a`, changed to count in twos; what readers saw, and the hash of the new definition.
async fn change(world: &World, query: &Process, mode: &str) -> BTreeSet<Option<i64>> {
    let spec = format!("{COUNT}  rebuild: {mode}\n  migrationPolicy: {{destructive: Allow}}\n");
    world.declare("count.yaml", &projection("count", &spec));
    for value in 1..=5 {
        world.post("a", json!({"value": value})).await;
    }
    world.until_state("count", "a", json!({"n": 5})).await;
    let before = world.until_live("count", None).await;
    let url = query.url("/api/v1/projections/count/a");
    let is_served = || async { http::get(&http::client(), &url).await.is_ok_and(|answer| answer.status == 200) };
    eventually(SOON, is_served).await;
    let watch = Watch::start(url.clone());
    world.declare("count.yaml", &projection("count", &spec.replace("state.n + 1 : 1", "state.n + 2 : 2")));
    world.until_live("count", Some(&before)).await;
    watch.end().await
}

async fn in_place_empties_the_rows_and_never_keeps_them(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    let query = world.platform.query().ready().await;
    let seen = change(&world, &query, "InPlace").await;
    let allowed = BTreeSet::from([None, Some(5), Some(2), Some(4), Some(6), Some(8), Some(10)]);
    assert!(seen.is_subset(&allowed), "rows of no definition: {seen:?}");
    world.until_state("count", "a", json!({"n": 10})).await;
    world.post("a", json!({"value": 6})).await;
    world.until_state("count", "a", json!({"n": 12})).await;

    std::fs::remove_file(world.platform.resources().join("count.yaml")).expect("our own file");
    world.until_status("count", "removed").await;
    sqlx::raw_sql("DELETE FROM projections WHERE projection_type = 'count'; DELETE FROM projection_progress WHERE projection_type = 'count'")
        .execute(&world.pool)
        .await
        .expect("deleted");
    let never = format!("{COUNT}  rebuild: Never\n");
    world.declare("count.yaml", &projection("count", &never));
    world.until_state("count", "a", json!({"n": 6})).await;
    let before = world.until_live("count", None).await;
    let watch = Watch::start(query.url("/api/v1/projections/count/a"));
    world.declare("count.yaml", &projection("count", &never.replace("state.n + 1 : 1", "state.n + 2 : 2")));
    world.until_live("count", Some(&before)).await;
    assert_eq!(watch.end().await, BTreeSet::from([Some(6)]), "the rows stay, and nobody misses them");
    world.post("a", json!({"value": 7})).await;
    world.post("b", json!({"value": 1})).await;
    world.until_state("count", "a", json!({"n": 8})).await;
    world.until_state("count", "b", json!({"n": 2})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_empties_the_rows_and_never_keeps_them_on_the_embedded_bus() {
    in_place_empties_the_rows_and_never_keeps_them("modes-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_empties_the_rows_and_never_keeps_them_on_kafka() {
    in_place_empties_the_rows_and_never_keeps_them("modes-kafka", Bus::Kafka(shared_kafka().await)).await;
}

/// Another aggregate of the same shard.
fn neighbour(of: &str) -> String {
    let shard = cornjacket::event::shard_of(of);
    let mut names = (0..).map(|n| format!("late-{n}"));
    names.find(|name| cornjacket::event::shard_of(name) == shard).expect("64 shards")
}

async fn get(world: &World, arguments: &[&str]) -> String {
    let launch = Launch::new("get", 0, arguments).env("EVENTHANDLER_DATABASE_URL", &world.platform.database().url);
    let output = Command::from(launch.command()).output().await.expect("it starts");
    String::from_utf8(output.stdout).expect("text")
}

/// The gauge of the positions that a projection is behind.
async fn gauge(world: &World) -> Option<f64> {
    world.handle.metric("cornjacket_projection_behind{projection=\"count\"}").await
}

async fn post_many(world: &World, aggregate: &str, events: u32) {
    let event = json!({"event_type": "sensor.reading", "aggregate_id": aggregate, "payload": {"value": 1}});
    for _ in 0..events / 1000 {
        let batch = Value::Array(vec![event.clone(); 1000]);
        let answer = http::post(&http::client(), &world.ingest.url("/api/v1/events/batch"), &batch).await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
}

async fn a_rebuild_shows_how_far_it_is(name: &str, bus: Bus) {
    const EVENTS: u32 = 6000;
    let world = World::start(name, bus).await;
    let query = world.platform.query().ready().await;
    world.declare("count.yaml", &projection("count", COUNT));
    let late = neighbour("deep");
    post_many(&world, "deep", EVENTS).await;
    world.post(&late, json!({"value": 1})).await;
    world.until_state("count", "deep", json!({"n": EVENTS})).await;
    world.until_state("count", &late, json!({"n": 1})).await;
    let before = world.until_live("count", None).await;

    // The rebuild waits at the last row that it makes.
    let mut held = world.pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO projections_rebuild (projection_id, projection_type, aggregate_id, state, last_event_id,
                last_event_timestamp, shard, position) VALUES (gen_random_uuid(), 'count', $1, '{}', gen_random_uuid(), now(), 0, 1)",
    )
    .bind(&late)
    .execute(&mut *held)
    .await
    .unwrap();
    world.declare("count.yaml", &projection("count", &COUNT.replace("state.n + 1 : 1", "state.n + 2 : 2")));
    let types = eventually(SOON, || async {
        let answer = http::get(&http::client(), &query.url("/api/v1/projections")).await.map_err(|e| e.to_string())?;
        let types = answer.body["projection_types"].as_array().cloned().unwrap_or_default();
        let count = types.into_iter().find(|t| t["projection_type"] == "count").ok_or("not listed")?;
        if count["behind"].as_i64() > Some(0) { Ok(count) } else { Err(count.to_string()) }
    })
    .await;
    assert_eq!((&types["status"], &types["rebuilding"]), (&json!("catching_up"), &json!(true)));
    // Metric and table say the same once the rebuild waits.
    let behind = eventually(SOON, || async {
        let behind = gauge(&world).await.filter(|behind| *behind > 0.0).ok_or("the gauge shows nothing")?;
        let table = get(&world, &["get", "projections"]).await;
        let line = table.lines().find(|line| line.starts_with("count ")).unwrap_or_default();
        let same = line.contains(&format!("{behind} behind"));
        if same { Ok(behind) } else { Err(format!("the gauge is {behind}: {table}")) }
    })
    .await;
    assert!(behind < f64::from(EVENTS), "{behind}: the first steps are done");
    // The status says it in tenths.
    let percent = eventually(SOON, || async {
        let rebuild = world.status("count").await["rebuild"].clone();
        let percent = rebuild["percent"].as_i64().filter(|_| rebuild["state"] == "Beside");
        percent.filter(|percent| *percent > 0).ok_or(rebuild.to_string())
    })
    .await;
    assert!(percent < 100 && percent % 10 == 0, "{percent}");
    let served = http::get(&http::client(), &query.url("/api/v1/projections/count/deep")).await.unwrap();
    assert_eq!(served.body["state"], json!({"n": EVENTS}), "readers have the rows of before");

    held.rollback().await.unwrap();
    world.until_live("count", Some(&before)).await;
    world.until_state("count", "deep", json!({"n": 2 * EVENTS})).await;
    world.until_state("count", &late, json!({"n": 2})).await;
    eventually(SOON, || async { gauge(&world).await == Some(0.0) }).await;
    eventually(SOON, || async { world.status("count").await["rebuild"].is_null() }).await;
    eventually(SOON, || async {
        let table = get(&world, &["get", "projections"]).await;
        let line = table.lines().find(|line| line.starts_with("count ")).unwrap_or_default().to_owned();
        if line.contains("True") && !line.contains("behind") { Ok(()) } else { Err(table) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_shows_how_far_it_is_on_the_embedded_bus() {
    a_rebuild_shows_how_far_it_is("progress-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_shows_how_far_it_is_on_kafka() {
    a_rebuild_shows_how_far_it_is("progress-kafka", Bus::Kafka(shared_kafka().await)).await;
}

async fn others_go_on_while_rows_are_replaced(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    for projected in ["count", "other"] {
        world.declare(&format!("{projected}.yaml"), &projection(projected, COUNT));
    }
    for aggregate in ["a", "b"] {
        world.post(aggregate, json!({"value": 1})).await;
        world.until_state("count", aggregate, json!({"n": 1})).await;
        world.until_state("other", aggregate, json!({"n": 1})).await;
    }
    let before = world.until_live("count", None).await;

    // A row that is served cannot be replaced: the switch waits for it, as it would take long with many rows.
    let mut held = world.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM projections WHERE projection_type = 'count' AND aggregate_id = 'a' FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();
    world.declare("count.yaml", &projection("count", &COUNT.replace("state.n + 1 : 1", "state.n + 2 : 2")));
    let waits = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                                 WHERE NOT l.granted AND a.query LIKE '%INTO projections %' AND a.datname = current_database())";
    eventually(SOON, || async { sqlx::query_scalar::<_, bool>(waits).fetch_one(&world.pool).await.unwrap_or(false) })
        .await;
    // What is declared meanwhile waits for it, and holds up nobody either.
    world.declare("third.yaml", &projection("third", COUNT));
    let registered: i64 = eventually(SOON, || async {
        let all = "SELECT count(*) FROM registration HAVING bool_or(name = 'third')";
        sqlx::query_scalar(all)
            .fetch_optional(&world.pool)
            .await
            .map_err(|e| e.to_string())?
            .ok_or("not yet".to_owned())
    })
    .await;
    let loaded = format!("\"registrations\":{registered}");
    eventually(SOON, || async { world.handle_log().contains(&loaded) }).await;
    for n in 2..=4 {
        world.post("b", json!({"value": n})).await;
        world.until_state("other", "b", json!({"n": n})).await;
    }
    world.until_state("count", "b", json!({"n": 1})).await;
    held.rollback().await.unwrap();

    world.until_live("count", Some(&before)).await;
    world.until_state("third", "b", json!({"n": 4})).await;
    world.until_state("count", "a", json!({"n": 2})).await;
    world.until_state("count", "b", json!({"n": 8})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_go_on_while_rows_are_replaced_on_the_embedded_bus() {
    others_go_on_while_rows_are_replaced("replaced-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_go_on_while_rows_are_replaced_on_kafka() {
    others_go_on_while_rows_are_replaced("replaced-kafka", Bus::Kafka(shared_kafka().await)).await;
}
