//! What is sent.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cornjacket::actions::signature::{Headers, SigningKey, verify};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{SECRET, SOON, World};
use crate::harness::{Answer, Bus, Certificate, Receiver, eventually, http, shared_kafka};

/// Of a request that was signed with [`SECRET`].
fn is_signed(request: &crate::harness::Received) -> bool {
    let header = |name| Some(request.header(name)).filter(|value| !value.is_empty());
    let headers = Headers {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
    };
    let key = SigningKey::read(SECRET.as_bytes()).unwrap();
    verify(&[key], headers, &request.body, chrono::Utc::now().timestamp(), Duration::from_mins(5)).is_ok()
}

async fn an_event_is_delivered_signed_as_it_is_stored(name: &str, bus: Bus) {
    let world = World::on(name, bus, Receiver::start().await).await;
    let _act = world.launch("").ready().await;
    let more = "headers: [{name: Authorization, secretRef: {name: hooks, key: token}}, {name: X-Team, value: ops}], \
                signing: {secretRefs: [{name: hooks, key: signing}]}";
    world.declare("tell", "/hook", more).await;
    let event_id = world.send("device-001", 72).await;
    let request = world.receiver.until("/hook", 1, SOON).await.remove(0);
    assert_eq!(request.method, "POST");
    assert!(is_signed(&request));
    let event = request.json();
    assert_eq!(event["event_id"], event_id.as_str());
    assert_eq!(event["payload"], json!({"value": 72}));
    for field in ["event_type", "aggregate_id", "timestamp", "metadata", "ingested_at"] {
        assert!(!event[field].is_null(), "{field}");
    }
    let id: Uuid = request.header("webhook-id").parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!((request.header("authorization"), request.header("x-team")), ("Bearer xyzzy", "ops"));
    assert_eq!(request.header("content-type"), "application/json");
    assert!(request.header("user-agent").starts_with("cornjacket/"));
    world.until("tell", "delivered", 1).await;
    assert_eq!(world.attempts("tell").await, [(Some(200), None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_delivered_signed_on_the_embedded_bus() {
    an_event_is_delivered_signed_as_it_is_stored("signed", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_delivered_signed_on_kafka() {
    an_event_is_delivered_signed_as_it_is_stored("signed-kafka", Bus::Kafka(shared_kafka().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_chooses_events_body_shapes_them_and_the_trace_goes_on() {
    let world = World::new("shape").await;
    let _act = world.launch("").ready().await;
    let more = "when: 'event.payload.value > 70', body: '{\"text\": event.aggregate_id + \" is hot\", \"value\": event.payload.value}'";
    world.declare("hot", "/hook", more).await;
    world.send("cold", 12).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let event = json!({"event_type": "sensor.reading", "aggregate_id": "hot", "payload": {"value": 90}});
    let sent = http::client()
        .post(world.ingest.url("/api/v1/events"))
        .header("traceparent", trace)
        .json(&event)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 202);
    let request = world.receiver.until("/hook", 1, SOON).await.remove(0);
    assert_eq!(request.json(), json!({"text": "hot is hot", "value": 90}));
    assert_eq!(request.header("traceparent"), trace);
    world.until("hot", "delivered", 1).await;
    assert_eq!(world.receiver.requests().len(), 1, "the other event is none of its");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_before_an_action_was_there_are_not_delivered() {
    let world = World::new("since").await;
    let _act = world.launch("").ready().await;
    world.declare("first", "/first", "").await;
    world.send("a", 1).await;
    world.until("first", "delivered", 1).await;
    world.declare("second", "/second", "").await;
    world.send("a", 2).await;
    world.until("second", "delivered", 1).await;
    assert_eq!(world.receiver.requests_to("/second")[0].json()["payload"], json!({"value": 2}));
    world.until("first", "delivered", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again_and_http_2_is_spoken_where_the_endpoint_does() {
    let world = World::on("tls", Bus::Embedded, Receiver::start_tls(Certificate::Right).await).await;
    let act = world.launch("").env("CORNJACKET_WEBHOOK_CA_FILE", world.receiver.ca_file().display().to_string());
    let _act = act.ready().await;
    world.declare("tell", "/hook", "").await;
    for value in 1..=20 {
        world.send("a", value).await;
        world.receiver.until("/hook", usize::try_from(value).unwrap(), SOON).await;
    }
    world.until("tell", "delivered", 20).await;
    assert_eq!(world.receiver.connections(), 1);
    assert_eq!(world.receiver.requests()[0].version, axum::http::Version::HTTP_2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_the_endpoints_is_refused() {
    let world = World::on("wrong-name", Bus::Embedded, Receiver::start_tls(Certificate::WrongName).await).await;
    let act = world.launch("").env("CORNJACKET_WEBHOOK_CA_FILE", world.receiver.ca_file().display().to_string());
    let _act = act.ready().await;
    world.declare("tell", "/hook", "retry: {maxAttempts: 1}").await;
    world.send("a", 1).await;
    world.until("tell", "failed", 1).await;
    let (status, error) = world.attempts("tell").await.remove(0);
    let error = error.unwrap();
    assert!(status.is_none() && error.contains("cannot connect") && error.contains("certificate"), "{error}");
    assert!(world.receiver.requests().is_empty(), "nothing was sent to who cannot prove who it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_signs_what_comes_next_and_no_secret_is_shown_anywhere() {
    let world = World::new("rotation").await;
    let act = world.launch("").ready().await;
    world.receiver.script("/hook", [Answer::status(500), Answer::status(200)]);
    world.declare("tell", "/hook", "signing: {secretRefs: [{name: hooks, key: signing}]}").await;
    world.send("a", 1).await;
    world.until("tell", "delivered", 1).await;
    let other = "whsec_OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg=";
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: hooks}}\nstringData: {{signing: '{SECRET}', next: '{other}', token: x}}\n"
    );
    std::fs::write(world.platform.resources().join("secret.yaml"), secret).unwrap();
    let both = "signing: {secretRefs: [{name: hooks, key: next}, {name: hooks, key: signing}]}";
    world.declare("tell", "/hook", both).await;
    eventually(SOON, || async {
        world.send("a", 2).await;
        let requests = world.receiver.requests_to("/hook");
        requests
            .last()
            .is_some_and(|request| request.header("webhook-signature").split(' ').count() == 2 && is_signed(request))
    })
    .await;
    let rows: Vec<Value> =
        sqlx::query_scalar("SELECT to_jsonb(d) FROM delivery d").fetch_all(&world.pool).await.unwrap();
    for text in [act.log(), json!(rows).to_string()] {
        for value in [&SECRET[6..], &other[6..], "xyzzy"] {
            assert!(!text.contains(value));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_evaluated_becomes_a_dead_letter_and_the_rest_goes_on() {
    let world = World::new("letters").await;
    let _act = world.launch("").ready().await;
    world.declare("tell", "/tell", "").await;
    world.declare("broken", "/broken", "when: 'event.payload.none > 1'").await;
    let event_id = world.send("a", 1).await;
    world.until("tell", "delivered", 1).await;
    let letter: (String, Option<String>, Uuid, String, i32) = eventually(SOON, || async {
        sqlx::query_as("SELECT consumer, subject, event_id, error_message, retry_count FROM dlq")
            .fetch_optional(&world.pool)
            .await
            .unwrap()
    })
    .await;
    assert_eq!((letter.0.as_str(), letter.1.as_deref()), ("actions", Some("broken")));
    assert_eq!((letter.2.to_string(), letter.4), (event_id, 3), "tried again at once, after 1 s and after 2 s");
    assert!(letter.3.starts_with("action broken: when: "), "{}", letter.3);
    assert!(world.receiver.requests_to("/broken").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_secret_cannot_be_opened_events_are_kept_for_later() {
    let world = World::new("locked").await;
    let mut act = world.launch("").ready().await;
    world.declare("tell", "/hook", "signing: {secretRefs: [{name: hooks, key: signing}]}").await;
    world.send("a", 1).await;
    world.until("tell", "delivered", 1).await;
    act.terminate();
    let mut locked = world.launch("-locked").env("CORNJACKET_SECRETS_KEY", STANDARD.encode([8; 32])).ready().await;
    world.send("a", 2).await;
    world.until("tell", "pending", 1).await;
    assert_eq!(world.receiver.count("/hook"), 1);
    locked.terminate();
    let _act = world.launch("-again").ready().await;
    world.until("tell", "delivered", 2).await;
    assert!(is_signed(&world.receiver.requests_to("/hook")[1]));
}
