//! What operators rely on in every role: health, readiness, metrics, and an orderly end.

use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Client;

use crate::harness::http::{self, Answer};
use crate::harness::{Bus, Launch, OwnPostgres, Platform, Process, eventually, free_port, fresh_database};

const SOON: Duration = Duration::from_mins(1);

/// Every role, in the order in which they are started, with the name that it answers by.
pub fn roles(platform: &Platform) -> [(&'static str, Launch); 5] {
    [
        ("controllers", platform.controllers()),
        ("ingest", platform.ingest()),
        ("relay", platform.relay("")),
        ("handler", platform.handle("")),
        ("query", platform.query()),
    ]
}

async fn start(platform: &Platform) -> Vec<(&'static str, Process)> {
    let mut running = Vec::new();
    for (name, launch) in roles(platform) {
        running.push((name, launch.ready().await));
    }
    running
}

async fn ask(client: &Client, process: &Process, path: &str) -> Answer {
    http::get(client, &process.url(path)).await.expect("the process answers")
}

async fn is_healthy(client: &Client, role: &str, process: &Process) {
    for path in ["/healthz", "/readyz", "/health"] {
        let answer = ask(client, process, path).await;
        assert_eq!(answer.status, 200, "{role}{path}: {}", answer.body);
        assert_eq!((&answer.body["status"], &answer.body["role"]), (&"ok".into(), &role.into()), "{path}");
    }
}

async fn has_metrics(client: &Client, role: &str, process: &Process) {
    let answer = ask(client, process, "/metrics").await;
    let text = answer.body.as_str().unwrap_or_default();
    let said = text
        .lines()
        .find(|line| line.starts_with("cornjacket_build_info{"))
        .unwrap_or_else(|| panic!("{role}: {text}"));
    assert!(said.contains(&format!("role=\"{role}\"")) && said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    assert!(said.ends_with(" 1"), "{said}");
    for line in text.lines().filter(|line| line.starts_with("cornjacket_")) {
        let name: String = line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let suffixes = ["_bucket", "_sum", "_count", ""];
        let documented = suffixes
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .any(|name| text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} ")));
        assert!(documented, "{role}: {name} has no HELP or no TYPE");
    }
}

async fn names_what_it_answers(client: &Client, role: &str, process: &Process) {
    let answer = ask(client, process, "/").await;
    assert_eq!((answer.status, &answer.body["service"]), (200, &role.into()), "{}", answer.body);
    let paths = answer.body["paths"].as_array().expect("a list").clone();
    assert_eq!(paths.contains(&"/docs".into()), role != "controllers", "{role}: {paths:?}");
    for path in &paths {
        let path = path.as_str().expect("a path");
        assert_eq!(ask(client, process, path).await.status, 200, "{role}: {path}");
    }
}

/// What `get` says of a database in which everything was ready.
#[tokio::test(flavor = "multi_thread")]
async fn get_says_that_nothing_runs_when_nothing_does() {
    let platform = Platform::new("silent", fresh_database().await, Bus::Embedded);
    let get = || {
        let launch = Launch::new("get", 0, &["get"]).env("EVENTHANDLER_DATABASE_URL", &platform.database().url);
        let output = launch.command().output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let running = start(&platform).await;
    let line = |table: &str| table.lines().find(|line| line.starts_with("projection/sensor-state ")).map(str::to_owned);
    eventually(SOON, || async {
        let table = get();
        line(&table).filter(|line| line.contains("Available")).ok_or(table)
    })
    .await;
    // Killed, they take no leave: their heartbeats look young for a while.
    for (_, mut process) in running {
        tokio::task::block_in_place(|| process.kill9());
    }
    eventually(Duration::from_secs(3), || async {
        let table = get();
        let line = line(&table).filter(|line| line.contains("Unknown") && line.contains("NoInstances"));
        line.filter(|line| line.contains("nothing is running: no process is connected")).ok_or(table)
    })
    .await;
}

pub fn all_end_well(running: Vec<(&'static str, Process)>) {
    for (role, mut process) in running.into_iter().rev() {
        let status = tokio::task::block_in_place(|| process.terminate());
        assert!(status.success(), "{role}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_tells_of_itself_and_ends_on_sigterm() {
    let platform = Platform::new("operations", fresh_database().await, Bus::Embedded);
    let (running, client) = (start(&platform).await, http::client());
    for (role, process) in &running {
        is_healthy(&client, role, process).await;
        has_metrics(&client, role, process).await;
        names_what_it_answers(&client, role, process).await;
    }
    all_end_well(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_every_role_lives_and_says_that_it_is_not_ready() {
    let mut postgres = tokio::task::block_in_place(|| OwnPostgres::start_new("postgres-operations"));
    let platform = Platform::new("database-away", postgres.fresh_database().await, Bus::Embedded);
    let (running, client) = (start(&platform).await, http::client());
    tokio::task::block_in_place(|| postgres.stop());
    for (role, process) in &running {
        let pending = eventually(SOON, || async {
            let answer = http::get(&client, &process.url("/readyz")).await.map_err(|e| e.to_string())?;
            if answer.status == 503 {
                Ok(answer.body)
            } else {
                Err(format!("{role}: {} {}", answer.status, answer.body))
            }
        })
        .await;
        let gates = pending["pending"].as_object().expect("a map of what is pending");
        assert!(!gates.is_empty() && gates.values().all(|why| why != ""), "{role}: {pending}");
        assert_eq!(ask(&client, process, "/healthz").await.status, 200, "{role}: a restart would not help");
        assert_eq!(ask(&client, process, "/metrics").await.status, 200, "{role}");
    }
    tokio::task::block_in_place(|| postgres.start());
    for (role, process) in &running {
        eventually(SOON, || async {
            let answer = http::get(&client, &process.url("/readyz")).await.map_err(|e| e.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{role}: {}", answer.body)) }
        })
        .await;
    }
    all_end_well(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_reaches_no_broker_is_not_ready_and_says_why() {
    let nowhere = Bus::Kafka(format!("127.0.0.1:{}", free_port()));
    let platform = Platform::new("no-broker", fresh_database().await, nowhere);
    let handle = platform.handle("").start();
    eventually(Duration::from_secs(30), || async {
        let answer = http::get(&http::client(), &handle.url("/readyz")).await.map_err(|e| e.to_string())?;
        let told = answer.status == 503 && answer.body["pending"]["handler bus"] == "no Kafka broker answers";
        if told { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_start_that_waits_for_a_silent_database() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://cornjacket@{}/cornjacket?sslmode=disable", silent.local_addr().unwrap());
    let platform = Platform::new("silent-start", fresh_database().await, Bus::Embedded);
    let mut relay = platform.relay("").env("INGESTION_DATABASE_URL", &url).start();
    let (_waits, _) = silent.accept().await.unwrap();
    relay.signal(Signal::SIGTERM);
    let status = tokio::task::block_in_place(|| relay.wait_for_end(Duration::from_secs(30)));
    let log = relay.log();
    assert!(!status.success() && log.contains("told to stop before it had started"), "{status}: {log}");
}
