//! What README.md, ARCHITECTURE.md and CONTRIBUTING.md name is there: commands, flags, variables, files, metrics.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::Cli;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(&'static str, String)> {
    let read = |name| (name, std::fs::read_to_string(root().join(name)).expect("a document"));
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(read).into()
}

/// Words of a text that begin so, cut where the name ends.
fn names<'a>(text: &'a str, prefix: &str, part: impl Fn(char) -> bool) -> BTreeSet<&'a str> {
    let starts = text.match_indices(prefix).map(|(at, _)| at);
    let whole = starts.filter(|at| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || "_-/.".contains(c)));
    whole.map(|at| text[at..].split(|c| !part(c)).next().unwrap_or_default()).collect()
}

/// Every command with those below it.
fn commands() -> Vec<clap::Command> {
    let mut cli = Cli::command();
    cli.build();
    let mut all = vec![cli];
    let mut at = 0;
    while at < all.len() {
        let below: Vec<_> = all[at].get_subcommands().cloned().collect();
        all.extend(below);
        at += 1;
    }
    all
}

#[test]
fn every_flag_command_and_variable_of_the_readme_exists() {
    let commands = commands();
    let flags: BTreeSet<String> = commands
        .iter()
        .flat_map(|c| c.get_arguments().filter_map(|a| a.get_long()).map(|l| format!("--{l}")))
        .collect();
    let variables: BTreeSet<String> = commands
        .iter()
        .flat_map(|c| c.get_arguments().filter_map(|a| a.get_env()).map(|v| v.display().to_string()))
        .collect();
    // Those of cargo, of kubectl, of scripts and of the tests.
    let others = [
        "--help",
        "--test",
        "--lib",
        "--update",
        "--without-helm",
        "--for",
        "--all",
        "--replicas",
        "TEST_POSTGRES_BIN",
        "KAFKA_HOME",
        "TEST_PATIENCE",
    ];
    for (file, text) in documents() {
        for flag in names(&text, "--", |c| c.is_ascii_lowercase() || c == '-') {
            let known = flag.trim_matches('-').is_empty() || flags.contains(flag) || others.contains(&flag);
            assert!(known, "{file}: {flag} is no flag");
        }
        for prefix in ["CORNJACKET_", "KAFKA_", "MQTT_", "INGESTION_", "EVENTHANDLER_", "QUERY_", "TEST_"] {
            for variable in names(&text, prefix, |c| c.is_ascii_uppercase() || c == '_') {
                assert!(
                    variables.contains(variable) || others.contains(&variable),
                    "{file}: {variable} is no variable"
                );
            }
        }
        for words in text.split("cornjacket ").skip(1) {
            let command: String = words.chars().take_while(char::is_ascii_lowercase).collect();
            let prose = words.starts_with(|c: char| !c.is_ascii_lowercase());
            assert!(
                prose || commands.iter().any(|c| c.get_name() == command),
                "{file}: cornjacket {command} is no command"
            );
        }
    }
}

#[test]
fn every_default_port_is_in_the_readme_and_every_file_named_exists() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the readme");
    let up = commands().into_iter().find(|c| c.get_name() == "up").expect("a command");
    for port in up.get_arguments().filter(|a| a.get_long().is_some_and(|l| l.ends_with("-port"))) {
        let default = port.get_default_values()[0].to_str().expect("a number").to_owned();
        assert!(readme.contains(&format!("| {default} |")), "{port} defaults to {default}");
    }
    for (file, text) in documents() {
        for folder in ["src/", "crds/", "controllers/", "tests/", "scripts/", "migrations/"] {
            for path in names(&text, folder, |c| c.is_ascii_alphanumeric() || "/_-.".contains(c)) {
                let path = path.trim_end_matches('.');
                // `{a,b}.rs` and `*` stand for several; the README has its reader make doors.yaml.
                let exists = Path::new(&root()).join(path).exists() || path.ends_with("doors.yaml");
                assert!(exists, "{file}: {path} does not exist");
            }
        }
    }
}

#[test]
fn every_metric_named_is_recorded() {
    let mut sources = String::new();
    let mut folders = vec![root().join("src"), root().join("controllers/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => sources.push_str(&std::fs::read_to_string(path).unwrap_or_default()),
            }
        }
    }
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md")).expect("the changelog");
    for (file, text) in documents().into_iter().chain([("CHANGELOG.md", changelog)]) {
        for metric in names(&text, "cornjacket_", |c| c.is_ascii_lowercase() || c == '_') {
            assert!(sources.contains(&format!("\"{metric}\"")), "{file}: {metric} is no metric");
        }
    }
}
