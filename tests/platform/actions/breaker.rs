//! The circuit breaker, with the state in memory and in Redis.

use std::time::Duration;

use super::{SOON, World};
use crate::harness::{Answer, Launch, eventually, shared_redis};

async fn an_endpoint_that_fails_is_left_alone_and_probed(world: World, act: Launch) {
    let _act = act.ready().await;
    let failing = vec![Answer::status(500); 5];
    world.receiver.script("/hook", failing.into_iter().chain([Answer::default()]));
    let more = "circuitBreaker: {failures: 3, cooldown: 4s}, retry: {maxAttempts: 20, backoff: [50ms], jitter: None}";
    world.declare("tell", "/hook", more).await;
    world.send("a", 1).await;
    world.receiver.until("/hook", 3, SOON).await;
    eventually(SOON, || async { world.endpoint("tell").await.2 == Some(false) }).await;
    let (state, _, _, message) = world.endpoint("tell").await;
    let message = message.unwrap();
    assert!(state == "enabled" && message.contains("answered 500"), "{message}");
    // What comes meanwhile is parked, not failed.
    world.send("b", 1).await;
    world.send("c", 1).await;
    world.until("tell", "pending", 3).await;
    // Two probes fail and the third gets through; then everything does.
    world.until("tell", "delivered", 3).await;
    assert_eq!(world.endpoint("tell").await.2, Some(true));
    let requests = world.receiver.requests_to("/hook");
    assert_eq!(requests.len(), 3 + 2 + 3);
    for probe in 3..6 {
        let waited = requests[probe].at - requests[probe - 1].at;
        assert!(waited >= Duration::from_millis(3_900), "probe {probe} came after {waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_left_alone_and_probed_with_the_state_in_memory() {
    let world = World::new("breaker").await;
    let act = world.launch("");
    an_endpoint_that_fails_is_left_alone_and_probed(world, act).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_left_alone_and_probed_with_the_state_in_redis() {
    let world = World::new("breaker-redis").await;
    let act = world.launch("").env("REDIS_URL", shared_redis().await);
    an_endpoint_that_fails_is_left_alone_and_probed(world, act).await;
}
