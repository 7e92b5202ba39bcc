//! Log lines: for machines where nobody looks, for people on a terminal.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Bus, Launch, Platform, Server, eventually, fresh_database};

const SOON: Duration = Duration::from_mins(1);

async fn ingest(name: &str) -> Launch {
    Platform::new(name, fresh_database().await, Bus::Embedded).ingest()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_each_line_is_one_json_object() {
    let mut process = ingest("logs-json").await.ready().await;
    let log = process.log();
    assert!(tokio::task::block_in_place(|| process.terminate()).success());
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let said = lines.iter().find(|line| line["message"].as_str().is_some_and(|m| m.starts_with("ingest listens on ")));
    let said = said.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(said["level"], "INFO", "{said}");
    assert!(said["address"].is_string(), "what a message says is a field as well: {said}");
    let time = said["timestamp"].as_str().expect("a time");
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
}

/// In a shell of its own on a pseudo terminal, with everything it prints in the log.
fn on_a_terminal(launch: &Launch) -> Server {
    let command = launch.command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().expect("text"))).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--command", &format!("exec {}", line.join(" ")), "/dev/null"]);
    script.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("TERM", "xterm");
    Server::start(&launch.name, script, "TERM")
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_lines_are_for_people() {
    let launch = ingest("logs-terminal").await;
    let server = on_a_terminal(&launch);
    let log = eventually(SOON, || async {
        let log = server.log_tail();
        if log.contains("ingest listens on ") { Ok(log) } else { Err(log) }
    })
    .await;
    let line = log.lines().find(|line| line.contains("ingest listens on ")).expect("found above");
    assert!(line.contains("INFO") && line.contains("\u{1b}["), "it has colours: {line:?}");
    assert!(serde_json::from_str::<Value>(line).is_err() && !line.contains("{\""), "{line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_format_can_be_chosen() {
    let mut process = ingest("logs-text").await.env("CORNJACKET_LOG_FORMAT", "text").ready().await;
    let log = process.log();
    assert!(tokio::task::block_in_place(|| process.terminate()).success());
    assert!(log.contains("ingest listens on ") && !log.contains("{\"") && !log.contains('\u{1b}'), "{log}");
}
