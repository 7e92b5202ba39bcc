//! Logs: one JSON object a line, or text for people where the output is a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    Json,
    Text,
}

/// Installs the log output of this process, on standard error. `filter` is a `tracing` filter such as
/// `info,cornjacket=debug`; a filter that does not parse becomes `info`.
pub fn install(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|e| {
        eprintln!("warning: the log filter '{filter}' cannot be read ({e}): logging at info");
        EnvFilter::new("info")
    });
    // PostgreSQL's notices ("already exists, skipping"), and each connection to the broker of `up`, are no news.
    let quiet = ["sqlx::postgres::notice=warn", "mqtt5=warn"];
    let filter = quiet.iter().filter_map(|one| one.parse().ok()).fold(filter, EnvFilter::add_directive);
    let registry = tracing_subscriber::registry().with(filter);
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let layer =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    if json {
        let _ = registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init();
    } else {
        let _ = registry.with(layer.with_target(false).compact()).try_init();
    }
}
