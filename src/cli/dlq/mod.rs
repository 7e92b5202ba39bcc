//! `cornjacket dlq`: works through dead letters, by HTTP alone.

mod change;
mod look;
mod table;
mod which;

use crate::cli::api::Api;
use crate::cli::output::Output;

const LETTERS: &str = "/api/v1/dead-letters";

/// Where the service is, and how answers are printed.
#[derive(Debug, clap::Args)]
struct Common {
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Address of the dead letters: `up` and `act` have them on 8082, `relay` on 8083, `handle` on 8084
    #[arg(long, env = "CORNJACKET_DLQ_URL", default_value = "http://localhost:8082", value_name = "URL")]
    url: String,
}

impl Common {
    fn api(&self) -> anyhow::Result<Api> {
        Api::new(&self.url)
    }
}

/// Look at dead letters, replay them, or discard them.
#[derive(Debug, clap::Subcommand)]
pub enum DlqCommand {
    /// List dead letters, the newest first
    List(look::ListArgs),
    /// Print one dead letter with its cause and what it holds
    Show(look::ShowArgs),
    /// Have dead letters replayed by the consumer that failed
    Replay(change::ReplayArgs),
    /// Discard dead letters: they are not replayed any more
    Discard(change::DiscardArgs),
    /// Count dead letters by consumer
    Summary(look::SummaryArgs),
}

/// Runs the command.
///
/// # Errors
/// The service cannot be reached, or refuses the request.
pub async fn run(command: DlqCommand) -> anyhow::Result<()> {
    match command {
        DlqCommand::List(args) => look::list(args).await,
        DlqCommand::Show(args) => look::show(args).await,
        DlqCommand::Replay(args) => change::replay(args).await,
        DlqCommand::Discard(args) => change::discard(args).await,
        DlqCommand::Summary(args) => look::summary(args).await,
    }
}
