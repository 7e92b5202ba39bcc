//! Clients that post events and remember what they were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::verify::Counts;
use crate::harness::{eventually, http};

const CLIENTS: usize = 8;
/// Each aggregate belongs to one client, which posts its next event only after the last was accepted.
const AGGREGATES: usize = 12;

/// How quickly the clients post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Together about 400 events/s.
    Steady,
    /// As quickly as they are answered.
    FlatOut,
}

impl Pace {
    /// The least time from one event of a client to its next.
    fn interval(self) -> Duration {
        match self {
            Self::Steady => Duration::from_millis(20),
            Self::FlatOut => Duration::ZERO,
        }
    }
}

/// What the clients were told.
#[derive(Default)]
pub struct Outcome {
    /// Per aggregate, the ids of its accepted events: the first has the value 1, the next 2, and so on.
    pub accepted: BTreeMap<String, Vec<String>>,
    /// How often an answer was not 202, by status (0: no answer).
    pub refused: BTreeMap<u16, u32>,
    /// The longest time from the first attempt of an event to its acceptance.
    pub longest: Duration,
}

/// Clients at work.
pub struct Load {
    stop: CancellationToken,
    accepted: Arc<AtomicI64>,
    outcome: Arc<Mutex<Outcome>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(url: &str, pace: Pace) -> Self {
        Self::of(url, pace, true)
    }

    /// Clients that give no idempotency key: what they repeat, because an answer was lost, may be stored twice.
    pub fn start_without_keys(url: &str, pace: Pace) -> Self {
        Self::of(url, pace, false)
    }

    fn of(url: &str, pace: Pace, keys: bool) -> Self {
        let (stop, accepted, outcome) = (CancellationToken::new(), Arc::<AtomicI64>::default(), Arc::default());
        let clients = (0..CLIENTS)
            .map(|number| {
                let client = Poster {
                    number,
                    url: url.to_owned(),
                    pace,
                    keys,
                    http: http::client(),
                    accepted: Arc::clone(&accepted),
                    outcome: Arc::clone(&outcome),
                };
                tokio::spawn(client.run(stop.clone()))
            })
            .collect();
        Self { stop, accepted, outcome, clients }
    }

    /// Events accepted so far.
    pub fn accepted(&self) -> i64 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Events accepted so far, per aggregate.
    pub fn counts(&self) -> Counts {
        let outcome = self.outcome.lock().expect("no client panics while it notes");
        let count = |ids: &Vec<String>| i64::try_from(ids.len()).expect("a small number");
        outcome.accepted.iter().map(|(aggregate, ids)| (aggregate.clone(), count(ids))).collect()
    }

    /// Waits until that many more were accepted.
    pub async fn more(&self, events: i64) {
        let goal = self.accepted() + events;
        eventually(Duration::from_mins(1), || async {
            let now = self.accepted();
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal} accepted")) }
        })
        .await;
    }

    /// Lets every client finish the event it is at.
    pub async fn finish(self) -> Outcome {
        self.stop.cancel();
        for client in self.clients {
            client.await.expect("a client that gives up panics");
        }
        std::mem::take(&mut self.outcome.lock().expect("no client panics while it notes"))
    }
}

struct Poster {
    number: usize,
    url: String,
    pace: Pace,
    keys: bool,
    http: Client,
    accepted: Arc<AtomicI64>,
    outcome: Arc<Mutex<Outcome>>,
}

impl Poster {
    async fn run(self, stop: CancellationToken) {
        let mut next = Instant::now();
        for turn in 0.. {
            if stop.is_cancelled() {
                return;
            }
            tokio::time::sleep_until(next.into()).await;
            next = Instant::now() + self.pace.interval();
            let aggregate = format!("device-{}-{}", self.number, turn % AGGREGATES);
            self.post(&aggregate, turn / AGGREGATES + 1).await;
        }
    }

    /// Posts one event until it is accepted; the key makes a repetition of an accepted one harmless.
    async fn post(&self, aggregate: &str, value: usize) {
        let start = Instant::now();
        let body = json!({"event_type": "sensor.reading", "aggregate_id": aggregate, "payload": {"value": value}});
        let key = format!("{aggregate}/{value}");
        loop {
            let status = match self.attempt(&body, &key).await {
                Ok(event_id) => return self.note(aggregate, event_id, start.elapsed()),
                Err(status) => status,
            };
            *self.outcome.lock().expect("no client panics while it notes").refused.entry(status).or_default() += 1;
            assert!(start.elapsed() < Duration::from_mins(1), "{key} not accepted in a minute; last answer {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn attempt(&self, body: &serde_json::Value, key: &str) -> Result<String, u16> {
        let mut request = self.http.post(&self.url).json(body);
        if self.keys {
            request = request.header("Idempotency-Key", key);
        }
        let response = request.send().await.map_err(|_| 0_u16)?;
        let status = response.status().as_u16();
        if status != 202 {
            return Err(status);
        }
        let answer: serde_json::Value = response.json().await.map_err(|_| 0_u16)?;
        answer["event_id"].as_str().map(str::to_owned).ok_or(0)
    }

    fn note(&self, aggregate: &str, event_id: String, took: Duration) {
        let mut outcome = self.outcome.lock().expect("no client panics while it notes");
        outcome.accepted.entry(aggregate.to_owned()).or_default().push(event_id);
        outcome.longest = outcome.longest.max(took);
        self.accepted.fetch_add(1, Ordering::SeqCst);
    }
}
