//! `event send` and `event tail` against running services.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Bus, Launch, Platform, Process, eventually, fresh_database};

/// Ingest, relay and query.
struct Services {
    ingest: Process,
    query: Process,
    _relay: Process,
}

impl Services {
    async fn start(name: &str) -> Self {
        let platform = Platform::new(name, fresh_database().await, Bus::Embedded);
        // Ingest applies the migrations of its tables, the handler those that query reads.
        let ingest = platform.ingest().ready().await;
        let _ = platform.handle("").ready().await;
        let (relay, query) = tokio::join!(platform.relay("").ready(), platform.query().ready());
        Self { ingest, query, _relay: relay }
    }

    async fn send(&self, arguments: &[&str], input: &str) -> Output {
        let all: Vec<&str> = ["event", "send"].iter().chain(arguments).copied().collect();
        run(&Launch::new("send", 0, &all).env("CORNJACKET_INGESTION_URL", self.ingest.url("")), input).await
    }

    /// The events that a tail which does not follow prints.
    async fn tail(&self, arguments: &[&str]) -> Vec<Value> {
        let end = ["--no-follow", "-o", "json"];
        let all: Vec<&str> = ["event", "tail"].iter().chain(arguments).chain(&end).copied().collect();
        let launch = Launch::new("tail", 0, &all).env("CORNJACKET_QUERY_URL", self.query.url(""));
        let output = run(&launch, "").await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn run(launch: &Launch, input: &str) -> Output {
    let mut command = launch.command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // What ends without reading its input closes it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    });
    tokio::time::timeout(Duration::from_mins(1), running).await.expect("the command ends").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn event(n: usize) -> String {
    json!({"event_type": "meter.read", "aggregate_id": format!("m{}", n % 7), "payload": {"n": n}}).to_string()
}

#[tokio::test]
async fn a_file_is_sent_whole_refusals_named_by_line_and_a_repeated_key_accepts_nothing_twice() {
    let services = Services::start("event-file").await;
    let mut lines: Vec<String> = (1..=1200).map(event).collect();
    lines[699] = "{not json}".to_owned();
    lines[899] = json!({"event_type": "meter.read", "payload": {}}).to_string();
    let input = lines.join("\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &input).unwrap();
    let path = file.path().display().to_string();
    for (arguments, input) in [(vec!["-f", &path], ""), (vec![], input.as_str())] {
        let arguments: Vec<&str> = arguments.into_iter().chain(["--idempotency-key", "once"]).collect();
        let output = services.send(&arguments, input).await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stdout.starts_with("1198 accepted, 2 refused in "), "{stdout}");
        let refused: Vec<&str> = stderr.lines().collect();
        assert_eq!(refused.len(), 2, "{stderr}");
        assert!(refused.iter().any(|line| line.starts_with("line 700: is no JSON")), "{stderr}");
        assert!(refused.iter().any(|line| line.starts_with("line 900: ") && line.contains("aggregate_id")), "{stderr}");
    }
    let all = eventually(Duration::from_secs(20), async || {
        let all = services.tail(&["--from", "earliest"]).await;
        (all.len() >= 1198).then_some(all)
    })
    .await;
    assert_eq!(all.len(), 1198, "nothing twice");
    for aggregate in 0..7 {
        let own = format!("m{aggregate}");
        let numbers = |events: &[Value]| -> Vec<u64> {
            let own = events.iter().filter(|e| e["aggregate_id"] == own.as_str());
            own.map(|e| e["payload"]["n"].as_u64().unwrap()).collect()
        };
        let seen = numbers(&all);
        assert!(seen.is_sorted() && seen.len() > 150);
        assert_eq!(numbers(&services.tail(&["--from", "earliest", "--aggregate", &own]).await), seen);
    }
}

#[tokio::test]
async fn one_event_comes_from_arguments_and_many_from_an_array_and_a_tail_follows() {
    let services = Services::start("event-arguments").await;
    let launch = Launch::new("event-follow", 0, &["event", "tail", "--type", "meter.read"]);
    let tail = launch.env("CORNJACKET_QUERY_URL", services.query.url("")).start();
    // A tail begins with what comes after it has connected, which it does not tell: events are sent until one is seen.
    let arguments = ["--type", "meter.read", "--aggregate", "m1", "--payload", "{\"n\": 1.50}"];
    eventually(Duration::from_secs(20), async || {
        let output = services.send(&arguments, "").await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        let id = text(&output.stdout).trim().to_owned();
        let stored = services.tail(&["--from", &id]).await;
        assert!(stored.is_empty() || stored[0]["event_type"] == "meter.read");
        tail.log().contains("  meter.read  m1  {\"n\":1.5}")
    })
    .await;
    let refused = services.send(&["--type", "meter.read", "--aggregate", ""], "").await;
    assert!(text(&refused.stderr).starts_with("refused: aggregate_id: "), "{}", text(&refused.stderr));
    let array = format!(
        "[{},\n {},\n{{\"event_type\": \"other\",\n \"aggregate_id\": \"o\", \"payload\": {{}}}}]",
        event(1),
        event(2)
    );
    let output = services.send(&["-f", "-"], &array).await;
    assert!(text(&output.stdout).starts_with("3 accepted, 0 refused"), "{}", text(&output.stderr));
    eventually(Duration::from_secs(20), async || {
        services.tail(&["--from", "earliest", "--type", "other"]).await.len() == 1
    })
    .await;
    assert!(!tail.log().contains("  other  "));
}

#[tokio::test]
async fn what_cannot_work_is_said_at_once() {
    let nowhere = "http://127.0.0.1:9";
    for (arguments, said) in [
        (vec!["event", "send", "--url", nowhere, "--type", "t", "--aggregate", "a"], "cannot reach http://127.0.0.1:9"),
        (vec!["event", "tail", "--url", nowhere], "cannot reach http://127.0.0.1:9"),
        (vec!["event", "send", "--type", "t"], "--aggregate"),
        (vec!["event", "send", "--type", "t", "--aggregate", "a", "--payload", "{"], "--payload: '{' is no JSON"),
        (vec!["event", "send", "-f", "/no/such/file"], "cannot open /no/such/file"),
    ] {
        let output = run(&Launch::new("wrong", 0, &arguments), "").await;
        assert!(
            !output.status.success() && text(&output.stderr).contains(said),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
}
