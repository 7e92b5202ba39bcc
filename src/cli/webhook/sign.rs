//! `cornjacket webhook sign`.

use std::path::PathBuf;

use chrono::Utc;
use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::secrets::SecretArgs;
use crate::actions::signature::{self, ID, SIGNATURE, TIMESTAMP};
use crate::cli::output::{Output, print};

/// Signs a body.
#[derive(Args)]
pub struct SignArgs {
    /// File with the body; `-` or nothing: standard input
    #[arg(value_name = "FILE")]
    body: Option<PathBuf>,
    #[command(flatten)]
    secrets: SecretArgs,
    /// Names the delivery [default: a new one]
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Option<String>,
    /// When the attempt is made, in seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timestamp: Option<i64>,
    /// How the headers are printed: a line each, as `curl -H @FILE` reads them, or as a JSON object
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What can stand in a header, and has no full stop in it.
fn id(text: &str) -> Result<String, String> {
    let fits = (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'.');
    let refused = || "must be 1 to 256 visible ASCII characters without full stop, for example msg_1".to_owned();
    fits.then(|| text.to_owned()).ok_or_else(refused)
}

/// Runs the command.
pub fn run(args: &SignArgs) -> anyhow::Result<()> {
    let keys = args.secrets.some_keys()?;
    let body = super::input::body(args.body.as_deref())?;
    let id = args.id.clone().unwrap_or_else(|| format!("msg_{}", Uuid::now_v7().simple()));
    let timestamp = args.timestamp.unwrap_or_else(|| Utc::now().timestamp());
    let signature = signature::sign(&keys, &id, timestamp, &body);
    let text = match args.output {
        Output::Text => format!("{ID}: {id}\n{TIMESTAMP}: {timestamp}\n{SIGNATURE}: {signature}\n"),
        Output::Json => format!("{}\n", json!({ID: id, TIMESTAMP: timestamp.to_string(), SIGNATURE: signature})),
    };
    Ok(print(&text)?)
}
