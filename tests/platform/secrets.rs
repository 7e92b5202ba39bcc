//! No log line, error, help text or answer of a role shows a password: of a database, or of a Kafka cluster.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cornjacket::cli::up::postgres::PrivatePostgres;
use secrecy::ExposeSecret;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;

use crate::harness::http;
use crate::harness::{
    Bus, Database, Launch, Platform, Process, SASL_PASSWORD, SASL_USER, eventually, free_port, fresh_database,
    shared_kafka_with_sasl, stop_at_end,
};
use crate::operations::{all_end_well, roles};

const SOON: Duration = Duration::from_mins(1);
/// A password that occurs nowhere else.
const SECRET: &str = "xyzzy-plugh-4711";

/// The roles that talk to Kafka.
const ON_KAFKA: [&str; 3] = ["controllers", "relay", "handler"];

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

/// A database that asks for a password, which the shared one of the tests does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_of_the_database_is_complained_of_and_neither_it_nor_the_right_one_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    // As root, PostgreSQL runs as somebody else.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let postgres = PrivatePostgres::start(dir.path(), |_| ()).await.unwrap();
    stop_at_end(postgres.pid(), "QUIT");
    let right = postgres.url().expose_secret().to_owned();
    let port = right.parse::<PgConnectOptions>().unwrap().get_port();
    let right = right.split(['@', ':']).nth(2).expect("user, password, host").to_owned();
    assert!(right.len() > 8, "the password is found");
    let url = format!("postgres://cornjacket:{SECRET}@127.0.0.1:{port}/cornjacket");
    let platform = Platform::new("wrong-password", Database { url }, Bus::Embedded);
    for (role, launch) in roles(&platform) {
        let log = complaint(&talkative(launch)).await;
        assert!(log.contains("password authentication failed"), "{role} says why:\n{log}");
        assert_hidden(role, &log, &right);
    }
    postgres.stop().await;
}

/// Everything there is to log, with a password for Kafka.
fn with_sasl(launch: Launch, password: &str) -> Launch {
    let properties = format!(
        "security.protocol=SASL_PLAINTEXT;sasl.mechanism=PLAIN;sasl.username={SASL_USER};sasl.password={password};\
         log_level=7;debug=security,conf,admin,broker"
    );
    launch.env("CORNJACKET_LOG", "trace").env("KAFKA_PROPERTIES", properties)
}

/// Whatever a process shows: its log, and its answers to operators.
async fn everything_shown(process: &Process) -> String {
    let client = http::client();
    let mut shown = vec![process.log()];
    for path in ["/", "/healthz", "/readyz", "/health", "/metrics"] {
        if let Ok(answer) = http::get(&client, &process.url(path)).await {
            shown.push(format!("{path}: {}", answer.body));
        }
    }
    shown.join("\n")
}

/// Names the line in which a password stands, and not the thousands around it.
fn assert_hidden(role: &str, shown: &str, password: &str) {
    for secret in [password, SECRET] {
        if let Some(line) = shown.lines().find(|line| line.contains(secret)) {
            panic!("{role} shows a password: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_role_shows_no_password_of_kafka() {
    let bus = Bus::Kafka(shared_kafka_with_sasl().await);
    let platform = Platform::new("sasl", with_password(&fresh_database().await), bus);
    let mut running = Vec::new();
    for (role, launch) in roles(&platform) {
        running.push((role, with_sasl(launch, SASL_PASSWORD).ready().await));
    }
    let url = |role: &str, path: &str| {
        let (_, process) = running.iter().find(|(name, _)| *name == role).expect("it runs");
        process.url(path)
    };
    let client = http::client();
    let event = json!({"event_type": "sensor.reading", "aggregate_id": "a", "payload": {"value": 1}});
    let answer = http::post(&client, &url("ingest", "/api/v1/events"), &event).await.unwrap();
    let id = answer.body["event_id"].as_str().expect("accepted").to_owned();
    let row = format!("/api/v1/projections/sensor_state/a?after_event={id}&timeout=25s");
    let row = http::get(&client, &url("query", &row)).await.unwrap();
    assert_eq!(row.status, 200, "through a broker that asks for the password: {}", row.body);
    for (role, process) in &running {
        let shown = everything_shown(process).await;
        assert!(shown.contains("cornjacket_build_info"), "{role}");
        assert_hidden(role, &shown, SASL_PASSWORD);
    }
    all_end_well(running);
}

/// Starts the roles that talk to Kafka and waits until each has said why it cannot.
async fn they_complain(name: &str, brokers: String, password: &str, why: &str) {
    let platform = Platform::new(name, with_password(&fresh_database().await), Bus::Kafka(brokers));
    assert!(tokio::task::block_in_place(|| platform.migrate().output()).expect("it starts").status.success());
    for (role, launch) in roles(&platform).into_iter().filter(|(role, _)| ON_KAFKA.contains(role)) {
        let process = with_sasl(launch, password).start();
        let is_one = |line: &str| {
            let loud = line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\"");
            loud && line.contains(why)
        };
        let shown = eventually(SOON, || async {
            let shown = everything_shown(&process).await;
            let complaint = shown.lines().find(|line| is_one(line)).map(str::to_owned);
            complaint.map(|complaint| (shown, complaint))
        })
        .await;
        eprintln!("{role}: {}", shown.1);
        assert_hidden(role, &shown.0, password);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_of_kafka_is_complained_of_and_not_shown() {
    let brokers = shared_kafka_with_sasl().await;
    they_complain("sasl-wrong", brokers, "not-the-right-4711", "uthentication failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_complained_of_without_the_password() {
    let nowhere = format!("127.0.0.1:{}", free_port());
    they_complain("sasl-away", nowhere, "not-to-be-seen-4711", "onnection refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_property_of_kafka_is_refused_by_its_name_alone() {
    let platform = Platform::new("sasl-misspelt", fresh_database().await, Bus::Kafka("127.0.0.1:9".to_owned()));
    tokio::task::block_in_place(|| assert!(platform.migrate().output().expect("it starts").status.success()));
    for (role, launch) in roles(&platform).into_iter().filter(|(role, _)| ON_KAFKA.contains(role)) {
        let process = launch.env("KAFKA_PROPERTIES", format!("sasl.pasword={SECRET}")).start();
        let shown = eventually(SOON, || async {
            let log = process.log();
            if log.contains("sasl.pasword") { Ok(log) } else { Err(log) }
        })
        .await;
        assert!(!shown.contains(SECRET), "{role}:\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_a_password_is_told_without_it() {
    let address = format!("http://somebody:{SECRET}@127.0.0.1:{}", free_port());
    for arguments in [vec!["event", "send", "--type", "t", "--aggregate", "a"], vec!["event", "tail"]] {
        let mut launch = Launch::new("address", 0, &arguments);
        launch.arguments.extend(["--url".to_owned(), address.clone()]);
        let output = tokio::task::block_in_place(|| launch.command().output()).expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("cannot reach http://"), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }
}
