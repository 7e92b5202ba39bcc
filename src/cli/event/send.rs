//! `cornjacket event send`: events from arguments, a file or standard input.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::deliver::Sending;
use super::input::{Batch, Item, batches};

/// Sends events and says which were refused, and why. Exit code 1 if any was.
#[derive(Debug, clap::Args)]
pub struct SendArgs {
    /// Type of the one event to send, for example sensor.reading.
    #[arg(long = "type", requires = "aggregate", value_name = "TYPE")]
    event_type: Option<String>,
    /// Aggregate of the one event to send, for example device-001.
    #[arg(long, requires = "event_type", value_name = "ID")]
    aggregate: Option<String>,
    /// Payload of the one event to send, as JSON.
    #[arg(long, requires = "event_type", default_value = "{}", value_name = "JSON")]
    payload: String,
    /// When the one event happened (RFC 3339) [default: now].
    #[arg(long, requires = "event_type", value_name = "TIME")]
    event_time: Option<String>,
    /// File with events, one a line or an array; `-` or nothing: standard input.
    #[arg(short, long, conflicts_with = "event_type", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Address of the ingestion service.
    #[arg(long, env = "CORNJACKET_INGESTION_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// The same key with the same events accepts them once, within 24 hours [default: a new key].
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The input cannot be read, or the service not reached.
pub async fn run(args: SendArgs) -> anyhow::Result<ExitCode> {
    let key = args.idempotency_key.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let single = single(&args)?;
    let mut sending = Sending::new(&args.url, key, single.is_none())?;
    let start = Instant::now();
    if let Some(item) = single {
        sending.send(Batch { items: vec![item], read: 0 }).await?;
        if let Some(event_id) = sending.done.last_id {
            println!("{event_id}");
        }
        return Ok(sending.done.finish());
    }
    let (input, size) = open(args.file.as_deref())?;
    let progress = progress_bar(size);
    let (batches_in, mut batches_out) = mpsc::channel(4);
    let reader = tokio::task::spawn_blocking(move || {
        batches(BufReader::with_capacity(1 << 16, input), |batch| batches_in.blocking_send(batch).is_ok())
    });
    while let Some(batch) = batches_out.recv().await {
        let read = batch.read;
        sending.send(batch).await?;
        progress.set_position(read);
        progress.set_message(format!("{} accepted, {} refused", sending.done.accepted, sending.done.refused));
    }
    progress.finish_and_clear();
    reader.await?.context("cannot read the events")?;
    sending.done.summarise(start.elapsed());
    Ok(sending.done.finish())
}

/// The event of the arguments, if they name one.
fn single(args: &SendArgs) -> anyhow::Result<Option<Item>> {
    let (Some(event_type), Some(aggregate)) = (&args.event_type, &args.aggregate) else { return Ok(None) };
    let payload: Box<RawValue> =
        serde_json::from_str(&args.payload).with_context(|| format!("--payload: '{}' is no JSON", args.payload))?;
    let mut event = json!({"event_type": event_type, "aggregate_id": aggregate});
    if let Some(time) = &args.event_time {
        event["event_time"] = json!(time);
    }
    // The payload goes in as it was typed: no number loses a digit.
    let mut text = event.to_string();
    text.pop();
    let text = format!("{text},\"payload\":{}}}", payload.get().replace(['\n', '\r'], " "));
    Ok(Some(Item { line: 1, text: Ok(text) }))
}

fn open(file: Option<&Path>) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        if file.is_none() && std::io::stdin().is_terminal() {
            bail!("nothing to send: give --type and --aggregate, --file FILE, or events on standard input");
        }
        return Ok((Box::new(std::io::stdin()), None));
    };
    let open = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let size = open.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
    Ok((Box::new(open), size))
}

/// Shown on a terminal only.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{bar:32} {percent:>3} %  {msg}  {binary_bytes_per_sec}, {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  {binary_bytes_per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_make_an_event_that_keeps_its_digits() {
        let args = SendArgs {
            event_type: Some("sensor.reading".to_owned()),
            aggregate: Some("device \"1\"".to_owned()),
            payload: "{\"value\": 1.10000000000000000000001}".to_owned(),
            event_time: None,
            file: None,
            url: String::new(),
            idempotency_key: None,
        };
        let text = single(&args).unwrap().unwrap().text.unwrap();
        let expected = r#"{"aggregate_id":"device \"1\"","event_type":"sensor.reading","payload":{"value": 1.10000000000000000000001}}"#;
        assert_eq!(text, expected);
        assert!(single(&SendArgs { payload: "{".to_owned(), ..args }).is_err());
    }
}
