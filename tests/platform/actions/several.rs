//! Several processes that deliver, with Redis between them.

use std::time::Duration;

use super::{SOON, World};
use crate::harness::{Answer, OwnRedis, eventually, shared_redis};

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_share_the_work_and_one_limit() {
    let world = World::new("share").await;
    let redis = shared_redis().await;
    let mut acts = Vec::new();
    for number in 0..3 {
        acts.push(world.launch(&format!("-{number}")).env("REDIS_URL", &redis).ready().await);
    }
    world.receiver.script("/all", [Answer::default().after(Duration::from_millis(50))]);
    world.declare("all", "/all", "").await;
    world.declare("few", "/few", "rateLimit: {deliveries: 6, per: 1h}").await;
    world.declare("once", "/once", "deduplication: {window: 1h}").await;
    let aggregates: Vec<String> = (0..60).map(|number| format!("device-{number}")).collect();
    let aggregates: Vec<&str> = aggregates.iter().map(String::as_str).collect();
    world.send_many(&aggregates, 10).await;
    world.until("all", "delivered", 600).await;
    assert_eq!(world.receiver.count("/all"), 600);
    world.until("few", "delivered", 6).await;
    world.until("once", "delivered", 60).await;
    world.until("once", "suppressed", 540).await;
    assert_eq!(world.receiver.count("/few"), 6, "the limit is of all together");
    let mut delivering = 0;
    for act in &acts {
        let attempts = act.metric("cornjacket_delivery_attempts_total{action=\"all\",outcome=\"delivered\"}").await;
        delivering += i32::from(attempts.is_some_and(|attempts| attempts > 0.0));
    }
    assert!(delivering > 1, "only one of them delivers");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_limits_and_breakers_outlive_the_process_and_redis() {
    let world = World::new("outlive").await;
    let mut redis = OwnRedis::start_new("outlive");
    let launch = world.launch("").env("REDIS_URL", redis.url());
    let mut act = launch.ready().await;
    world.receiver.script("/broken", [Answer::status(500)]);
    world.declare("once", "/once", "deduplication: {window: 1h}").await;
    world.declare("few", "/few", "rateLimit: {deliveries: 2, per: 1h}").await;
    let breaker =
        "circuitBreaker: {failures: 2, cooldown: 1h}, retry: {maxAttempts: 20, backoff: [10ms], jitter: None}";
    world.declare("broken", "/broken", breaker).await;
    world.send_many(&["a"], 2).await;
    world.until("few", "delivered", 2).await;
    world.until("once", "suppressed", 1).await;
    eventually(SOON, || async { world.endpoint("broken").await.2 == Some(false) }).await;
    let tried = world.receiver.count("/broken");
    act.kill9();
    redis.crash();
    redis.start();
    act.start_again();
    act.until_ready(SOON).await;
    world.send_many(&["a"], 2).await;
    world.until("once", "suppressed", 3).await;
    world.until("few", "pending", 2).await;
    world.until("broken", "pending", 4).await;
    assert_eq!((world.receiver.count("/once"), world.receiver.count("/few")), (1, 2));
    assert_eq!(world.receiver.count("/broken"), tried, "the breaker is open still");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_deliveries_wait_and_then_go_on() {
    let world = World::new("away").await;
    let mut redis = OwnRedis::start_new("away");
    let act = world.launch("").env("REDIS_URL", redis.url()).ready().await;
    world.declare("tell", "/hook", "").await;
    world.send("a", 1).await;
    world.until("tell", "delivered", 1).await;
    redis.stop();
    world.send("a", 2).await;
    let ready = |up: bool| {
        let url = act.url("/readyz");
        eventually(SOON, move || {
            let url = url.clone();
            async move {
                let answer = crate::harness::http::get(&crate::harness::http::client(), &url).await.unwrap();
                if (answer.status == 200) == up { Ok(()) } else { Err(format!("{:?}", answer.body)) }
            }
        })
    };
    ready(false).await;
    assert_eq!(world.receiver.count("/hook"), 1);
    redis.start();
    ready(true).await;
    world.until("tell", "delivered", 2).await;
}
