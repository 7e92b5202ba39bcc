//! `cornjacket webhook`: what developers of receivers need on their own machine.

mod answers;
mod body;
mod http;
mod input;
pub mod listen;
mod request;
mod secrets;
mod show;
mod sign;
mod verify;

use std::process::ExitCode;

use super::output::print;
use super::process::LogArgs;

/// Receive, sign and verify webhooks while a receiver is developed.
#[derive(clap::Subcommand)]
pub enum WebhookCommand {
    /// Receive webhooks on this machine: print each request, and whether its signature is right
    Listen(listen::ListenArgs),
    /// Print the headers of a request with this body, signed as deliveries are
    Sign(sign::SignArgs),
    /// Say whether a request is signed rightly, and if not, why. Exit code 1 if it is not
    Verify(verify::VerifyArgs),
    /// Print a new random secret
    Secret,
}

/// Runs the command.
///
/// # Errors
/// What cannot be read, or a port that cannot be listened on; a wrong signature is an exit code of 1 instead.
pub async fn run(command: WebhookCommand, logs: &LogArgs) -> anyhow::Result<ExitCode> {
    match command {
        WebhookCommand::Listen(args) => listen::run(args, logs).await.map(|()| ExitCode::SUCCESS),
        WebhookCommand::Sign(args) => sign::run(&args).map(|()| ExitCode::SUCCESS),
        WebhookCommand::Verify(args) => verify::run(&args),
        WebhookCommand::Secret => {
            print(&format!("{}\n", secrets::new(rand::random())))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
