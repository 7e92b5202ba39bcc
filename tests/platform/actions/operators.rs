//! What operators ask for, by HTTP and by the command line.

use serde_json::{Value, json};

use super::{SOON, World};
use crate::harness::{Answer, Process, eventually, http};

const ONCE: &str = "retry: {maxAttempts: 1}";

async fn get(act: &Process, path: &str) -> Value {
    let answer = http::get(&http::client(), &act.url(path)).await.unwrap();
    assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
    answer.body
}

async fn post(act: &Process, path: &str, body: Value) -> (u16, Value) {
    let answer = http::post(&http::client(), &act.url(path), &body).await.unwrap();
    (answer.status, answer.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_listed_by_what_they_are_page_by_page_and_shown_with_their_attempts() {
    let world = World::new("lists").await;
    let act = world.launch("").ready().await;
    world.receiver.script("/broken", [Answer::status(500).body("no")]);
    world.declare("well", "/well", "").await;
    world.declare("broken", "/broken", ONCE).await;
    world.send_many(&["a", "b"], 30).await;
    world.until("well", "delivered", 60).await;
    world.until("broken", "failed", 60).await;

    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&act, &format!("/api/v1/deliveries?action=broken&status=failed&limit=25{cursor}")).await;
        let deliveries = page["deliveries"].as_array().unwrap();
        assert!(deliveries.iter().all(|d| d["action"] == "broken" && d["status"] == "failed"));
        ids.extend(deliveries.iter().map(|d| d["delivery_id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(ids.len(), 60);
    assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "newest first, each once");
    let of_a = get(&act, "/api/v1/deliveries?aggregate_id=a&limit=100").await;
    assert_eq!(of_a["deliveries"].as_array().unwrap().len(), 60);
    let later = get(&act, "/api/v1/deliveries?from=2999-01-01T00:00:00Z").await;
    assert_eq!(later["deliveries"], json!([]));

    let one = get(&act, &format!("/api/v1/deliveries/{}", ids[0])).await;
    assert_eq!(
        (&one["status"], &one["message"], &one["attempts"]),
        (&json!("failed"), &json!("answered 500"), &json!(1))
    );
    assert_eq!((&one["history"][0]["status"], &one["history"][0]["answer"]), (&json!(500), &json!("no")));
    assert_eq!(one["body"]["event_id"], one["event_id"]);
    let actions = get(&act, "/api/v1/actions").await;
    assert_eq!((&actions["actions"][0]["action"], &actions["actions"][0]["failed"]), (&json!("broken"), &json!(60)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_delivered_again_one_some_or_all_of_it() {
    let world = World::new("again-asked").await;
    let act = world.launch("").ready().await;
    world.receiver.script("/hook", [Answer::status(500)]);
    world.declare("tell", "/hook", ONCE).await;
    world.send_many(&["a", "b"], 5).await;
    world.until("tell", "failed", 10).await;
    world.receiver.script("/hook", [Answer::default()]);
    let listed = get(&act, "/api/v1/deliveries?action=tell").await;
    let id = |number: usize| listed["deliveries"][number]["delivery_id"].as_str().unwrap().to_owned();
    let first = world.receiver.count("/hook");

    let (status, body) = post(&act, &format!("/api/v1/deliveries/{}/retry", id(0)), json!({})).await;
    assert_eq!((status, &body["status"]), (200, &json!("pending")), "{body}");
    world.until("tell", "delivered", 1).await;
    assert_eq!(world.receiver.requests_to("/hook")[first].header("webhook-id"), id(0), "the same id");
    let retried = |body: Value| post(&act, "/api/v1/deliveries/retry", body);
    assert_eq!(retried(json!({"ids": [id(1), id(2)]})).await, (200, json!({"retried": 2})));
    world.until("tell", "delivered", 3).await;
    let of_b = listed["deliveries"].as_array().unwrap()[3..].iter().filter(|d| d["aggregate_id"] == "b").count();
    assert_eq!(retried(json!({"aggregate_id": "b"})).await, (200, json!({"retried": of_b})));
    assert_eq!(retried(json!({"all": true})).await, (200, json!({"retried": 7 - of_b})));
    world.until("tell", "delivered", 10).await;
    assert_eq!(retried(json!({"all": true})).await, (200, json!({"retried": 0})));
    let attempts: Vec<i32> =
        sqlx::query_scalar("SELECT DISTINCT attempts FROM delivery").fetch_all(&world.pool).await.unwrap();
    assert_eq!(attempts, [2]);

    let (status, body) = retried(json!({})).await;
    assert!(status == 400 && body["error"].as_str().unwrap().contains("say which"), "{body}");
    let (status, body) = retried(json!({"action": "tall"})).await;
    assert!(status == 404 && body["error"].as_str().unwrap().contains("did you mean tell?"), "{body}");
    let (status, body) = retried(json!({"aggregate_id": "a\u{0}"})).await;
    assert!(status == 400 && body["error"].as_str().unwrap().contains("U+0000"), "{body}");
    let (status, body) = retried(json!({"status": "lost", "all": true})).await;
    assert!(status == 400 && body["error"].as_str().unwrap().contains("'lost' is none of pending"), "{body}");
    let (status, _) = post(&act, "/api/v1/deliveries/00000000-0000-7000-8000-000000000000/retry", json!({})).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_switched_off_and_on_and_tried() {
    let world = World::new("switch").await;
    let act = world.launch("").ready().await;
    world.declare("tell", "/hook", "when: 'event.payload.value > 100'").await;
    let (status, off) = post(&act, "/api/v1/actions/tell/disable", json!({"reason": "they move house"})).await;
    assert_eq!((status, &off["state"], &off["reason"]), (200, &json!("disabled"), &json!("they move house")));
    world.send("a", 500).await;
    world.until("tell", "pending", 1).await;
    let (status, made) = post(&act, "/api/v1/actions/tell/test", json!({"payload": {"value": 1}})).await;
    assert_eq!(status, 202, "{made}");
    world.until("tell", "pending", 2).await;
    assert!(world.receiver.requests().is_empty());
    assert_eq!(post(&act, "/api/v1/actions/tell/enable", json!({})).await.0, 200);
    world.until("tell", "delivered", 2).await;
    let requests = world.receiver.requests_to("/hook");
    let test = requests.iter().find(|r| r.header("webhook-id") == made["delivery_id"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&test.json()["event_type"], &test.json()["payload"]),
        (&json!("cornjacket.test"), &json!({"value": 1}))
    );

    for (path, body, status, says) in [
        ("/api/v1/actions/tel/test", json!({}), 404, "did you mean tell?"),
        ("/api/v1/actions/tell/disable", json!({"reason": ""}), 400, "1 to 500 characters"),
        ("/api/v1/actions/tell/test", json!({"event_type": "a\u{1}"}), 400, "event_type"),
        ("/api/v1/actions/tell/test", json!({"payoad": 1}), 400, "payoad"),
    ] {
        let (answered, problem) = post(&act, path, body).await;
        assert!(
            answered == status && problem["error"].as_str().unwrap().contains(says),
            "{path}: {answered} {problem}"
        );
    }
    // A form of a web page can send no JSON.
    let form = http::client().post(act.url("/api/v1/actions/tell/enable")).body("x").send().await.unwrap();
    assert_eq!(form.status(), 400);
}

/// Standard output of a command that succeeds, and whether it did.
fn command(act: &Process, arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cornjacket"))
        .arg("action")
        .args(arguments)
        .args(["--url", &act.url("")])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_all_of_it() {
    let world = World::new("commands").await;
    let act = world.launch("").ready().await;
    world.receiver.script("/hook", [Answer::status(500).body("out of order")]);
    world.declare("tell", "/hook", ONCE).await;
    world.send("device-001", 1).await;
    world.until("tell", "failed", 1).await;
    let on_thread = |arguments: &'static [&'static str]| tokio::task::block_in_place(|| command(&act, arguments));

    let (_, list) = on_thread(&["list"]);
    assert!(list.starts_with("ACTION") && list.contains("tell     enabled"), "{list}");
    let (_, failed) = on_thread(&["deliveries", "--action", "tell", "--status", "failed"]);
    assert!(failed.contains("device-001") && failed.contains("answered 500"), "{failed}");
    let (_, as_json) = on_thread(&["deliveries", "-o", "json"]);
    let id =
        serde_json::from_str::<Value>(&as_json).unwrap()["deliveries"][0]["delivery_id"].as_str().unwrap().to_owned();
    let (_, shown) = tokio::task::block_in_place(|| command(&act, &["delivery", &id]));
    assert!(shown.contains("out of order") && shown.contains("\"event_type\": \"sensor.reading\""), "{shown}");
    let (tested, said) = on_thread(&["test", "tell", "--payload", "{\"value\": 5}"]);
    assert!(!tested && said.contains("answered 500"), "{said}");

    world.receiver.script("/hook", [Answer::default()]);
    let (tested, said) = on_thread(&["test", "tell"]);
    assert!(tested && said.contains("delivered"), "{said}");
    let (_, retried) = on_thread(&["retry", "--action", "tell"]);
    assert_eq!(retried, "2 made again\n");
    world.until("tell", "delivered", 3).await;
    assert!(on_thread(&["disable", "tell", "--reason", "maintenance"]).1.contains("disabled"));
    assert_eq!(world.endpoint("tell").await.1.as_deref(), Some("maintenance"));
    assert!(on_thread(&["enable", "tell"]).0);
    let (done, said) = on_thread(&["retry"]);
    assert!(!done && said.contains("say which"), "{said}");
    let (done, said) = on_thread(&["enable", "tall"]);
    assert!(!done && said.contains("did you mean tell?"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_waits_and_how_deliveries_end() {
    let world = World::new("metrics").await;
    let act = world.launch("").ready().await;
    world.declare("tell", "/hook", "rateLimit: {deliveries: 2, per: 1h}").await;
    world.send_many(&["a"], 5).await;
    world.until("tell", "delivered", 2).await;
    eventually(SOON, || async {
        let waiting = act.metric("cornjacket_deliveries_waiting{action=\"tell\"}").await;
        let delivered = act.metric("cornjacket_deliveries_total{outcome=\"delivered\"}").await;
        let made = act.metric("cornjacket_deliveries_made_total").await;
        let read = (waiting, delivered, made);
        if read == (Some(3.0), Some(2.0), Some(5.0)) { Ok(()) } else { Err(format!("{read:?}")) }
    })
    .await;
    assert_eq!(act.metric("cornjacket_breaker_open{action=\"tell\"}").await, Some(0.0));
}
