//! What an operator can type: one file a command.

mod act;
mod action;
mod actions;
mod api;
pub mod controllers;
mod crd;
mod dlq;
#[cfg(test)]
mod documents;
pub mod event;
mod get;
mod handle;
mod ingest;
mod lint;
mod migrate;
mod mqtt;
mod namespaces;
mod output;
pub mod process;
mod query;
mod relay;
mod secrets_key;
pub mod up;
mod url;
mod webhook;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use crds::cause::Chain;

/// An event platform that a team declares instead of programs.
#[derive(Parser)]
#[command(name = "cornjacket", version, about, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    logs: process::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything on this machine: every role in one process, resources from a directory
    Up(Box<up::UpArgs>),
    /// Take events in by HTTP and MQTT
    Ingest(ingest::IngestArgs),
    /// Run the relay: outbox to event store and bus
    Relay(relay::RelayArgs),
    /// Run the event handler: bus to projections
    Handle(handle::HandleArgs),
    /// Run the query service: projections and events by HTTP
    Query(query::QueryArgs),
    /// Deliver events to the endpoints of WebhookActions
    Act(act::ActArgs),
    /// Turn a directory of manifests into what the platform runs
    Controllers(controllers::ControllersArgs),
    /// Print what is declared, whether it runs, and why not
    Get(get::GetArgs),
    /// Send events, or watch them
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Receive, sign and verify webhooks while a receiver is developed
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// See what is delivered to endpoints, deliver again, switch endpoints off and on
    #[command(subcommand)]
    Action(action::ActionCommand),
    /// Look at dead letters, replay them, or discard them
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Apply pending database migrations, or say what is pending
    Migrate(migrate::MigrateArgs),
    /// Check manifests, without a database, a broker or a cluster
    Lint(lint::LintArgs),
    /// Print the definitions of the four kinds, for `kubectl apply -f -`
    Crd(crd::CrdArgs),
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start the runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(cli));
    // What is still running has been told to stop, or must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {}", Chain(e.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let done = ExitCode::SUCCESS;
    match cli.command {
        Command::Up(args) => up::run(*args, &cli.logs).await.map(|()| done),
        Command::Ingest(args) => ingest::run(args, &cli.logs).await.map(|()| done),
        Command::Relay(args) => relay::run(args, &cli.logs).await.map(|()| done),
        Command::Handle(args) => handle::run(args, &cli.logs).await.map(|()| done),
        Command::Query(args) => query::run(args, &cli.logs).await.map(|()| done),
        Command::Act(args) => act::run(args, &cli.logs).await.map(|()| done),
        Command::Controllers(args) => controllers::run(args, &cli.logs).await.map(|()| done),
        Command::Get(args) => get::run(args).await.map(|()| done),
        Command::Event(command) => event::run(command).await,
        Command::Webhook(command) => webhook::run(command, &cli.logs).await,
        Command::Action(command) => action::run(command).await,
        Command::Dlq(command) => dlq::run(command).await.map(|()| done),
        Command::Migrate(args) => migrate::run(args).await.map(|()| done),
        Command::Lint(args) => lint::run(&args).map(|()| done),
        Command::Crd(args) => crd::run(&args).map(|()| done),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const ROLES: [&str; 7] = ["up", "ingest", "relay", "handle", "query", "act", "controllers"];

    #[test]
    fn every_flag_of_a_role_has_a_variable_and_a_help_text() {
        let mut cli = Cli::command();
        // Hands the global flags down.
        cli.build();
        Cli::command().debug_assert();
        for role in ROLES {
            let command = cli.find_subcommand(role).expect("a role");
            let flags: Vec<_> = command.get_arguments().filter(|flag| flag.get_long().is_some()).collect();
            assert!(flags.iter().any(|flag| flag.get_long() == Some("log-format")), "{role} has the global flags");
            for flag in flags.iter().filter(|flag| !["help", "version"].contains(&flag.get_id().as_str())) {
                assert!(flag.get_env().is_some(), "{role} {flag}: no environment variable");
                assert!(flag.get_help().is_some(), "{role} {flag}: no help text");
            }
        }
    }

    #[test]
    fn a_variable_means_the_same_flag_in_every_role() {
        let mut cli = Cli::command();
        cli.build();
        let mut meanings = std::collections::BTreeMap::new();
        for role in ROLES {
            for flag in cli.find_subcommand(role).expect("a role").get_arguments() {
                let (Some(variable), Some(long)) = (flag.get_env(), flag.get_long()) else { continue };
                // The port of a role is `--port` there and named after the role in `up`.
                let long = long.strip_suffix("port").map_or(long, |_| "port");
                let known = meanings.entry(variable.to_owned()).or_insert_with(|| long.to_owned());
                assert_eq!(known, long, "{role}: {}", variable.display());
            }
        }
    }

    #[test]
    fn no_help_shows_the_value_of_a_variable_that_may_hold_a_password() {
        let mut cli = Cli::command();
        cli.build();
        for role in ROLES {
            for flag in cli.find_subcommand(role).expect("a role").get_arguments() {
                let Some(variable) = flag.get_env() else { continue };
                let variable = variable.display().to_string();
                if variable.ends_with("_URL") || variable == "KAFKA_PROPERTIES" {
                    assert!(flag.is_hide_env_values_set(), "{role}: {variable}");
                }
            }
        }
    }
}
