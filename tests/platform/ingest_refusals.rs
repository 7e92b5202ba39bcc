//! What is not taken: each bad input is answered with its status, names the field and the value, and stores nothing.

use std::time::Duration;

use cornjacket::ingest::{Limits, Rules, Settings};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::eventually;
use crate::ingest_world::{World, read, reading};

/// A bad request: header fields, body, and what its answer must say.
struct Bad {
    name: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    status: u16,
    /// Texts that the message must hold: the field, the value.
    names: Vec<String>,
}

fn bad(name: &'static str, body: impl Into<Vec<u8>>, status: u16, names: &[&str]) -> Bad {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Bad { name, headers, body: body.into(), status, names: names.iter().map(|n| (*n).to_owned()).collect() }
}

impl Bad {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// An event with one member replaced.
fn event(member: &str, value: Value) -> String {
    let mut event = reading("device-1", 1);
    event[member] = value;
    event.to_string()
}

/// An event of a type without a schema, with this text as payload.
fn payload(text: &str) -> String {
    format!(r#"{{"event_type":"t","aggregate_id":"a","payload":{text}}}"#)
}

fn without(member: &str) -> String {
    let mut event = reading("device-1", 1);
    event.as_object_mut().unwrap().remove(member);
    event.to_string()
}

fn bodies() -> Vec<Bad> {
    let long = "x".repeat(256);
    let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    vec![
        bad("no body", "", 400, &["the body", "JSON object"]),
        bad("no JSON", "hello", 400, &["the body", "hello"]),
        bad("cut JSON", r#"{"event_type":"t","#, 400, &["the body", "EOF"]),
        bad("trailing comma", r#"{"event_type":"t",}"#, 400, &["trailing comma"]),
        bad("trailing garbage", reading("a", 1).to_string() + " x", 400, &["trailing characters"]),
        bad("two events", reading("a", 1).to_string() + "{}", 400, &["trailing characters"]),
        bad("an array", "[1,2]", 400, &["the body", "[1,2]"]),
        bad("a string", r#""text""#, 400, &["the body", "text"]),
        bad("not a number", payload("NaN"), 400, &["the body", "NaN"]),
        bad("byte order mark", "\u{feff}{}", 400, &["the body"]),
        bad("a line end in a string", payload("\"a\nb\""), 400, &["the body", "control character"]),
        bad("invalid UTF-8", b"{\"event_type\":\"\xff\"}".to_vec(), 400, &["the body", "UTF-8"]),
        bad("nothing in it", "{}", 400, &["event_type", "aggregate_id", "payload", "is required"]),
        bad("no event_type", without("event_type"), 400, &["event_type: is required"]),
        bad("no aggregate_id", without("aggregate_id"), 400, &["aggregate_id: is required"]),
        bad("no payload", without("payload"), 400, &["payload: is required"]),
        bad("null payload", event("payload", Value::Null), 400, &["payload: is required"]),
        bad("event_type is a number", event("event_type", json!(7)), 400, &["event_type", "string", "got 7"]),
        bad("event_type is empty", event("event_type", json!("")), 400, &["event_type", "must not be empty"]),
        bad("event_type is blank", event("event_type", json!("  ")), 400, &["event_type", "must not be empty"]),
        bad("event_type has a space", event("event_type", json!("a b")), 400, &["event_type", "a b"]),
        bad("event_type has a line end", event("event_type", json!("a\nb")), 400, &["event_type"]),
        bad("event_type has NUL", event("event_type", json!("a\0b")), 400, &["event_type"]),
        bad("event_type is too long", event("event_type", json!(long)), 400, &["event_type", "255", "xxx"]),
        bad("aggregate_id is a list", event("aggregate_id", json!(["a"])), 400, &["aggregate_id", r#"["a"]"#]),
        bad("aggregate_id is empty", event("aggregate_id", json!("")), 400, &["aggregate_id", "must not be empty"]),
        bad("aggregate_id is too long", event("aggregate_id", json!(long)), 400, &["aggregate_id", "255", "256"]),
        bad("aggregate_id is too long (ü)", event("aggregate_id", json!("ü".repeat(256))), 400, &["aggregate_id", "ü"]),
        bad("aggregate_id rings a bell", event("aggregate_id", json!("a\u{7}")), 400, &["aggregate_id"]),
        bad("aggregate_id has NUL", event("aggregate_id", json!("a\0")), 400, &["aggregate_id"]),
        bad(
            "half a surrogate pair in aggregate_id",
            r#"{"event_type":"t","aggregate_id":"\ud800","payload":1}"#,
            400,
            &["aggregate_id", r"\ud800"],
        ),
        bad(
            "event_time is no time",
            event("event_time", json!("yesterday")),
            400,
            &["event_time", "yesterday", "RFC 3339"],
        ),
        bad("event_time is a number", event("event_time", json!(17)), 400, &["event_time", "17"]),
        bad(
            "event_time has no zone",
            event("event_time", json!("2026-01-01T00:00:00")),
            400,
            &["event_time", "2026-01-01"],
        ),
        bad(
            "event_time is ahead",
            event("event_time", json!("2999-01-01T00:00:00Z")),
            400,
            &["event_time", "2999", "ahead"],
        ),
        bad(
            "event_time is before the year 1",
            event("event_time", json!("0000-06-01T00:00:00Z")),
            400,
            &["event_time", "year 1"],
        ),
        bad("trace_id is an object", event("trace_id", json!({"a": 1})), 400, &["trace_id", r#"{"a":1}"#]),
        bad("trace_id is too long", event("trace_id", json!(long)), 400, &["trace_id", "255"]),
        bad("schema_version is a string", event("schema_version", json!("1")), 400, &["schema_version", "integer"]),
        bad("schema_version is 0", event("schema_version", json!(0)), 400, &["schema_version", "got 0"]),
        bad("schema_version is unknown", event("schema_version", json!(99)), 400, &["schema_version", "99"]),
        bad(
            "value breaks the schema",
            event("payload", json!({"value": "hot", "unit": "c"})),
            400,
            &["payload/value", "hot"],
        ),
        bad("NUL in a payload", payload(r#"{"a":["x\u0000y"]}"#), 400, &["payload/a/0", r"x\u0000"]),
        bad("NUL in a name", payload(r#"{"\u0000":1}"#), 400, &["payload", r"\u0000"]),
        bad("half a surrogate pair", payload(r#"{"a":"\udc00"}"#), 400, &["payload/a", r"\udc00"]),
        bad("number above a double", payload("[1e400]"), 400, &["payload/0", "1e400"]),
        bad("number too fine", payload("1e-5000"), 400, &["payload", "1e-5000"]),
        bad("number too long", payload(&"9".repeat(500)), 400, &["payload", "999"]),
        bad("numbers that grow", payload(&format!("[{}1]", "1e300,".repeat(5_000))), 400, &["payload", "1e300"]),
        bad("nested too deep", payload(&nested(65)), 400, &["payload/0/0", "64 levels"]),
        bad("nested far too deep", payload(&nested(100_000)), 400, &["payload/0/0", "64 levels"]),
        bad("nested without end", payload(&"[".repeat(500_000)), 400, &["the body"]),
        bad("too large", payload(&format!("\"{}\"", "x".repeat(1 << 20))), 413, &["the body", "1048576 bytes"]),
        bad("far too large", payload(&format!("\"{}\"", "x".repeat(8 << 20))), 413, &["the body", "1048576 bytes"]),
    ]
}

fn header_fields() -> Vec<Bad> {
    let good = || reading("a", 1).to_string();
    let mut many = bad("too many fields", good(), 431, &["header", "64"]);
    for i in 0..65 {
        many = many.with(&format!("x-{i}"), "1");
    }
    vec![
        bad("plain text", good(), 415, &["content-type", "text/plain"]).with("content-type", "text/plain"),
        bad("a form", good(), 415, &["content-type", "x-www-form-urlencoded"])
            .with("content-type", "application/x-www-form-urlencoded"),
        bad("another charset", good(), 415, &["content-type", "latin1"])
            .with("content-type", "application/json; charset=latin1"),
        bad("lines", good(), 415, &["content-type", "/api/v1/events/batch"])
            .with("content-type", "application/x-ndjson"),
        bad("compressed", good(), 415, &["content-encoding", "gzip"]).with("content-encoding", "gzip"),
        many,
        bad("a large field", good(), 431, &["header", "16384"]).with("x-large", &"x".repeat(20_000)),
        bad("a key with a space", good(), 400, &["idempotency-key", "a b"]).with("idempotency-key", "a b"),
        bad("an empty key", good(), 400, &["idempotency-key"]).with("idempotency-key", ""),
        bad("a long key", good(), 400, &["idempotency-key", "xxx"]).with("idempotency-key", &"x".repeat(256)),
    ]
}

fn cloud_events() -> Vec<Bad> {
    let whole = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "a", "data": 1});
    let structured = |name, member: &str, value: Value, names: &[&str]| {
        let mut event = whole.clone();
        event[member] = value;
        bad(name, event.to_string(), 400, names).with("content-type", "application/cloudevents+json")
    };
    let binary = |name, body: &str, names: &[&str]| {
        bad(name, body, 400, names)
            .with("ce-specversion", "1.0")
            .with("ce-id", "1")
            .with("ce-source", "/s")
            .with("ce-type", "t")
            .with("ce-subject", "a")
    };
    vec![
        structured("another specversion", "specversion", json!("0.3"), &["specversion", "0.3"]),
        structured("no id", "id", Value::Null, &["id", "is required"]),
        structured("a source with a space", "source", json!("a b"), &["source", "a b"]),
        structured("no subject", "subject", Value::Null, &["subject", "is required"]),
        structured("a type with a space", "type", json!("a b"), &["type", "a b"]),
        structured("binary data", "data_base64", json!("AAEC"), &["data_base64", "AAEC"]),
        structured("other data", "datacontenttype", json!("text/xml"), &["datacontenttype", "text/xml"]),
        structured("a time that is none", "time", json!("noon"), &["time", "noon"]),
        binary("binary mode without JSON", "<a/>", &["the body", "<a/>"]),
        binary("a subject that cannot be decoded", "1", &["ce-subject", "%FF"]).with("ce-subject", "%FF"),
        binary("an id with a control character", "1", &["ce-id"]).with("ce-id", "a%0Ab"),
    ]
}

#[tokio::test]
async fn each_bad_input_is_refused_by_name_and_stores_nothing() {
    let world = World::start(Settings::default()).await;
    let all: Vec<Bad> = bodies().into_iter().chain(header_fields()).chain(cloud_events()).collect();
    assert!(all.len() >= 70, "the table shrank to {}", all.len());
    for case in all {
        let mut request = world.post_to("/api/v1/events").body(case.body);
        for (name, value) in &case.headers {
            request = request.header(name, value);
        }
        let (status, body) = read(request).await;
        assert_eq!(status, case.status, "{}: {body}", case.name);
        let error = body["error"].as_str().unwrap_or_default();
        for named in &case.names {
            assert!(error.contains(named), "{}: {named:?} is not in {error:?}", case.name);
        }
        assert_eq!(body["status"], case.status, "{}", case.name);
        for field in ["type", "title", "detail"] {
            assert!(body[field].is_string(), "{}: {field} in {body}", case.name);
        }
        for error in body["errors"].as_array().unwrap() {
            assert!(error["value"].as_str().unwrap().chars().count() <= 121, "{}: value is cut", case.name);
        }
        assert_eq!((world.outbox_rows().await, world.keys().await), (0, 0), "{}: stored", case.name);
    }
}

#[tokio::test]
async fn the_limits_themselves_are_accepted() {
    let world = World::start(Settings::default()).await;
    let deep = format!("{}1{}", "[".repeat(64), "]".repeat(64));
    let large = format!("\"{}\"", "x".repeat((1 << 20) - payload("\"\"").len()));
    for body in [
        event("aggregate_id", json!("ü".repeat(255))),
        event("event_type", json!("x".repeat(255))),
        event("event_time", json!("0001-01-01T00:00:00Z")),
        payload(&deep),
        payload(&large),
        payload("[1.7976931348623157e308, 5e-324, -0, 123456789012345678901234567890.123456789]"),
        payload(r#""\ud83d\ude00 \\u0000""#),
    ] {
        let request = world.post_to("/api/v1/events").header("content-type", "application/json; charset=UTF-8");
        let (status, answer) = read(request.body(body.clone())).await;
        assert_eq!(status, 202, "{answer}");
    }
    let digits: String = sqlx::query_scalar(
        "SELECT event_payload #>> '{payload,3}' FROM outbox WHERE event_payload #>> '{payload,3}' IS NOT NULL",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(digits, "123456789012345678901234567890.123456789", "no digit is lost");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_in_time() {
    let limits = Limits { request_time: Duration::from_millis(200), ..Limits::default() };
    let world = World::start(Settings { limits, ..Settings::default() }).await;
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    let head =
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0_u8; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert_eq!(world.outbox_rows().await, 0);
}

#[tokio::test]
async fn bodies_are_bounded_together_and_room_comes_back() {
    let limits = Limits { bodies_bytes: 100_000, event_bytes: 90_000, batch_bytes: 100_000, ..Limits::default() };
    let world = World::start(Settings { limits, ..Settings::default() }).await;
    let mut slow = TcpStream::connect(world.address()).await.unwrap();
    let head =
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 80000\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&vec![b' '; 70_000]).await.unwrap();
    let text = payload(&format!("\"{}\"", "x".repeat(50_000)));
    let post = || world.post_to("/api/v1/events").header("content-type", "application/json").body(text.clone());
    eventually(Duration::from_secs(10), || async {
        let response = post().send().await.unwrap();
        response.status() == 429 && response.headers()["retry-after"] == "1"
    })
    .await;
    let stored = world.outbox_rows().await;
    drop(slow);
    eventually(Duration::from_secs(10), || async { read(post()).await.0 == 202 }).await;
    assert_eq!(world.outbox_rows().await, stored + 1);
}

#[tokio::test]
async fn unknown_event_types_are_accepted_unless_types_are_strict() {
    let unknown = json!({"event_type": "brand.new", "aggregate_id": "a", "payload": {}});
    let world = World::start(Settings::default()).await;
    assert_eq!(world.post(&unknown).await.0, 202);
    let strict = Settings { rules: Rules { strict_types: true, ..Rules::default() }, ..Settings::default() };
    let world = World::start(strict).await;
    let (status, body) = world.post(&unknown).await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("brand.new"), "{body}");
    assert_eq!(world.post(&reading("a", 1)).await.0, 202);
}
