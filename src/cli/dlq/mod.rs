//! `cornjacket dlq`: works through dead letters, by HTTP alone.

mod api;
mod change;
mod look;
mod table;
mod which;

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
