//! What endpoints answer, and what becomes of deliveries.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{SOON, World};
use crate::harness::{Answer, eventually};

const QUICK: &str = "retry: {maxAttempts: 3, backoff: [100ms], jitter: None}, timeout: 1s";

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_made_again_with_the_same_id_and_body() {
    let world = World::new("again").await;
    let _act = world.launch("").ready().await;
    world.receiver.script("/hook", [Answer::status(500).body("not now"), Answer::reset(), Answer::status(204)]);
    world.declare("tell", "/hook", "retry: {backoff: [100ms, 200ms], jitter: None}").await;
    world.send("a", 1).await;
    world.until("tell", "delivered", 1).await;
    let requests = world.receiver.requests_to("/hook");
    assert_eq!(requests.len(), 3);
    for request in &requests[1..] {
        assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
        assert_eq!(request.body, requests[0].body);
    }
    let waits: Vec<Duration> = requests.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(waits[0] >= Duration::from_millis(100) && waits[1] >= Duration::from_millis(200), "{waits:?}");
    let attempts = world.attempts("tell").await;
    assert_eq!(attempts[0], (Some(500), None));
    assert!(attempts[1].1.as_ref().is_some_and(|error| error.contains("reset")), "{attempts:?}");
    assert_eq!(attempts[2], (Some(204), None));
    let answer: Option<String> = sqlx::query_scalar("SELECT answer FROM delivery_attempt WHERE number = 1")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(answer.as_deref(), Some("not now"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_is_told_and_given_up_after_the_last_attempt() {
    let world = World::new("wrong").await;
    let _act = world.launch("").ready().await;
    let slow = Answer::status(200).drip("a body that takes its time", Duration::from_millis(500));
    let cases = [
        ("hangs", Answer::hang(), "no answer within 1000 ms"),
        ("resets", Answer::reset(), "reset"),
        ("drips", slow, "the answer did not end within 1000 ms"),
        ("fails", Answer::status(503), "answered 503"),
        ("refuses", Answer::status(400), "answered 400"),
        ("redirects", Answer::redirect("http://127.0.0.1:1/elsewhere"), "answered 307"),
    ];
    for (name, answer, _) in &cases {
        world.receiver.script(&format!("/{name}"), [answer.clone()]);
        world.declare(name, &format!("/{name}"), QUICK).await;
    }
    world.declare_at("refused", "http://127.0.0.1:1/nobody", QUICK).await;
    world.send("a", 1).await;
    for (name, _, why) in cases.iter().cloned().chain([("refused", Answer::default(), "refused")]) {
        world.until(name, "failed", 1).await;
        let (message, attempts): (String, i32) =
            sqlx::query_as("SELECT message, attempts FROM delivery WHERE action = $1")
                .bind(name)
                .fetch_one(&world.pool)
                .await
                .unwrap();
        assert!(message.contains(why), "{name}: {message}");
        assert_eq!(attempts, 3, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_read_within_bounds() {
    let world = World::new("endless").await;
    let _act = world.launch("").ready().await;
    world.receiver.script("/hook", [Answer::status(200).endless()]);
    world.declare("tell", "/hook", QUICK).await;
    world.send("a", 1).await;
    world.until("tell", "delivered", 1).await;
    let kept: i32 =
        sqlx::query_scalar("SELECT length(answer) FROM delivery_attempt").fetch_one(&world.pool).await.unwrap();
    assert!((1..=2_048).contains(&kept), "{kept} characters are kept");
    let taken = world.receiver.endless_bytes();
    assert!(taken < 16 << 20, "{taken} bytes were taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_waited_for_in_seconds_and_as_a_date() {
    let world = World::new("retry-after").await;
    let _act = world.launch("").ready().await;
    world.receiver.script("/seconds", [Answer::status(429).retry_after(2), Answer::default()]);
    // Dates are of whole seconds.
    world.receiver.answer_by("/date", {
        let first = std::sync::Mutex::new(true);
        move |_| {
            if std::mem::replace(&mut *first.lock().unwrap(), false) {
                Answer::status(503).retry_at(chrono::Utc::now() + Duration::from_secs(3))
            } else {
                Answer::default()
            }
        }
    });
    world.declare("seconds", "/seconds", QUICK).await;
    world.declare("date", "/date", QUICK).await;
    world.send("a", 1).await;
    for name in ["seconds", "date"] {
        world.until(name, "delivered", 1).await;
        let requests = world.receiver.requests_to(&format!("/{name}"));
        let waited = requests[1].at - requests[0].at;
        assert!(waited >= Duration::from_millis(1_900), "{name}: {waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_for_a_pause_gets_it_for_all_its_deliveries() {
    let world = World::new("pause").await;
    let _act = world.launch("").ready().await;
    world.receiver.script("/hook", [Answer::status(429).retry_after(3), Answer::default()]);
    world.declare("tell", "/hook", QUICK).await;
    world.send("a", 1).await;
    world.receiver.until("/hook", 1, SOON).await;
    let asked = world.receiver.requests()[0].at;
    eventually(SOON, || async { world.attempts("tell").await.len() == 1 }).await;
    world.send("b", 1).await;
    world.until("tell", "delivered", 2).await;
    let requests = world.receiver.requests_to("/hook");
    assert!(requests[1..].iter().all(|request| request.at - asked >= Duration::from_millis(2_900)), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_gets_nothing_until_it_is_enabled() {
    let world = World::new("gone").await;
    let act = world.launch("").ready().await;
    world.receiver.script("/hook", [Answer::status(410), Answer::default()]);
    world.declare("tell", "/hook", QUICK).await;
    world.send("a", 1).await;
    world.until("tell", "failed", 1).await;
    let (state, reason, ..) = world.endpoint("tell").await;
    assert_eq!(state, "disabled");
    assert!(reason.unwrap().contains("410"));
    world.send("a", 2).await;
    world.until("tell", "pending", 1).await;
    assert_eq!(world.receiver.count("/hook"), 1);
    let url = act.url("/api/v1/actions/tell/enable");
    let enabled = crate::harness::http::post(&crate::harness::http::client(), &url, &json!({})).await.unwrap();
    assert_eq!((enabled.status, &enabled.body["state"]), (200, &json!("enabled")));
    world.until("tell", "delivered", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_does_not_hold_up_the_others() {
    let world = World::new("starve").await;
    let _act = world.launch("").ready().await;
    world.receiver.script("/hangs", [Answer::hang()]);
    world.declare("hangs", "/hangs", "timeout: 30s").await;
    for number in 0..4 {
        world.declare(&format!("well-{number}"), &format!("/well-{number}"), "").await;
    }
    let begun = Instant::now();
    let aggregates: Vec<String> = (0..20).map(|number| format!("device-{number}")).collect();
    let aggregates: Vec<&str> = aggregates.iter().map(String::as_str).collect();
    world.send_many(&aggregates, 50).await;
    for number in 0..4 {
        world.until(&format!("well-{number}"), "delivered", 1_000).await;
    }
    // None of the attempts at the other has ended: their time is not up.
    assert!(begun.elapsed() < Duration::from_secs(29), "too slow a machine to show it: {:?}", begun.elapsed());
    assert!(world.attempts("hangs").await.is_empty());
    assert_eq!(world.receiver.most_at_once("/hangs"), 32, "as many as one endpoint may have");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_url_is_another_endpoint_also_after_a_restart() {
    let world = World::new("moved").await;
    let mut act = world.launch("").ready().await;
    world.receiver.script("/old", [Answer::status(410)]);
    world.receiver.script("/broken", [Answer::status(500)]);
    world.declare("gone", "/old", QUICK).await;
    let breaker = "circuitBreaker: {failures: 1, cooldown: 1h}, retry: {maxAttempts: 1}";
    world.declare("broken", "/broken", breaker).await;
    world.send("a", 1).await;
    world.until("gone", "failed", 1).await;
    eventually(SOON, || async { world.endpoint("broken").await.2 == Some(false) }).await;
    let url = act.url("/api/v1/actions/broken/disable");
    let off = crate::harness::http::post(&crate::harness::http::client(), &url, &json!({"reason": "they move"})).await;
    assert_eq!(off.unwrap().status, 200);
    act.kill9();
    act.start_again();
    act.until_ready(SOON).await;
    world.declare("gone", "/new", QUICK).await;
    world.declare("broken", "/mended", breaker).await;
    world.send("a", 2).await;
    world.until("gone", "delivered", 1).await;
    let (state, reason, healthy, _) = world.endpoint("broken").await;
    assert_eq!(
        (state.as_str(), reason.as_deref(), healthy),
        ("disabled", Some("they move"), None),
        "an operator's word stays"
    );
    let url = act.url("/api/v1/actions/broken/enable");
    assert_eq!(
        crate::harness::http::post(&crate::harness::http::client(), &url, &json!({})).await.unwrap().status,
        200
    );
    world.until("broken", "delivered", 1).await;
    eventually(SOON, || async { world.endpoint("broken").await.2 == Some(true) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_old_url_still_answers_says_nothing_of_the_new_one() {
    let world = World::new("late").await;
    let _act = world.launch("").ready().await;
    world.receiver.script("/old", [Answer::status(410).after(Duration::from_secs(6))]);
    let more = "circuitBreaker: {failures: 1, cooldown: 1h}, timeout: 20s";
    world.declare("tell", "/old", more).await;
    world.send_many(&["a", "b", "c"], 1).await;
    world.receiver.until("/old", 3, SOON).await;
    world.declare("tell", "/new", more).await;
    world.until("tell", "failed", 3).await;
    world.send("d", 1).await;
    world.until("tell", "delivered", 1).await;
    let (state, _, healthy, _) = world.endpoint("tell").await;
    assert_eq!((state.as_str(), world.receiver.count("/new")), ("enabled", 1), "{healthy:?}");
}
