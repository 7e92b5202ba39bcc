//! What operators rely on in every role: health, readiness, metrics, an orderly end, and logs without passwords.

use std::time::Duration;

use reqwest::Client;

use crate::harness::http::{self, Answer};
use crate::harness::{Bus, Database, Launch, OwnPostgres, Platform, Process, eventually, free_port, fresh_database};

const SOON: Duration = Duration::from_mins(1);
/// A password that occurs nowhere else.
const SECRET: &str = "xyzzy-plugh-4711";

/// Every role, in the order in which they are started, with the name that it answers by.
fn roles(platform: &Platform) -> [(&'static str, Launch); 5] {
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
    all_end_well(running);
    let table = get();
    let line = line(&table).expect("a line");
    assert!(line.contains("Unknown") && line.contains("NoInstances") && line.contains("nothing is running"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_none_is_refused_by_flag_and_variable() {
    for url in [format!("cornjacket:{SECRET}@127.0.0.1/cornjacket"), format!("postgres://u:{SECRET}@127.0.0.1:port/db")]
    {
        let platform = Platform::new("no-url", Database { url }, Bus::Embedded);
        for (role, launch) in roles(&platform) {
            let output = launch.command().output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{role} started");
            assert!(
                said.contains("-database-url (") && said.contains("_DATABASE_URL): not the URL"),
                "{role}:\n{said}"
            );
            assert!(!said.contains(SECRET), "{role}:\n{said}");
        }
    }
}

fn all_end_well(running: Vec<(&'static str, Process)>) {
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

/// The database with a password in its URL.
fn with_password(database: &Database) -> Database {
    Database { url: database.url.replacen("cornjacket@", &format!("cornjacket:{SECRET}@"), 1) }
}

fn talkative(launch: Launch) -> Launch {
    launch.env("CORNJACKET_LOG", "trace").env("KAFKA_PROPERTIES", format!("sasl.password={SECRET}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_role_logs_no_password() {
    let database = with_password(&fresh_database().await);
    assert!(database.url.contains(SECRET));
    let platform = Platform::new("passwords", database, Bus::Embedded);
    let mut running = Vec::new();
    for (role, launch) in roles(&platform) {
        running.push((role, talkative(launch).ready().await));
    }
    for (role, process) in &running {
        let log = process.log();
        assert!(!log.is_empty() && !log.contains(SECRET), "{role}:\n{log}");
    }
}

/// What a process that cannot reach its database writes until it ends, or says that it is not ready.
async fn complaint(launch: &Launch) -> String {
    let client = http::client();
    let process = launch.start();
    eventually(SOON, || async {
        let waits = http::get(&client, &process.url("/readyz")).await.is_ok_and(|answer| answer.status == 503);
        let log = process.log();
        let told = log.contains("error: ") || waits && log.contains("cannot");
        if told { Ok(log) } else { Err(log) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_an_error_nor_help_shows_a_password() {
    let urls = [
        format!("postgres://cornjacket:{SECRET}@127.0.0.1:{}/cornjacket", free_port()),
        format!("postgres://cornjacket:{SECRET}@no-such-host.invalid/cornjacket"),
    ];
    for (number, url) in urls.into_iter().enumerate() {
        let platform = Platform::new(&format!("unreachable-{number}"), Database { url }, Bus::Embedded);
        for (role, launch) in roles(&platform) {
            let launch = talkative(launch);
            let log = complaint(&launch).await;
            assert!(!log.contains(SECRET), "{role}:\n{log}");
            let help = launch.command().arg("--help").output().expect("it starts");
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            assert!(help.contains("DATABASE_URL") && !help.contains(SECRET), "{role}:\n{help}");
        }
    }
}
