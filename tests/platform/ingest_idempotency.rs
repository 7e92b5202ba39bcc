//! A key is accepted once: also when requests race, and when the answer to a commit was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cornjacket::ingest::Settings;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{eventually, fresh_database, in_front_of};
use crate::ingest_world::{World, read, reading};

async fn post(world: &World, key: &str, event: &Value) -> (u16, Value) {
    read(world.post_to("/api/v1/events").header("idempotency-key", key).json(event)).await
}

#[tokio::test]
async fn the_same_event_again_gets_the_same_answer_and_another_is_refused() {
    let world = World::start(Settings::default()).await;
    let (status, first) = post(&world, "k1", &reading("a", 1)).await;
    assert_eq!(status, 202);
    assert_eq!(post(&world, "k1", &reading("a", 1)).await, (202, first));
    let (status, body) = post(&world, "k1", &reading("a", 2)).await;
    assert_eq!(status, 422);
    assert!(body["error"].as_str().unwrap().contains("k1"), "{body}");
    assert_eq!(post(&world, "k2", &reading("a", 1)).await.0, 202, "another key is another event");
    assert_eq!((world.outbox_rows().await, world.keys().await), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_requests_one_is_stored_and_all_get_its_id() {
    let world = World::start(Settings::default()).await;
    for round in 0..5 {
        let (key, event) = (format!("race-{round}"), reading("a", round));
        let answers = join_all((0..40).map(|_| post(&world, &key, &event))).await;
        assert!(answers.iter().all(|(status, body)| (*status, body) == (202, &answers[0].1)), "{answers:?}");
    }
    assert_eq!((world.outbox_rows().await, world.keys().await), (5, 5));
    // Aggregates of different writers: the key alone decides.
    let events: Vec<Value> = (0..40).map(|i| reading(&format!("aggregate-{i}"), 1)).collect();
    let answers = join_all(events.iter().map(|event| post(&world, "other-bodies", event))).await;
    let statuses: Vec<u16> = answers.into_iter().map(|(status, _)| status).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 202).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 422).count(), 39, "{statuses:?}");
}

#[tokio::test]
async fn an_expired_key_is_free_again() {
    let world = World::start(Settings::default()).await;
    post(&world, "k", &reading("a", 1)).await;
    sqlx::query("UPDATE idempotency SET expires_at = now()").execute(&world.pool).await.unwrap();
    assert_eq!(post(&world, "k", &reading("a", 2)).await.0, 202);
    assert_eq!((world.outbox_rows().await, world.keys().await), (2, 1));
}

#[tokio::test]
async fn a_batch_with_a_key_is_stored_once_and_an_all_or_nothing_one_not_in_part() {
    let world = World::start(Settings::default()).await;
    let mut events: Vec<Value> = (0..10).map(|i| reading(&format!("device-{i}"), i)).collect();
    let send =
        |events: &Vec<Value>, path: &str| read(world.post_to(path).header("idempotency-key", "batch").json(events));
    let first = send(&events, "/api/v1/events/batch").await;
    assert_eq!(first.0, 202);
    assert_eq!(send(&events, "/api/v1/events/batch").await, first);
    assert_eq!(send(&events, "/api/v1/events/batch?atomic=true").await, first);
    events.push(reading("new", 1));
    events[3]["payload"]["value"] = json!(99);
    let (status, body) = send(&events, "/api/v1/events/batch?atomic=true").await;
    assert_eq!((status, &body["accepted"]), (422, &json!(0)), "{body}");
    assert_eq!((&body["results"][3]["code"], &body["results"][10]["code"]), (&json!(422), &json!(424)), "{body}");
    assert_eq!((world.outbox_rows().await, world.keys().await), (10, 10));
}

/// A way to the database that can lose the answer to what was just committed, with the connection.
struct LossyProxy {
    lose_next: Arc<AtomicBool>,
    /// Answers to other statements pass: what is lost is the first with one of these in it.
    after: &'static [&'static [u8]],
}

/// The server answers an insert after its commit: `INSERT 0 1` and ready for the next statement.
const INSERTED: &[&[u8]] = &[b"INSERT 0", b"SELECT 1"];
const COMMITTED: &[&[u8]] = &[b"COMMIT\0"];

impl LossyProxy {
    /// A world whose database is behind it.
    async fn world(after: &'static [&'static [u8]]) -> (World, Self) {
        let database = fresh_database().await;
        let lose_next = Arc::new(AtomicBool::new(false));
        let lose = Arc::clone(&lose_next);
        let url = in_front_of(&database, move |client, server| relay(client, server, Arc::clone(&lose), after)).await;
        (World::start_on(&database, &url, Settings::default()).await, Self { lose_next, after })
    }

    fn lose_next(&self) {
        self.lose_next.store(true, Ordering::SeqCst);
    }

    fn assert_lost(&self) {
        assert!(!self.lose_next.load(Ordering::SeqCst), "no answer with one of {:?} was lost", self.after);
    }
}

async fn relay(client: TcpStream, server: TcpStream, lose: Arc<AtomicBool>, after: &'static [&'static [u8]]) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut answer = vec![0_u8; 64 << 10];
    while let Ok(length @ 1..) = from_server.read(&mut answer).await {
        let said = |tag: &&[u8]| answer[..length].windows(tag.len()).any(|w| w == *tag);
        if after.iter().any(said) && lose.swap(false, Ordering::SeqCst) {
            break;
        }
        if to_client.write_all(&answer[..length]).await.is_err() {
            break;
        }
    }
    up.abort();
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_neither_loses_nor_repeats_the_event() {
    let (world, proxy) = LossyProxy::world(INSERTED).await;
    for key in [None, Some("k")] {
        // The statement is prepared first, so that the answer lost is that of its run.
        world.post(&reading("a", 0)).await;
        if let Some(key) = key {
            post(&world, &format!("{key}-before"), &reading("a", 0)).await;
        }
        let before = world.outbox_rows().await;
        proxy.lose_next();
        let mut request = world.post_to("/api/v1/events").json(&reading("a", 1));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let (status, body) = read(request).await;
        assert_eq!(status, 202, "{body}");
        proxy.assert_lost();
        assert_eq!(world.outbox_rows().await, before + 1);
        let stored: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM outbox WHERE outbox_id = $1::text::uuid)")
            .bind(body["event_id"].as_str())
            .fetch_one(&world.pool)
            .await
            .unwrap();
        assert!(stored, "{body}");
    }
}

/// An all-or-nothing batch with keys is a transaction of several statements, one without is a single statement.
async fn an_all_or_nothing_batch_survives_a_lost_answer(after: &'static [&'static [u8]], key: Option<&str>) {
    let (world, proxy) = LossyProxy::world(after).await;
    let batch = |first: i64| (0..12).map(|i| reading(&format!("device-{i}"), first + i)).collect::<Vec<_>>();
    let send = |events: Vec<Value>, key: Option<String>| {
        let request = world.post_to("/api/v1/events/batch?atomic=true").json(&events);
        read(match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        })
    };
    // The statements are prepared first, so that the answer lost is that of their run.
    let (status, body) = send(batch(0), key.map(|key| format!("{key}-before"))).await;
    assert_eq!(status, 202, "{body}");
    proxy.lose_next();
    let (status, body) = send(batch(100), key.map(str::to_owned)).await;
    proxy.assert_lost();
    assert_eq!((status, &body["accepted"]), (202, &json!(12)), "{body}");
    let mut told: Vec<&str> =
        body["results"].as_array().unwrap().iter().map(|r| r["event_id"].as_str().unwrap()).collect();
    told.sort_unstable();
    let stored: Vec<String> = sqlx::query_scalar(
        "SELECT outbox_id::text FROM outbox WHERE (event_payload #>> '{payload,value}')::int >= 100 ORDER BY 1",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert_eq!(stored, told, "each once, under the id that was answered");
    if let Some(key) = key {
        assert_eq!(
            send(batch(100), Some(key.to_owned())).await,
            (status, body.clone()),
            "asked again, answered as before"
        );
        assert_eq!((world.outbox_rows().await, world.keys().await), (24, 24));
    }
}

#[tokio::test]
async fn a_lost_answer_neither_loses_nor_repeats_an_all_or_nothing_batch() {
    an_all_or_nothing_batch_survives_a_lost_answer(INSERTED, None).await;
}

#[tokio::test]
async fn a_lost_answer_neither_loses_nor_repeats_an_all_or_nothing_batch_with_a_key() {
    an_all_or_nothing_batch_survives_a_lost_answer(COMMITTED, Some("k")).await;
}

/// Lost before the commit: nothing is stored yet, and all is written again.
#[tokio::test]
async fn a_connection_lost_within_an_all_or_nothing_batch_with_a_key_stores_it_once() {
    an_all_or_nothing_batch_survives_a_lost_answer(INSERTED, Some("k")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_lose_and_repeat_nothing() {
    let world = World::start(Settings::default()).await;
    let killing = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'cornjacket outbox writer' AND datname = current_database()",
            )
            .execute(&world.pool)
            .await
            .unwrap();
        }
    };
    let posting = join_all((0..8).map(|client| {
        let world = &world;
        async move {
            let mut accepted = Vec::new();
            for i in 0..60 {
                let event = reading(&format!("c{client}"), i);
                let key = format!("{client}-{i}");
                accepted.push(
                    eventually(Duration::from_secs(20), || async {
                        let (status, body) = post(world, &key, &event).await;
                        (status == 202).then(|| body["event_id"].as_str().unwrap().to_owned())
                    })
                    .await,
                );
            }
            accepted
        }
    }));
    let (accepted, ()) = tokio::join!(posting, killing);
    let mut accepted: Vec<String> = accepted.into_iter().flatten().collect();
    let mut stored: Vec<String> =
        sqlx::query_scalar("SELECT outbox_id::text FROM outbox").fetch_all(&world.pool).await.unwrap();
    accepted.sort();
    stored.sort();
    assert_eq!(accepted, stored, "each accepted event once, and nothing else");
}
