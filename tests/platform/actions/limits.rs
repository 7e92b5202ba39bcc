//! Rate limit, deduplication and order, with the state in memory and in Redis.

use std::time::Duration;

use serde_json::json;

use super::{SOON, World};
use crate::harness::{Answer, Launch, eventually, shared_redis};

async fn above_the_limit_deliveries_wait(world: World, act: Launch) {
    let _act = act.ready().await;
    world.declare("tell", "/hook", "rateLimit: {deliveries: 5, per: 3s}").await;
    world.send_many(&["a", "b", "c"], 5).await;
    world.until("tell", "delivered", 15).await;
    let requests = world.receiver.requests_to("/hook");
    // A window begins when its first attempt is let through; the request comes a little later.
    for (first, next) in [(0, 5), (5, 10)] {
        let apart = requests[next].at - requests[first].at;
        assert!(apart >= Duration::from_millis(1_500), "request {next} came {apart:?} after request {first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_limit_deliveries_wait_with_the_state_in_memory() {
    let world = World::new("limit").await;
    let act = world.launch("");
    above_the_limit_deliveries_wait(world, act).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_limit_deliveries_wait_with_the_state_in_redis() {
    let world = World::new("limit-redis").await;
    let act = world.launch("").env("REDIS_URL", shared_redis().await);
    above_the_limit_deliveries_wait(world, act).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_too_long_or_behind_too_many_expires() {
    let world = World::new("expire").await;
    let _act = world.launch("").ready().await;
    world.declare("crowd", "/crowd", "rateLimit: {deliveries: 2, per: 1h, maxWaiting: 3}").await;
    world.declare("old", "/old", "rateLimit: {deliveries: 1, per: 1h, maxWait: 2s}").await;
    world.send_many(&["a"], 10).await;
    world.until("crowd", "delivered", 2).await;
    world.until("crowd", "expired", 5).await;
    world.until("crowd", "pending", 3).await;
    let kept: Vec<i64> = sqlx::query_scalar(
        "SELECT (body::jsonb #>> '{payload,value}')::bigint FROM delivery WHERE action = 'crowd' AND status = 'pending' ORDER BY 1",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert_eq!(kept, [8, 9, 10], "the oldest expire");
    world.until("old", "expired", 9).await;
    assert_eq!((world.count("old", "delivered").await, world.receiver.count("/old")), (1, 1));
}

async fn duplicates_within_the_window_are_suppressed(world: World, act: Launch) {
    let _act = act.ready().await;
    world.declare("tell", "/hook", "deduplication: {window: 4s}").await;
    world.declare("by-value", "/value", "deduplication: {window: 1h, key: 'string(event.payload.value)'}").await;
    world.send("a", 1).await;
    world.until("tell", "delivered", 1).await;
    world.send("a", 2).await;
    world.send("b", 2).await;
    world.until("tell", "suppressed", 1).await;
    world.until("tell", "delivered", 2).await;
    world.until("by-value", "delivered", 2).await;
    world.until("by-value", "suppressed", 1).await;
    // After the window it is delivered again.
    eventually(SOON, || async {
        world.send("a", 3).await;
        world.count("tell", "delivered").await >= 3
    })
    .await;
    let to_a: Vec<_> =
        world.receiver.requests_to("/hook").into_iter().filter(|r| r.json()["aggregate_id"] == "a").collect();
    let apart = |field: &str| -> Vec<chrono::DateTime<chrono::Utc>> {
        to_a.iter().map(|r| r.json()[field].as_str().unwrap().parse().unwrap()).collect()
    };
    let accepted = apart("ingested_at");
    assert!((accepted[1] - accepted[0]).num_milliseconds() >= 4_000, "{accepted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_within_the_window_are_suppressed_with_the_state_in_memory() {
    let world = World::new("duplicates").await;
    let act = world.launch("");
    duplicates_within_the_window_are_suppressed(world, act).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_within_the_window_are_suppressed_with_the_state_in_redis() {
    let world = World::new("duplicates-redis").await;
    let act = world.launch("").env("REDIS_URL", shared_redis().await);
    duplicates_within_the_window_are_suppressed(world, act).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_an_aggregate_waits_for_its_own_and_for_nobody_else() {
    let world = World::new("ordered").await;
    let _act = world.launch("").ready().await;
    // Every third request fails once.
    world.receiver.answer_by("/hook", {
        let count = std::sync::atomic::AtomicUsize::new(0);
        move |_| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if number % 3 == 2 { Answer::status(500) } else { Answer::default() }
        }
    });
    let more = "ordering: PerAggregate, retry: {maxAttempts: 20, backoff: [20ms], jitter: None}";
    world.declare("tell", "/hook", more).await;
    let aggregates = ["a", "b", "c", "d", "e"];
    world.send_many(&aggregates, 40).await;
    world.until("tell", "delivered", 200).await;
    for aggregate in aggregates {
        let requests = world.receiver.requests_to("/hook");
        let values: Vec<i64> = requests
            .iter()
            .map(crate::harness::Received::json)
            .filter(|event| event["aggregate_id"] == aggregate)
            .map(|event| event["payload"]["value"].as_i64().unwrap())
            .collect();
        let mut first_times = values.clone();
        first_times.dedup();
        assert_eq!(first_times, (1..=40).collect::<Vec<_>>(), "{aggregate}: {values:?}");
    }
    assert!(world.receiver.most_at_once("/hook") > 1, "aggregates go side by side");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_of_an_action_that_is_removed_are_cancelled_and_old_ones_forgotten() {
    let world = World::new("removed").await;
    let _act = world.launch("").ready().await;
    world.declare("tell", "/hook", "rateLimit: {deliveries: 1, per: 1h}").await;
    world.send_many(&["a"], 3).await;
    world.until("tell", "delivered", 1).await;
    std::fs::remove_file(world.platform.resources().join("tell.yaml")).unwrap();
    world.until("tell", "cancelled", 2).await;
    eventually(SOON, || async {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM action_config").fetch_one(&world.pool).await.unwrap();
        left == 0
    })
    .await;
    sqlx::query("UPDATE delivery SET finished_at = now() - interval '8 days' WHERE status = 'cancelled'")
        .execute(&world.pool)
        .await
        .unwrap();
    world.until("tell", "cancelled", 0).await;
    assert_eq!(world.count("tell", "delivered").await, 1);
    // One of the same name begins anew.
    world.declare("tell", "/again", "").await;
    world.send("a", 7).await;
    let request = world.receiver.until("/again", 1, SOON).await.remove(0);
    assert_eq!(request.json()["payload"], json!({"value": 7}));
}
