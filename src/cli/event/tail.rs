//! `cornjacket event tail`: prints events as they are stored, through the query service.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::client::{client, reason, retry_after, unreachable};
use super::sse::{Decoder, Frame};
use crate::cli::output::Output;

/// The service sends something every 15 s: a connection that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(45);
/// Between two attempts to connect again.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints events as they are stored, in order for each aggregate.
#[derive(Debug, clap::Args)]
pub struct TailArgs {
    /// Only events of this type, for example sensor.reading.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only events of this aggregate, for example device-001.
    #[arg(long, value_name = "ID")]
    aggregate: Option<String>,
    /// Where to begin: earliest, now, a time such as 2026-01-31T12:00:00Z, or an event id.
    #[arg(long, default_value = "now", value_name = "WHERE")]
    from: String,
    /// How events are printed: a line for people, or the whole event as JSON on a line.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// End where the event store ends now, instead of waiting for more.
    #[arg(long)]
    no_follow: bool,
    /// Address of the query service.
    #[arg(long, env = "CORNJACKET_QUERY_URL", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    url: String,
}

/// Runs the command. A connection that breaks is made again behind the last event printed.
///
/// # Errors
/// The service refuses the request, or cannot be reached at the start.
pub async fn run(args: TailArgs) -> anyhow::Result<ExitCode> {
    let client = client()?;
    let mut last_id = String::new();
    let mut connected = false;
    loop {
        match connect(&client, &args, &last_id).await {
            Ok(Connected::Open(response)) => {
                connected = true;
                if let Ended::ForGood = follow(response, args.output, &mut last_id).await? {
                    return Ok(ExitCode::SUCCESS);
                }
                sleep(PAUSE).await;
            }
            Ok(Connected::Busy(pause, why)) => {
                eprintln!("{why}");
                sleep(pause).await;
            }
            Ok(Connected::Refused(why)) => bail!("{why}"),
            Err(error) if connected => {
                tracing::debug!(%error, "not reached: trying again");
                sleep(PAUSE).await;
            }
            Err(error) => return Err(unreachable(&args.url, &error)),
        }
    }
}

enum Connected {
    Open(Response),
    Busy(Duration, String),
    Refused(String),
}

async fn connect(client: &Client, args: &TailArgs, last_id: &str) -> reqwest::Result<Connected> {
    let url = format!("{}/api/v1/events/stream", args.url.trim_end_matches('/'));
    let mut query = vec![("from", args.from.as_str())];
    query.extend(args.event_type.as_deref().map(|t| ("event_type", t)));
    query.extend(args.aggregate.as_deref().map(|a| ("aggregate_id", a)));
    query.extend(args.no_follow.then_some(("follow", "false")));
    let mut request = client.get(url).query(&query);
    if !last_id.is_empty() {
        request = request.header("last-event-id", last_id);
    }
    let response = request.send().await?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(Connected::Open(response));
    }
    let pause = retry_after(status, response.headers());
    let why = reason(status, &response.text().await?);
    Ok(pause.map_or_else(|| Connected::Refused(why.clone()), |pause| Connected::Busy(pause, why.clone())))
}

enum Ended {
    /// The stream is at its end, or nobody reads what is printed.
    ForGood,
    Broken,
}

async fn follow(response: Response, output: Output, last_id: &mut String) -> anyhow::Result<Ended> {
    let mut decoder = Decoder::default();
    let mut bytes = response.bytes_stream();
    while let Ok(Some(Ok(piece))) = timeout(SILENCE, bytes.next()).await {
        for frame in decoder.push(&piece)? {
            if frame.event == "end" {
                return Ok(Ended::ForGood);
            }
            if frame.event == "event" && !print(&frame, output)? {
                return Ok(Ended::ForGood);
            }
        }
        if !decoder.last_id().is_empty() {
            decoder.last_id().clone_into(last_id);
        }
    }
    Ok(Ended::Broken)
}

/// Prints an event; false when standard output is closed.
fn print(frame: &Frame, output: Output) -> anyhow::Result<bool> {
    let line = match output {
        Output::Json => frame.data.clone(),
        Output::Text => text(&frame.data).context("the service sent an event that cannot be read")?,
    };
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot print"),
    }
}

/// Time of acceptance, type, aggregate, payload.
fn text(data: &str) -> serde_json::Result<String> {
    let event: Value = serde_json::from_str(data)?;
    let field = |name: &str| event[name].as_str().unwrap_or_default().escape_debug().to_string();
    Ok(format!(
        "{}  {}  {}  {}  {}",
        field("ingested_at"),
        field("event_id"),
        field("event_type"),
        field("aggregate_id"),
        event["payload"]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_shows_no_control_characters() {
        let data = r#"{"event_id":"1","event_type":"t","aggregate_id":"a\u001b[2J","ingested_at":"T","payload":{"v":"\u0007"}}"#;
        assert_eq!(text(data).unwrap(), "T  1  t  a\\u{1b}[2J  {\"v\":\"\\u0007\"}");
    }
}
