//! `cornjacket webhook verify`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use clap::Args;

use super::secrets::SecretArgs;
use crate::actions::signature::{self, Headers, ID, SIGNATURE, TIMESTAMP, WhyNot};
use crate::cli::output::print;

/// No file with headers is longer.
const HEADERS_BYTES: u64 = 256 << 10;

/// Verifies a request.
#[derive(Args)]
pub struct VerifyArgs {
    /// File with the body, exactly as it came; `-` or nothing: standard input
    #[arg(value_name = "FILE")]
    body: Option<PathBuf>,
    #[command(flatten)]
    secrets: SecretArgs,
    /// File with headers, `name: value` a line, as `cornjacket webhook sign` prints them; other lines are passed over
    #[arg(long, value_name = "FILE")]
    headers: Option<PathBuf>,
    /// Value of webhook-id, instead of the file's
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Value of webhook-timestamp, instead of the file's
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timestamp: Option<String>,
    /// Value of webhook-signature, instead of the file's
    #[arg(long, value_name = "SIGNATURE")]
    signature: Option<String>,
    /// How far the time may be from now, in seconds
    #[arg(long, default_value_t = signature::TOLERANCE.as_secs(), value_name = "SECONDS")]
    tolerance_seconds: u64,
    /// Look at the signature alone, whenever it was made
    #[arg(long, conflicts_with = "tolerance_seconds")]
    any_time: bool,
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let keys = args.secrets.some_keys()?;
    let written = args.headers.as_deref().map(headers).transpose()?.unwrap_or_default();
    let value = |given: &'_ Option<String>, name: &str| given.clone().or_else(|| of(&written, name));
    let (id, timestamp, signature) =
        (value(&args.id, ID), value(&args.timestamp, TIMESTAMP), value(&args.signature, SIGNATURE));
    let headers = Headers { id: id.as_deref(), timestamp: timestamp.as_deref(), signature: signature.as_deref() };
    let body = super::input::body(args.body.as_deref())?;
    let tolerance = Duration::from_secs(args.tolerance_seconds);
    let verdict = match signature::verify(&keys, headers, &body, Utc::now().timestamp(), tolerance) {
        Err(WhyNot::Old { .. } | WhyNot::Ahead { .. }) if args.any_time => Ok(None),
        verdict => verdict.map(Some),
    };
    print(&said(&verdict, keys.len()))?;
    Ok(if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line that says it.
fn said(verdict: &Result<Option<usize>, WhyNot>, secrets: usize) -> String {
    match verdict {
        Ok(Some(which)) if secrets > 1 => format!("right: by secret {} of {secrets}\n", which + 1),
        Ok(_) => "right\n".to_owned(),
        Err(why) => format!("wrong: {why}\n"),
    }
}

fn headers(path: &Path) -> anyhow::Result<String> {
    let named = || format!("cannot read the headers '{}'", path.display());
    let bytes = super::input::read(File::open(path).with_context(named)?, HEADERS_BYTES).with_context(named)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value of a header, whatever the case of its name.
fn of(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let found = pairs.find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_among_other_lines() {
        let text = "POST / HTTP/1.1\r\nHost: x:80\r\nWebhook-ID: m\r\nwebhook-timestamp:7\r\n\r\n";
        assert_eq!(of(text, ID).as_deref(), Some("m"));
        assert_eq!(of(text, TIMESTAMP).as_deref(), Some("7"));
        assert_eq!(of(text, SIGNATURE), None);
    }

    #[test]
    fn which_of_several_secrets_it_was_is_said() {
        assert_eq!(said(&Ok(Some(0)), 1), "right\n");
        assert_eq!(said(&Ok(Some(1)), 2), "right: by secret 2 of 2\n");
        assert_eq!(said(&Err(WhyNot::Missing(ID)), 2), "wrong: the header webhook-id is missing\n");
    }
}
