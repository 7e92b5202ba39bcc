//! `cornjacket event send`: from arguments, a file or standard input to the ingestion service.
//!
//! Every request carries an idempotency key, so that it can be repeated when an answer is lost or the service is busy
//! and each event is still accepted once.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::client::{client, reason, retry_after};
use super::input::{Batch, Item, batches};

/// How often a request is tried: a full queue or a database that is away ends within that, or something is wrong.
const ATTEMPTS: u32 = 10;
/// Longest wait for the answer to one batch.
const ANSWER: Duration = Duration::from_mins(1);
/// Refusals that are printed; of more, the number.
const SHOWN: usize = 100;

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
    let mut sending = Sending { client: client()?, url: batch_url(&args.url), key, number: 0, done: Done::default() };
    let start = Instant::now();
    if let Some(item) = single(&args)? {
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

fn batch_url(url: &str) -> String {
    format!("{}/api/v1/events/batch", url.trim_end_matches('/'))
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

/// What became of everything so far.
#[derive(Default)]
struct Done {
    accepted: usize,
    refused: usize,
    last_id: Option<Uuid>,
}

impl Done {
    fn refuse(&mut self, line: usize, why: &str) {
        self.refused += 1;
        if self.refused <= SHOWN {
            eprintln!("line {line}: {why}");
        } else if self.refused == SHOWN + 1 {
            eprintln!("more refusals follow that are not shown");
        }
    }

    fn summarise(&self, took: Duration) {
        let seconds = took.as_secs_f64().max(0.001);
        let total = u32::try_from(self.accepted).unwrap_or(u32::MAX);
        let rate = f64::from(total) / seconds;
        println!("{} accepted, {} refused in {seconds:.1} s ({rate:.0} events/s)", self.accepted, self.refused);
    }

    fn finish(&self) -> ExitCode {
        if self.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The answer to a batch, as far as it matters here.
#[derive(Deserialize)]
struct Answer {
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    event_id: Option<Uuid>,
    #[serde(default)]
    code: u16,
    error: Option<String>,
}

impl Outcome {
    /// The service could not take it at that moment.
    fn busy(&self) -> bool {
        self.event_id.is_none() && (self.code == 429 || self.code == 503)
    }
}

struct Sending {
    client: Client,
    url: String,
    key: String,
    /// Number of the batch: part of its key, so that the same input repeats the same keys.
    number: usize,
    done: Done,
}

impl Sending {
    async fn send(&mut self, batch: Batch) -> anyhow::Result<()> {
        let mut sent: Vec<(usize, String)> = Vec::with_capacity(batch.items.len());
        for item in batch.items {
            match item.text {
                Ok(text) => sent.push((item.line, text)),
                Err(why) => self.done.refuse(item.line, &why),
            }
        }
        let (Some((first, _)), Some((last, _))) = (sent.first(), sent.last()) else { return Ok(()) };
        let (first, last) = (*first, *last);
        let body = sent.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
        self.number += 1;
        let answered = self.deliver(&body).await.with_context(|| format!("lines {first} to {last}"))?;
        match answered {
            Ok(outcomes) if outcomes.len() == sent.len() => {
                for ((line, _), outcome) in sent.iter().zip(outcomes) {
                    self.note(*line, &outcome);
                }
            }
            Ok(outcomes) => bail!("lines {first} to {last}: {} events sent, {} answered", sent.len(), outcomes.len()),
            Err(why) => sent.iter().for_each(|(line, _)| self.done.refuse(*line, &why)),
        }
        Ok(())
    }

    fn note(&mut self, line: usize, outcome: &Outcome) {
        if outcome.event_id.is_some() {
            self.done.accepted += 1;
            self.done.last_id = outcome.event_id;
        } else {
            self.done.refuse(line, outcome.error.as_deref().unwrap_or("refused without a reason"));
        }
    }

    /// Posts a batch until it is answered for good: with an outcome a line, or a refusal of the whole.
    async fn deliver(&self, body: &str) -> anyhow::Result<Result<Vec<Outcome>, String>> {
        let mut attempt = 1;
        loop {
            let pause = match self.post(body).await {
                Ok((answered, None)) => return Ok(answered),
                Ok((answered, Some(_))) if attempt == ATTEMPTS => return Ok(answered),
                Ok((_, Some(pause))) => pause,
                // Nothing was ever reached: the address is wrong rather than the service away.
                Err(error) if attempt == ATTEMPTS || (error.is_connect() && self.number == 1) => {
                    return Err(error).with_context(|| format!("cannot reach {}", self.url));
                }
                Err(error) => {
                    eprintln!("{}: {}; trying again", self.url, innermost(&error));
                    Duration::from_secs(1)
                }
            };
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn post(&self, body: &str) -> reqwest::Result<(Result<Vec<Outcome>, String>, Option<Duration>)> {
        let key = format!("{}.{}", self.key, self.number);
        let request = self.client.post(&self.url).timeout(ANSWER).header("idempotency-key", &key);
        let response = request.header("content-type", "application/x-ndjson").body(body.to_owned()).send().await?;
        let pause = retry_after(response.status(), response.headers());
        let status = response.status();
        let (answered, later) = read(status, &response.text().await?);
        Ok((answered, pause.or(later)))
    }
}

/// What an answer says, and a pause where some of the events may be taken later.
fn read(status: StatusCode, text: &str) -> (Result<Vec<Outcome>, String>, Option<Duration>) {
    match serde_json::from_str::<Answer>(text) {
        Ok(answer) => {
            let pause = answer.results.iter().any(Outcome::busy).then_some(Duration::from_secs(1));
            (Ok(answer.results), pause)
        }
        Err(_) => (Err(reason(status, text)), None),
    }
}

/// The cause that people can act on: `Connection refused`, not `error sending request`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
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

    #[test]
    fn a_batch_is_tried_again_while_some_of_it_could_not_be_taken() {
        let (answered, pause) = read(
            StatusCode::MULTI_STATUS,
            r#"{"accepted":1,"refused":1,"results":[{"index":0,"event_id":"018f0000-0000-7000-8000-000000000000","status":"accepted","code":202},{"index":1,"status":"refused","code":429,"error":"full"}]}"#,
        );
        assert_eq!((answered.unwrap().len(), pause), (2, Some(Duration::from_secs(1))));
        let (answered, pause) = read(StatusCode::PAYLOAD_TOO_LARGE, r#"{"error":"too large"}"#);
        assert_eq!((answered.err().as_deref(), pause), (Some("too large"), None));
    }
}
