//! What an operator can type: one file a command.

pub mod controllers;
mod crd;
pub mod event;
mod get;
mod handle;
mod ingest;
mod lint;
mod migrate;
pub mod process;
mod query;
mod relay;
pub mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Take events in by HTTP
    Ingest(ingest::IngestArgs),
    /// Run the relay: outbox to event store and bus
    Relay(relay::RelayArgs),
    /// Run the event handler: bus to projections
    Handle(handle::HandleArgs),
    /// Run the query service: projections and events by HTTP
    Query(query::QueryArgs),
    /// Turn a directory of manifests into what the platform runs
    Controllers(controllers::ControllersArgs),
    /// Print what is declared, whether it runs, and why not
    Get(get::GetArgs),
    /// Send events, or watch them
    #[command(subcommand)]
    Event(event::EventCommand),
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
            eprintln!("error: {e:#}");
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
        Command::Controllers(args) => controllers::run(args, &cli.logs).await.map(|()| done),
        Command::Get(args) => get::run(args).await.map(|()| done),
        Command::Event(command) => event::run(command).await,
        Command::Migrate(args) => migrate::run(args).await.map(|()| done),
        Command::Lint(args) => lint::run(&args).map(|()| done),
        Command::Crd(args) => crd::run(&args).map(|()| done),
    }
}
