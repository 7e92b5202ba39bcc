//! Faults: a writer that is killed, two that share, a database that goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::Utc;
use serde_json::json;

use super::world::{SOON, World};
use crate::harness::{OwnPostgres, eventually};

/// Rows of which either side has what the other lacks, or a row twice.
const DIFFERENCE: &str = "SELECT count(*)::text FROM (
    (SELECT event_id, aggregate_id, timestamp, (payload->>'value')::float8 FROM event_store
     EXCEPT ALL SELECT event_id, aggregate_id, time, value FROM timeseries.exact)
    UNION ALL
    (SELECT event_id, aggregate_id, time, value FROM timeseries.exact
     EXCEPT ALL SELECT event_id, aggregate_id, timestamp, (payload->>'value')::float8 FROM event_store)) d";

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_the_events_exactly_once_though_writers_are_killed_under_load() {
    let mut world = World::start("killed").await;
    world.declare_plain("exact").await;
    let mut second = world.platform.handle("2").ready().await;
    let (done, posted) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let load = {
        let (done, posted, url) = (done.clone(), posted.clone(), world.ingest.url("/api/v1/events/batch"));
        tokio::spawn(async move {
            let client = crate::harness::http::client();
            while !done.load(Ordering::Relaxed) {
                let first = posted.load(Ordering::Relaxed);
                let event = |n: usize| {
                    let (device, now) = (format!("d{}", n % 40), super::world::shown(Utc::now()));
                    json!({"event_type": "meter.reading", "aggregate_id": device, "event_time": now, "payload": {"value": n}})
                };
                let events = serde_json::Value::Array((first..first + 100).map(event).collect());
                let answer = crate::harness::http::post(&client, &url, &events).await.expect("an answer");
                assert!(answer.status < 300, "{}", answer.body);
                posted.fetch_add(100, Ordering::Relaxed);
            }
        })
    };
    for round in 0..6 {
        let rows = world.count("exact").await;
        eventually(SOON, || async { world.count("exact").await >= rows + 500 }).await;
        let killed = if round % 2 == 0 { &mut world.handle } else { &mut second };
        tokio::task::block_in_place(|| killed.kill9());
        killed.start_again();
    }
    done.store(true, Ordering::Relaxed);
    load.await.expect("the load went through");
    world.until_rows("exact", posted.load(Ordering::Relaxed)).await;
    assert_eq!(world.text(DIFFERENCE.to_owned()).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_time_series_database_is_away_events_are_taken_and_their_rows_come_afterwards() {
    let mut own = tokio::task::block_in_place(|| OwnPostgres::start_new("series-away"));
    let database = own.fresh_database().await;
    let world = World::apart("away", &database).await;
    world.declare_plain("away").await;
    world.post_value("a", json!(1)).await;
    world.until_rows("away", 1).await;
    assert_eq!(world.get("/api/v1/timeseries/away").await.status, 200);
    tokio::task::block_in_place(|| own.crash());
    for value in 2..=10 {
        world.post_value("a", json!(value)).await;
    }
    let answer = world.get("/api/v1/timeseries/away").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    // Projections of other kinds do not notice.
    eventually(SOON, || async {
        let stored: i64 =
            sqlx::query_scalar("SELECT count(*) FROM event_store").fetch_one(&world.pool).await.unwrap_or(0);
        stored == 10
    })
    .await;
    tokio::task::block_in_place(|| own.start());
    world.until_rows("away", 10).await;
    eventually(SOON, || async { world.get("/api/v1/timeseries/away").await.status == 200 }).await;
    let here = world.text("SELECT to_regclass('event_store')::text".to_owned()).await;
    assert_eq!(here, "", "the event store is in another database");
}
