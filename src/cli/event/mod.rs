//! `cornjacket event`: send events and watch them, by HTTP alone.

pub(in crate::cli) mod client;
mod deliver;
mod input;
pub mod send;
pub mod sse;
pub mod tail;

use std::process::ExitCode;

/// Send events, or watch them.
#[derive(Debug, clap::Subcommand)]
pub enum EventCommand {
    /// Send events: one from arguments, or many from a file or standard input
    Send(send::SendArgs),
    /// Print events as they are stored
    Tail(tail::TailArgs),
}

/// Runs the command.
///
/// # Errors
/// What cannot be read, reached or understood; refused events are an exit code of 1 instead.
pub async fn run(command: EventCommand) -> anyhow::Result<ExitCode> {
    match command {
        EventCommand::Send(args) => send::run(args).await,
        EventCommand::Tail(args) => tail::run(args).await,
    }
}
