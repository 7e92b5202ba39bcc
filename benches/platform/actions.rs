//! Deliveries to endpoints: how many a second at 1, 10 and 100 endpoints, beside what a client that only posts reaches; how
//! long one takes; and what an endpoint that hangs costs the others.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::post;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::harness::{Bus, Platform, Process, fresh_database, http};
use crate::report::{Report, per_second, percentile};
use crate::scene::PATIENCE;
use crate::sections::rate;

/// Deliveries of a measurement of the rate.
const MANY: usize = 20_000;
/// Requests that the client which only posts has under way, and an endpoint may have.
const UNDER_WAY: usize = 32;
/// Deliveries a second of a measurement of the time, and how many of them.
const PACE: usize = 100;
const PROBES: usize = 1_000;

pub async fn run(report: &mut Report) {
    let receiver = Receiver::start().await;
    let limit = bare(&receiver).await;
    report.add(
        "actions: a client that only posts, 32 requests at a time (the limit)",
        per_second(MANY, MANY_F / limit),
        "",
    );
    for endpoints in [1, 10, 100] {
        let scene = Scene::start(&receiver, endpoints).await;
        let reached = scene.delivered(endpoints).await;
        let share = format!("{:.0} % of that (target 2 000/s)", 100.0 * reached / limit);
        report.add(format!("actions: deliveries, {endpoints} endpoint(s)"), format!("{reached:.0}/s"), share);
        let (p50, p99) = scene.latency(&receiver, endpoints).await;
        let times = format!("p50 {p50:.1} ms, p99 {p99:.1} ms");
        report.add(format!("actions: acceptance to endpoint at {PACE}/s, {endpoints} endpoint(s)"), times, "");
    }
    let scene = Scene::start(&receiver, 10).await;
    let (_, alone) = scene.latency(&receiver, 10).await;
    scene.declare(&[("dead".to_owned(), receiver.url("dead"))]).await;
    let (_, beside) = scene.latency(&receiver, 10).await;
    report.add(
        "actions: p99 of 10 endpoints beside one that hangs",
        format!("{beside:.1} ms"),
        format!("{:.1} times that without it, {alone:.1} ms (target 2)", beside / alone),
    );
}

#[expect(clippy::cast_precision_loss, reason = "a figure")]
const MANY_F: f64 = MANY as f64;

/// Answers at once, but for the path `dead`, and notes how old each event is.
struct Receiver {
    port: u16,
    count: Arc<AtomicUsize>,
    ages: Arc<Mutex<Vec<f64>>>,
    task: JoinHandle<()>,
}

type Shared = (Arc<AtomicUsize>, Arc<Mutex<Vec<f64>>>);

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (count, ages) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let routes = Router::new().route("/{name}", post(take)).with_state((count.clone(), ages.clone()));
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.expect("served") });
        Self { port, count, ages, task }
    }

    fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(Path(name): Path<String>, State((count, ages)): State<Shared>, body: Bytes) {
    if name == "dead" {
        std::future::pending::<()>().await;
    }
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(accepted) = event["ingested_at"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok()) {
        ages.lock().await.push((Utc::now() - accepted).as_seconds_f64());
    }
    count.fetch_add(1, Ordering::SeqCst);
}

/// Requests a second of a client that does nothing else.
async fn bare(receiver: &Receiver) -> f64 {
    let (client, url) = (http::client(), receiver.url("bare"));
    let body = json!({"event_type": "sensor.reading", "aggregate_id": "device-1", "payload": {"value": 1}}).to_string();
    let left = Arc::new(AtomicUsize::new(MANY));
    let begun = Instant::now();
    let posting = (0..UNDER_WAY).map(|_| {
        let (client, url, body, left) = (client.clone(), url.clone(), body.clone(), left.clone());
        tokio::spawn(async move {
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                client.post(&url).body(body.clone()).send().await.expect("an answer");
            }
        })
    });
    for task in posting.collect::<Vec<_>>() {
        task.await.expect("posted");
    }
    rate(MANY, begun.elapsed().as_secs_f64())
}

struct Scene {
    platform: Platform,
    pool: PgPool,
    ingest: Process,
    act: tokio::sync::Mutex<Process>,
    _controllers: Process,
    _relay: Process,
}

impl Scene {
    /// So many actions, each with an event type of its own, without limit and deduplication.
    async fn start(receiver: &Receiver, endpoints: usize) -> Self {
        let platform = Platform::new("bench-actions", fresh_database().await, Bus::Embedded);
        let controllers = platform.controllers().ready().await;
        let (relay, ingest) = (platform.relay("").ready().await, platform.ingest().ready().await);
        let act = tokio::sync::Mutex::new(platform.act("").ready().await);
        let pool = platform.database().pool().await;
        let scene = Self { platform, pool, ingest, act, _controllers: controllers, _relay: relay };
        let actions: Vec<_> = (0..endpoints).map(|n| (format!("to-{n}"), receiver.url(&format!("to-{n}")))).collect();
        scene.declare(&actions).await;
        scene
    }

    async fn declare(&self, actions: &[(String, String)]) {
        let mut text = String::new();
        for (name, url) in actions {
            let number = name.strip_prefix("to-").unwrap_or("0");
            write!(
                text,
                "---\napiVersion: cornjacket.io/v1alpha1\nkind: WebhookAction\nmetadata: {{name: {name}}}\nspec: {{source: {{eventTypes: [load.{number}]}}, \
                 url: '{url}', rateLimit: {{deliveries: 1000000, per: 1s, maxWaiting: 1000000}}, deduplication: {{key: event.event_id}}}}\n"
            )
            .expect("a text");
        }
        std::fs::write(self.platform.resources().join(format!("actions-{}.yaml", actions[0].0)), text)
            .expect("our own directory");
        let wanted = actions.len();
        self.until("actions run", wanted, "SELECT count(*) FROM registration_ack WHERE role = 'act' AND error IS NULL")
            .await;
    }

    async fn until(&self, what: &str, at_least: usize, question: &'static str) {
        let (begun, wanted) = (Instant::now(), i64::try_from(at_least).expect("a count"));
        loop {
            let now: i64 = sqlx::query_scalar(question).fetch_one(&self.pool).await.unwrap_or(0);
            if now >= wanted {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {now} of {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn send(&self, events: &[Value]) {
        for batch in events.chunks(1_000) {
            let answer = http::post(&http::client(), &self.ingest.url("/api/v1/events/batch"), &json!(batch)).await;
            assert_eq!(answer.expect("an answer").status, 202);
        }
    }

    /// Deliveries a second of events that are stored already, from the start of the role to the last answer kept.
    async fn delivered(&self, endpoints: usize) -> f64 {
        let mut act = self.act.lock().await;
        assert!(act.terminate().success(), "an orderly end");
        let event = |n: usize| json!({"event_type": format!("load.{}", n % endpoints), "aggregate_id": format!("device-{}", n % 1_000), "payload": {"value": n}});
        self.send(&(0..MANY).map(event).collect::<Vec<_>>()).await;
        self.until("events are stored", MANY, "SELECT count(*) FROM event_store").await;
        act.start_again();
        act.until_ready(PATIENCE).await;
        let begun = Instant::now();
        let before: i64 = self.count_delivered().await;
        self.until("delivered", MANY, "SELECT count(*) FROM delivery WHERE status = 'delivered'").await;
        rate(MANY - usize::try_from(before).unwrap_or(0), begun.elapsed().as_secs_f64())
    }

    async fn count_delivered(&self) -> i64 {
        let question = "SELECT count(*) FROM delivery WHERE status = 'delivered'";
        sqlx::query_scalar(question).fetch_one(&self.pool).await.expect("an answer")
    }

    /// From acceptance to the endpoint, in milliseconds: p50 and p99.
    async fn latency(&self, receiver: &Receiver, endpoints: usize) -> (f64, f64) {
        receiver.ages.lock().await.clear();
        let before = receiver.count.load(Ordering::SeqCst);
        let mut next = tokio::time::interval(Duration::from_secs(1) / u32::try_from(PACE).expect("a count"));
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let client = http::client();
        for n in 0..PROBES {
            next.tick().await;
            let event = json!({"event_type": format!("load.{}", n % endpoints), "aggregate_id": format!("device-{n}"), "payload": {"value": n}});
            let answer = http::post(&client, &self.ingest.url("/api/v1/events"), &event).await;
            assert_eq!(answer.expect("an answer").status, 202);
        }
        let begun = Instant::now();
        while receiver.count.load(Ordering::SeqCst) < before + PROBES {
            assert!(begun.elapsed() < PATIENCE, "probes do not arrive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut ages = receiver.ages.lock().await.clone();
        (percentile(&mut ages, 50.0), percentile(&mut ages, 99.0))
    }
}
