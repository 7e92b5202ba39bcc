//! Batches of events to the ingestion service, until each is answered for good.
//!
//! Every request carries an idempotency key, so that it can be repeated when an answer is lost or the service is busy
//! and each event is still accepted once.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use uuid::Uuid;

use super::client::{client, innermost, reason, retry_after, shown, unreachable};
use super::input::Batch;

/// How often a request is tried: a full queue or a database that is away ends within that, or something is wrong.
const ATTEMPTS: u32 = 10;
/// Longest wait for the answer to one batch.
const ANSWER: Duration = Duration::from_mins(1);
/// Refusals that are printed; of more, the number.
const SHOWN: usize = 100;

/// What became of everything so far.
#[derive(Default)]
pub(super) struct Done {
    pub accepted: usize,
    pub refused: usize,
    pub last_id: Option<Uuid>,
    /// The events have lines that a refusal can name; one of the arguments has none.
    lines: bool,
}

impl Done {
    fn refuse(&mut self, line: usize, why: &str) {
        self.refused += 1;
        if self.refused <= SHOWN {
            let place = if self.lines { format!("line {line}") } else { "refused".to_owned() };
            eprintln!("{place}: {why}");
        } else if self.refused == SHOWN + 1 {
            eprintln!("more refusals follow that are not shown");
        }
    }

    pub fn summarise(&self, took: Duration) {
        let seconds = took.as_secs_f64().max(0.001);
        let total = u32::try_from(self.accepted).unwrap_or(u32::MAX);
        let rate = f64::from(total) / seconds;
        println!("{} accepted, {} refused in {seconds:.1} s ({rate:.0} events/s)", self.accepted, self.refused);
    }

    pub fn finish(&self) -> ExitCode {
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

/// The way to one ingestion service.
pub(super) struct Sending {
    client: Client,
    url: String,
    key: String,
    /// Number of the batch: part of its key, so that the same input repeats the same keys.
    number: usize,
    pub done: Done,
}

impl Sending {
    /// To the service at this address. `key` begins the idempotency key of every request; `lines`: the events come from
    /// lines that a refusal can name.
    pub fn new(url: &str, key: String, lines: bool) -> anyhow::Result<Self> {
        let url = format!("{}/api/v1/events/batch", url.trim_end_matches('/'));
        Ok(Self { client: client()?, url, key, number: 0, done: Done { lines, ..Done::default() } })
    }

    /// Sends one batch and notes what became of each event.
    pub async fn send(&mut self, batch: Batch) -> anyhow::Result<()> {
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
        let answered = self
            .deliver(&body)
            .await
            .map_err(|error| if first == last { error } else { error.context(format!("lines {first} to {last}")) })?;
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
                    return Err(unreachable(&self.url, &error));
                }
                Err(error) => {
                    eprintln!("{}: {}; trying again", shown(&self.url), innermost(&error));
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

#[cfg(test)]
mod tests {
    use super::*;

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
