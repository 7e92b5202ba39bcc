//! `cornjacket webhook`: a receiver for development, and signatures by hand.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use chrono::Utc;
use cornjacket::actions::signature::{ID, SIGNATURE, SigningKey, TIMESTAMP, sign};
use nix::sys::signal::Signal;
use reqwest::Response;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Launch, Process, eventually, free_port, http};

const SECRET: &str = "whsec_Y29ybmphY2tldC1yZWNlaXZlcnMtb2YtdGVzdHM=";
const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// `webhook listen` on a port of its own.
struct Listener {
    process: Process,
    port: u16,
}

impl Listener {
    async fn start(name: &str, arguments: &[&str]) -> Self {
        let port = free_port();
        let number = port.to_string();
        let all = [&["webhook", "listen", "--port", &number], arguments].concat();
        let launch = Launch::new(name, port, &all).env("CORNJACKET_LOG_FORMAT", "text");
        let process = launch.env("CORNJACKET_WEBHOOK_SECRET", format!("{SECRET},{OTHER}")).start();
        eventually(Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port))).await;
        Self { process, port }
    }

    /// Posts a body as the delivery of an id, signed with a secret.
    async fn deliver(&self, id: &str, secret: &str, body: &str) -> Response {
        let (now, key) = (Utc::now().timestamp(), SigningKey::read(secret.as_bytes()).unwrap());
        let request = http::client().post(self.process.url("/hooks/a?b=c")).body(body.to_owned());
        let request = request.header(ID, id).header(TIMESTAMP, now.to_string()).header("authorization", "Bearer frotz");
        request.header(SIGNATURE, sign(&[key], id, now, body.as_bytes())).send().await.unwrap()
    }

    /// The requests that were printed as JSON, of which there are so many.
    async fn printed(&self, count: usize) -> Vec<Value> {
        eventually(Duration::from_secs(10), async || {
            let log = self.process.log();
            let lines = log.lines().filter(|line| line.starts_with('{'));
            let printed: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
            (printed.len() == count).then_some(printed)
        })
        .await
    }
}

#[tokio::test]
async fn people_see_each_request_and_whether_its_signature_is_right() {
    let listener = Listener::start("listen-text", &["--print-bytes", "40"]).await;
    assert_eq!(listener.deliver("m1", OTHER, r#"{"b":1.50,"a":[]}"#).await.status(), 200);
    let wide = format!("{{\"long\":\"{}\"}}", "x".repeat(100));
    assert_eq!(listener.deliver("m1", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", &wide).await.status(), 200);
    let unsigned = http::client().get(listener.process.url("/")).send().await.unwrap();
    assert_eq!(unsigned.status(), 200);
    eventually(Duration::from_secs(10), async || listener.process.log().contains("#3")).await;
    let log = listener.process.log();
    for said in [
        "  POST /hooks/a?b=c  answered 200\n  webhook-id: m1\n  signature: right, by secret 2 of 2\n",
        "  {\n    \"b\": 1.50,\n    \"a\": []\n  }\n\n",
        "  webhook-id: m1  (again: time 2)\n  signature: WRONG: no signature is by this secret",
        "xxx… (111 bytes in all: see more by --print-bytes)\n",
        "  GET /  answered 200\n  signature: WRONG: the header webhook-id is missing\n  (no body)\n",
    ] {
        assert!(log.contains(said), "{said}\nis not in\n{log}");
    }
    assert!(!log.contains("frotz") && !log.contains("whsec_"), "{log}");
}

#[tokio::test]
async fn each_delivery_goes_through_the_script() {
    let arguments = ["--respond", "500,503,200", "--retry-after", "3", "-o", "json"];
    let listener = Listener::start("listen-script", &arguments).await;
    let mut answers = Vec::new();
    for id in ["a", "b", "a", "a", "a", "b"] {
        let response = listener.deliver(id, SECRET, "{}").await;
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(retry_after.as_deref(), (!response.status().is_success()).then_some("3"));
        answers.push(response.status().as_u16());
    }
    assert_eq!(answers, [500, 500, 503, 200, 200, 503]);
    let printed = listener.printed(6).await;
    let field = |name: &str| printed.iter().map(|request| request[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("webhook_id"), ["a", "b", "a", "a", "a", "b"]);
    assert_eq!(field("times"), [1, 1, 2, 3, 4, 2]);
    assert_eq!(field("status"), answers);
    assert_eq!(field("number"), [1, 2, 3, 4, 5, 6]);
    assert!(printed.iter().all(|request| request["signature"] == "right" && request["body"] == "{}"), "{printed:?}");
}

#[tokio::test]
async fn a_strict_one_refuses_what_is_not_signed_and_bodies_are_bounded_in_size_and_time() {
    let arguments = ["--strict", "--body-bytes", "100", "--read-seconds", "1", "-o", "json"];
    let listener = Listener::start("listen-strict", &arguments).await;
    assert_eq!(listener.deliver("m", SECRET, "{}").await.status(), 200);
    let unsigned = http::client().put(listener.process.url("/any/path")).body("{}").send().await.unwrap();
    assert_eq!(unsigned.status(), 401);
    assert_eq!(listener.deliver("m", SECRET, &"x".repeat(100)).await.status(), 200);
    assert_eq!(listener.deliver("m", SECRET, &"x".repeat(101)).await.status(), 413);

    let mut slow = TcpStream::connect(("127.0.0.1", listener.port)).await.unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");

    let printed = listener.printed(5).await;
    let signatures: Vec<_> = printed.iter().map(|request| request["signature"].as_str().unwrap()).collect();
    assert_eq!(signatures, ["right", "wrong", "right", "unknown", "unknown"]);
    assert!(printed[3]["body_error"].as_str().unwrap().contains("longer than 100 bytes"), "{}", printed[3]);
    assert!(printed[4]["body_error"].as_str().unwrap().contains("within 1 s"), "{}", printed[4]);
}

#[tokio::test]
async fn an_answer_is_kept_back_but_not_beyond_the_end() {
    let listener = Listener::start("listen-delay", &["--delay", "10m", "-o", "json"]).await;
    let answer = tokio::spawn(http::client().post(listener.process.url("/")).body("{}").send());
    listener.printed(1).await;
    assert!(!answer.is_finished(), "it is kept back");
    let begun = Instant::now();
    let Listener { mut process, .. } = listener;
    process.signal(Signal::SIGINT);
    let status = process.wait_for_end(Duration::from_secs(10));
    assert!(status.success(), "{status}: {}", process.log());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(answer.await.unwrap().unwrap().status(), 200, "it is answered all the same");
}

#[tokio::test]
async fn it_ends_when_nobody_reads_what_it_prints_any_more() {
    let port = free_port();
    let launch = Launch::new("listen-closed", port, &["webhook", "listen", "--port", &port.to_string()]);
    let mut child = launch.command().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    eventually(Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port))).await;
    drop(child.stdout.take());
    http::client().post(format!("http://127.0.0.1:{port}/")).send().await.unwrap();
    let status = eventually(Duration::from_secs(10), || std::future::ready(child.try_wait().unwrap())).await;
    assert!(status.success(), "{status}");
}

async fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = Launch::new("webhook", 0, arguments).command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // What ends without reading its input closes it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    tokio::time::timeout(Duration::from_mins(1), running).await.expect("the command ends").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn what_cannot_work_is_said_in_a_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, said) in [
        (vec!["listen", "--port", &port], "is the port in use? Choose another"),
        (vec!["listen", "--strict"], "no secret is given"),
        (vec!["listen", "--secret", "whsec_xyzzy"], "--secret (CORNJACKET_WEBHOOK_SECRET) number 1"),
        (vec!["listen", "--status", "99"], "99 is not in 200..=599"),
        (vec!["listen", "--delay", "soon"], "'soon' is no duration"),
        (vec!["sign"], "no secret is given"),
        (vec!["sign", "--secret", SECRET, "--id", "a.b"], "without full stop"),
        (vec!["sign", "--secret", SECRET, "/no/such/file"], "/no/such/file"),
        (vec!["verify", "--secret", SECRET, "--headers", "/no/such/file"], "/no/such/file"),
    ] {
        let output = run(&[&["webhook"], &arguments[..]].concat(), "").await;
        assert!(!output.status.success(), "{arguments:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(said) && !stderr.contains("xyzzy"), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn what_is_signed_is_verified_and_what_is_changed_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (secret, headers, body) = (path("secret"), path("headers"), path("body"));
    let made = run(&["webhook", "secret"], "").await;
    assert!(text(&made.stdout).starts_with("whsec_"));
    std::fs::write(&secret, &made.stdout).unwrap();
    std::fs::write(&body, "{\"größe\": 1}\n").unwrap();
    let signed = run(&["webhook", "sign", "--secret", OTHER, "--secret-file", &secret, &body], "").await;
    assert!(signed.status.success(), "{}", text(&signed.stderr));
    std::fs::write(&headers, &signed.stdout).unwrap();

    let verify = async |more: &[&str], input: &str| {
        let all = [&["webhook", "verify", "--headers", &headers], more].concat();
        let output = run(&all, input).await;
        (output.status.code().unwrap(), text(&output.stdout))
    };
    assert_eq!(verify(&["--secret-file", &secret, &body], "").await, (0, "right\n".to_owned()));
    let both = ["--secret-file", &secret, "--secret", OTHER];
    assert_eq!(verify(&both, "{\"größe\": 1}\n").await, (0, "right: by secret 1 of 2\n".to_owned()));
    let (code, said) = verify(&["--secret-file", &secret], "{\"größe\": 1}").await;
    assert!(code == 1 && said.starts_with("wrong: no signature is by this secret"), "{said}");
    let (code, said) = verify(&["--secret", SECRET, &body], "").await;
    assert!(code == 1 && said.starts_with("wrong: no signature is by this secret"), "{said}");

    let old = run(&["webhook", "sign", "--secret", OTHER, "--id", "m", "--timestamp", "1000", "-o", "json"], "").await;
    let old: Value = serde_json::from_slice(&old.stdout).unwrap();
    let header = |name: &str| old[name].as_str().unwrap();
    let given =
        ["--secret", OTHER, "--id", header(ID), "--timestamp", header(TIMESTAMP), "--signature", header(SIGNATURE)];
    let (code, said) = verify(&given, "").await;
    assert!(code == 1 && said.starts_with("wrong: signed ") && said.contains("at most 300 s"), "{said}");
    assert_eq!(verify(&[&given[..], &["--any-time"]].concat(), "").await.0, 0);
    assert_eq!(verify(&[&given[..], &["--tolerance-seconds", "9000000000"]].concat(), "").await.0, 0);
}
