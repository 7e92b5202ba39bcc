//! When the database refuses a row, is slow, or is away.

use std::sync::Arc;
use std::time::Duration;

use cornjacket::event::shard_of;
use cornjacket::ingest::Settings;
use cornjacket::lifecycle::Lifecycle;
use cornjacket::operate::Readiness;
use cornjacket::outbox::{self, Entry, OnCommit, Outbox, RefusedBy};
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{OwnPostgres, eventually, fresh_database, patient};
use crate::ingest_world::{World, migrate, reading};

fn entry(aggregate: &str, envelope: &str) -> Entry {
    Entry {
        event_id: Uuid::now_v7(),
        shard: shard_of(aggregate),
        envelope: envelope.to_owned(),
        key: None,
        again: false,
    }
}

#[tokio::test]
async fn a_row_that_the_database_refuses_never_fails_its_neighbours() {
    let database = fresh_database().await;
    let pool = database.pool().await;
    migrate(&pool).await;
    let (lifecycle, readiness) = (Lifecycle::new(), Readiness::default());
    let on_commit: OnCommit = Arc::new(|_| {});
    let gate = readiness.gate("database", "connecting");
    let settings = outbox::Settings::default();
    let outbox = Outbox::start(&lifecycle, &database.url.parse().unwrap(), &settings, gate, &on_commit);
    eventually(Duration::from_secs(10), || async { readiness.pending().is_empty() }).await;

    let bad = [3, 4, 77, 199];
    let entries = (0..200).map(|i| entry(&format!("a{i}"), if bad.contains(&i) { r#"{"a":"\u0000"}"# } else { "{}" }));
    let outcomes = outbox.accept(entries.collect()).await;
    for (i, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(_) => assert!(!bad.contains(&i), "{i} was accepted"),
            Err(RefusedBy::Data(reason)) => assert!(bad.contains(&i) && reason.contains("Unicode"), "{i}: {reason}"),
            Err(other) => panic!("{i}: {other}"),
        }
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 196);

    let whole = outbox.accept_all_or_nothing(vec![entry("a", "{}"), entry("b", "no json")]);
    let (whole, single) = tokio::join!(whole, outbox.accept(vec![entry("a", "{}")]));
    assert!(whole.iter().all(Result::is_err) && single[0].is_ok(), "{whole:?} {single:?}");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 197);
}

#[tokio::test]
async fn an_orderly_stop_writes_what_is_queued() {
    let database = fresh_database().await;
    let pool = database.pool().await;
    migrate(&pool).await;
    let (lifecycle, readiness) = (Lifecycle::new(), Readiness::default());
    let on_commit: OnCommit = Arc::new(|_| {});
    let gate = readiness.gate("database", "connecting");
    let settings = outbox::Settings::default();
    let outbox = Outbox::start(&lifecycle, &database.url.parse().unwrap(), &settings, gate, &on_commit);
    eventually(Duration::from_secs(10), || async { readiness.pending().is_empty() }).await;
    let accepting = async {
        let outcomes = outbox.accept((0..500).map(|i| entry(&format!("a{i}"), "{}")).collect()).await;
        drop(outbox);
        outcomes
    };
    lifecycle.stop();
    let (outcomes, stopped) = tokio::join!(accepting, lifecycle.run(Duration::from_secs(10)));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    stopped.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&pool).await.unwrap();
    assert_eq!(rows, 500);
}

#[tokio::test]
async fn writers_without_callers_are_no_failure() {
    let database = fresh_database().await;
    migrate(&database.pool().await).await;
    let (lifecycle, readiness) = (Lifecycle::new(), Readiness::default());
    let on_commit: OnCommit = Arc::new(|_| {});
    let gate = readiness.gate("database", "connecting");
    let settings = outbox::Settings { writers: 1, ..outbox::Settings::default() };
    let outbox = Outbox::start(&lifecycle, &database.url.parse().unwrap(), &settings, gate, &on_commit);
    eventually(Duration::from_secs(10), || async { readiness.pending().is_empty() }).await;
    drop(outbox);
    let writer_is_gone = || async {
        let sessions = "SELECT count(*) FROM pg_stat_activity
             WHERE application_name = 'cornjacket outbox writer' AND datname = current_database()";
        sqlx::query_scalar::<_, i64>(sessions).fetch_one(&database.pool().await).await.is_ok_and(|n| n == 0)
    };
    eventually(Duration::from_secs(10), writer_is_gone).await;
    assert!(!lifecycle.stopping().is_cancelled());
    lifecycle.stop();
    lifecycle.run(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_said_at_once_and_what_waits_is_stored() {
    let mut settings = Settings::default();
    settings.outbox.queue_events = 10;
    let world = World::start(settings).await;
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let posts = (0..30).map(|i| {
        let request = world.post_to("/api/v1/events").json(&reading(&format!("d{i}"), i));
        tokio::spawn(async move { request.send().await.unwrap() })
    });
    let (waiting, said): (Vec<_>, Vec<_>) = {
        let posts: Vec<_> = posts.collect();
        eventually(Duration::from_secs(5), || async { posts.iter().filter(|p| p.is_finished()).count() == 20 }).await;
        posts.into_iter().partition(|post| !post.is_finished())
    };
    for response in join_all(said).await {
        let response = response.unwrap();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "1");
        let body: serde_json::Value = response.json().await.unwrap();
        assert_eq!(body["type"], "urn:cornjacket:problem:queue-full");
    }
    lock.rollback().await.unwrap();
    for response in join_all(waiting).await {
        assert_eq!(response.unwrap().status(), 202);
    }
    assert_eq!(world.outbox_rows().await, 10);
    assert_eq!(world.post(&reading("a", 1)).await.0, 202, "the room was given back");
}

/// A batch, its first event broken: the status, `Retry-After`, the codes of the items, and the body.
async fn send_batch(world: &World, path: &str, events: usize, broken: bool) -> (u16, String, Vec<u64>, Value) {
    let mut batch: Vec<Value> = (0..events).map(|i| reading(&format!("d{i}"), 1)).collect();
    if broken {
        batch[0]["payload"]["value"] = json!("no number");
    }
    let response = world.post_to(path).json(&batch).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let pause = headers.get("retry-after").map_or("", |value| value.to_str().unwrap()).to_owned();
    let body: Value = response.json().await.unwrap();
    let codes = body["results"].as_array().unwrap().iter().map(|item| item["code"].as_u64().unwrap()).collect();
    (status, pause, codes, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_the_queue_has_no_room_for_is_429_as_a_whole_and_per_item() {
    let mut settings = Settings::default();
    settings.outbox.queue_events = 10;
    let world = World::start(settings).await;
    for path in ["/api/v1/events/batch", "/api/v1/events/batch?atomic=true"] {
        let (status, pause, codes, body) = send_batch(&world, path, 11, false).await;
        assert_eq!((status, pause.as_str(), codes), (429, "1", vec![429; 11]), "{path}: {body}");
        assert_eq!(
            (&body["accepted"], &body["type"]),
            (&json!(0), &json!("urn:cornjacket:problem:queue-full")),
            "{body}"
        );
        assert!(body["results"][10]["error"].as_str().unwrap().contains("waiting"), "{body}");
    }
    // What is broken is so in a full queue as well; the others may be taken later.
    let (status, pause, codes, body) = send_batch(&world, "/api/v1/events/batch", 12, true).await;
    assert_eq!((status, pause.as_str(), codes[0], &codes[1..]), (400, "1", 400, &[429; 11][..]), "{body}");
    assert_eq!(world.outbox_rows().await, 0);
    let (status, pause, _, body) = send_batch(&world, "/api/v1/events/batch", 10, true).await;
    assert_eq!((status, pause.as_str(), &body["accepted"]), (207, "", &json!(9)), "the room was given back: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_a_batch_is_503_as_a_whole_and_per_item_and_afterwards_202() {
    let mut postgres = tokio::task::block_in_place(|| OwnPostgres::start_new("ingest-batch-away"));
    let database = postgres.fresh_database().await;
    let world = World::start_on(&database, &database.url, Settings::default()).await;
    tokio::task::block_in_place(|| postgres.crash());
    for path in ["/api/v1/events/batch", "/api/v1/events/batch?atomic=true"] {
        let (status, pause, codes, body) = send_batch(&world, path, 5, false).await;
        assert_eq!((status, pause.as_str(), codes), (503, "2", vec![503; 5]), "{path}: {body}");
        assert_eq!(body["type"], "urn:cornjacket:problem:unavailable", "{body}");
    }
    let (_, pause, codes, body) = send_batch(&world, "/api/v1/events/batch", 3, true).await;
    assert_eq!((pause.as_str(), codes), ("2", vec![400, 503, 503]), "{body}");
    tokio::task::block_in_place(|| postgres.start());
    world.until_ready().await;
    let (status, pause, codes, body) = send_batch(&world, "/api/v1/events/batch?atomic=true", 5, false).await;
    assert_eq!((status, pause.as_str(), codes), (202, "", vec![202; 5]), "{body}");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&database.pool().await).await.unwrap();
    assert_eq!(rows, 5, "what was refused is not stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_the_answer_is_503_and_afterwards_202() {
    let mut postgres = OwnPostgres::start_new("ingest-away");
    let database = postgres.fresh_database().await;
    let world = World::start_on(&database, &database.url, Settings::default()).await;
    assert_eq!(world.post(&reading("a", 1)).await.0, 202);
    postgres.crash();
    let started = std::time::Instant::now();
    let response = world.post_to("/api/v1/events").json(&reading("a", 2)).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "2");
    assert!(started.elapsed() < patient(Duration::from_secs(4)), "answered after {:?}", started.elapsed());
    assert!(world.readiness.pending().contains_key("database"));
    eventually(Duration::from_secs(10), || async {
        let started = std::time::Instant::now();
        let (status, _) = world.post(&reading("a", 3)).await;
        status == 503 && started.elapsed() < patient(Duration::from_millis(200))
    })
    .await;
    postgres.start();
    world.until_ready().await;
    let (status, body) = world.post(&reading("a", 4)).await;
    assert_eq!(status, 202, "{body}");
    let values: Vec<String> = sqlx::query_scalar("SELECT event_payload #>> '{payload,value}' FROM outbox ORDER BY seq")
        .fetch_all(&database.pool().await)
        .await
        .unwrap();
    assert_eq!(values, ["1", "4"], "what was refused is not stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_absence_is_waited_for() {
    let mut postgres = OwnPostgres::start_new("ingest-restart");
    let database = postgres.fresh_database().await;
    let mut settings = Settings::default();
    settings.outbox.patience = Duration::from_secs(15);
    settings.outbox.answer_deadline = Duration::from_secs(20);
    let world = World::start_on(&database, &database.url, settings).await;
    postgres.stop();
    let request = world.post_to("/api/v1/events").json(&json!({"event_type": "t", "aggregate_id": "a", "payload": 1}));
    let post = tokio::spawn(async move { request.send().await.unwrap().status() });
    postgres.start();
    assert_eq!(post.await.unwrap(), 202);
}

#[tokio::test]
async fn a_clock_that_differs_from_the_databases_keeps_ingest_from_being_ready() {
    let database = fresh_database().await;
    let pool = database.pool().await;
    migrate(&pool).await;
    let (lifecycle, readiness) = (Lifecycle::new(), Readiness::default());
    let settings = outbox::Settings { max_clock_skew: Duration::ZERO, ..outbox::Settings::default() };
    // The database's clock an hour ahead: its function is shadowed by one in a schema that is searched first.
    sqlx::raw_sql(
        "CREATE SCHEMA ahead;
         CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql
         AS 'SELECT pg_catalog.clock_timestamp() + interval ''1 hour'''",
    )
    .execute(&pool)
    .await
    .unwrap();
    let url = format!("{}?options=-c%20search_path%3Dahead%2Cpg_catalog%2Cpublic", database.url);
    let on_commit: OnCommit = Arc::new(|_| {});
    let gate = readiness.gate("database", "connecting");
    let outbox = Outbox::start(&lifecycle, &url.parse().unwrap(), &settings, gate, &on_commit);
    eventually(Duration::from_secs(10), || async {
        readiness.pending().get("database").is_some_and(|why| why.contains("clock differs"))
    })
    .await;
    let outcomes = outbox.accept(vec![entry("a", "{}")]).await;
    assert!(matches!(&outcomes[0], Err(RefusedBy::Unavailable(why)) if why.contains("clock")), "{outcomes:?}");
}
