//! Processes that are killed, and servers that go away, while deliveries are made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::World;
use crate::harness::{Answer, Bus, OwnPostgres, Platform, Receiver, eventually, shared_kafka};

const LONG: Duration = Duration::from_mins(2);
const AGGREGATES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
const EACH: i64 = 200;

/// Every event was delivered, under one id however often, and in the order of its aggregate.
fn is_whole(receiver: &Receiver, path: &str) -> Result<(), String> {
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut values: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for request in receiver.requests_to(path) {
        let event: Value = request.json();
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        ids.entry(text("event_id")).or_default().insert(request.header("webhook-id").to_owned());
        let seen = values.entry(text("aggregate_id")).or_default();
        let value = event["payload"]["value"].as_i64().unwrap_or_default();
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    if let Some((event, ids)) = ids.iter().find(|(_, ids)| ids.len() > 1) {
        return Err(format!("the event {event} came as {ids:?}"));
    }
    for (aggregate, values) in &values {
        if *values != (1..=EACH).collect::<Vec<_>>() {
            let missing = (1..=EACH).filter(|value| !values.contains(value)).count();
            return Err(format!("{aggregate}: {missing} are missing, or out of order: {values:?}"));
        }
    }
    if values.len() == AGGREGATES.len() { Ok(()) } else { Err(format!("of {} aggregates only", values.len())) }
}

async fn killed_ten_times_under_load_nothing_is_lost(name: &str, bus: Bus) {
    let world = World::on(name, bus, Receiver::start().await).await;
    let mut act = world.launch("").ready().await;
    // Long enough that a kill always meets some.
    world.receiver.script("/hook", [Answer::default().after(Duration::from_millis(15))]);
    world.declare("tell", "/hook", "ordering: PerAggregate").await;
    let (sent, kills) = tokio::join!(world.send_many(&AGGREGATES, EACH), async {
        for kill in 0..10 {
            let before = world.receiver.count("/hook");
            // Some way on, wherever that is.
            eventually(LONG, || async { world.receiver.count("/hook") > before + 20 + kill * 7 }).await;
            act.kill9();
            act.start_again();
            act.until_ready(LONG).await;
        }
    });
    let ((), ()) = (sent, kills);
    let all = i64::try_from(AGGREGATES.len()).unwrap() * EACH;
    world.until_within(LONG, "tell", "delivered", all).await;
    is_whole(&world.receiver, "/hook").unwrap();
    assert!(world.receiver.count("/hook") > usize::try_from(all).unwrap(), "no kill met a delivery under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_ten_times_under_load_nothing_is_lost_on_the_embedded_bus() {
    killed_ten_times_under_load_nothing_is_lost("killed", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_ten_times_under_load_nothing_is_lost_on_kafka() {
    killed_ten_times_under_load_nothing_is_lost("killed-kafka", Bus::Kafka(shared_kafka().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_process_had_is_delivered_by_another_and_not_sent_late() {
    let world = World::new("frozen").await;
    let first = world.launch("-1").ready().await;
    world.receiver.script("/hook", [Answer::hang()]);
    world.declare("tell", "/hook", "ordering: PerAggregate, timeout: 2s").await;
    world.send_many(&["a"], 3).await;
    world.receiver.until("/hook", 1, LONG).await;
    first.signal(Signal::SIGSTOP);
    world.receiver.script("/hook", [Answer::default()]);
    let _second = world.launch("-2").ready().await;
    world.until_within(LONG, "tell", "delivered", 3).await;
    let delivered = world.receiver.count("/hook");
    first.signal(Signal::SIGCONT);
    // It finds itself without its claims: what it settles is nobody's any more.
    eventually(LONG, || async { first.metric("cornjacket_deliveries_under_way").await == Some(0.0) }).await;
    assert_eq!((world.receiver.count("/hook"), world.count("tell", "delivered").await), (delivered, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_in_order_what_is_under_way_is_finished() {
    let world = World::new("stopped").await;
    let mut act = world.launch("").ready().await;
    world.receiver.script("/hook", [Answer::default().after(Duration::from_secs(1))]);
    world.declare("tell", "/hook", "").await;
    world.send_many(&AGGREGATES, 2).await;
    world.receiver.until("/hook", 20, LONG).await;
    assert!(act.terminate().success());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM delivery WHERE claimed_by IS NOT NULL")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!((world.count("tell", "delivered").await, left, world.receiver.count("/hook")), (20, 0, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_on_after_the_database_was_restarted_under_load() {
    let mut postgres = OwnPostgres::start_new("actions-restart");
    let platform = Platform::new("actions-restart", postgres.fresh_database().await, Bus::Embedded);
    let world = World::of(platform, Receiver::start().await).await;
    let _act = world.launch("").ready().await;
    world.declare("tell", "/hook", "ordering: PerAggregate").await;
    world.send_many(&AGGREGATES, EACH).await;
    world.receiver.until("/hook", 100, LONG).await;
    postgres.stop();
    postgres.start();
    let all = i64::try_from(AGGREGATES.len()).unwrap() * EACH;
    eventually(LONG, || async {
        let done: Result<i64, _> =
            sqlx::query_scalar("SELECT count(*) FROM delivery WHERE status = 'delivered'").fetch_one(&world.pool).await;
        done.is_ok_and(|done| done == all)
    })
    .await;
    is_whole(&world.receiver, "/hook").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_for_longer_than_a_heartbeat_has_nothing_sent_twice() {
    let mut postgres = OwnPostgres::start_new("actions-away");
    let platform = Platform::new("actions-away", postgres.fresh_database().await, Bus::Embedded);
    let world = World::of(platform, Receiver::start().await).await;
    let _act = world.launch("").ready().await;
    world.receiver.script("/hook", [Answer::default().after(Duration::from_secs(3))]);
    world.declare("tell", "/hook", "").await;
    world.send_many(&AGGREGATES, 2).await;
    world.receiver.until("/hook", 20, LONG).await;
    postgres.stop();
    // Longer than a process may be silent before others take it for dead.
    tokio::time::sleep(Duration::from_secs(18)).await;
    postgres.start();
    eventually(LONG, || async {
        let done: Result<i64, _> =
            sqlx::query_scalar("SELECT count(*) FROM delivery WHERE status = 'delivered'").fetch_one(&world.pool).await;
        done.is_ok_and(|done| done == 20)
    })
    .await;
    assert_eq!((world.receiver.count("/hook"), world.attempts("tell").await.len()), (20, 20));
}
