//! A platform to be measured: roles as processes on a fresh database, with the projections that a load needs.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use tempfile::TempDir;

use crate::harness::{Bus, Launch, Platform, Process, free_port, fresh_database, sensor_resources};

/// Longest that anything measured may take.
pub const PATIENCE: Duration = Duration::from_mins(5);

pub struct Scene {
    pub platform: Platform,
    pub pool: PgPool,
    pub ingest: Process,
    pub port: u16,
    pub relays: Vec<Process>,
    pub handler: Option<Process>,
    pub controllers: Process,
}

impl Scene {
    /// Controllers and ingest; relays and the handler are started by those who want them.
    pub async fn begin(name: &str, bus: Bus) -> Self {
        let database = fresh_database().await;
        let platform = Platform::new(name, database.clone(), bus);
        let controllers = platform.controllers().ready().await;
        let launch = platform.ingest();
        let port = launch.port;
        let ingest = launch.ready().await;
        let pool = database.pool().await;
        Self { platform, pool, ingest, port, relays: Vec::new(), handler: None, controllers }
    }

    /// With a relay and a handler.
    pub async fn whole(name: &str, bus: Bus) -> Self {
        let mut scene = Self::begin(name, bus).await;
        scene.start_relay().await;
        scene.start_handler().await;
        scene
    }

    pub async fn start_relay(&mut self) {
        let number = self.relays.len().to_string();
        self.relays.push(self.platform.relay(&number).ready().await);
    }

    pub async fn start_handler(&mut self) {
        self.handler = Some(self.platform.handle("").ready().await);
        self.until("projections are live", "SELECT count(*) = 2 FROM projection_progress WHERE status = 'live'").await;
    }

    /// Kafka: waits until the broker has given the handler its partitions.
    pub async fn until_assigned(&self) {
        let begun = Instant::now();
        while !self.handler.as_ref().expect("started").log().contains("partitions assigned") {
            assert!(begun.elapsed() < PATIENCE, "no partitions");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends them in good order.
    pub fn stop_relay_and_handler(&mut self) {
        for mut process in self.relays.drain(..).chain(self.handler.take()) {
            assert!(process.terminate().success(), "an orderly end");
        }
    }

    /// Waits until a question answers true; returns how long that took.
    pub async fn until(&self, what: &str, question: &'static str) -> f64 {
        let begun = Instant::now();
        loop {
            if sqlx::query_scalar::<_, bool>(question).fetch_one(&self.pool).await.unwrap_or(false) {
                return begun.elapsed().as_secs_f64();
            }
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every accepted event is folded; `accepted` counts them.
    pub async fn until_folded(&self, accepted: usize) {
        let wanted = i64::try_from(accepted).expect("a count");
        let begun = Instant::now();
        loop {
            let folded: i64 = sqlx::query_scalar(
                "SELECT coalesce(sum((state->>'count')::bigint), 0)::bigint FROM projections WHERE projection_type = 'sensor_history'",
            )
            .fetch_one(&self.pool)
            .await
            .unwrap_or(0);
            if folded == wanted {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{folded} of {wanted} events folded within {PATIENCE:?}");
            // The look itself takes its part of the machine.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Every role in one process.
pub struct Up {
    pub port: u16,
    pub pool: PgPool,
    _process: Process,
    _directories: [TempDir; 2],
}

impl Up {
    /// Started, with the projections live.
    pub async fn start() -> Self {
        let database = fresh_database().await;
        let resources = sensor_resources("bench-up");
        let ports = [free_port(), free_port(), free_port()];
        let text = ports.map(|port| port.to_string());
        let data = tempfile::tempdir().expect("a temporary directory");
        let [from, to] = [&resources, &data].map(|directory| directory.path().display().to_string());
        let arguments = ["up", "--resources", &from, "--data-dir", &to, "--bus", "embedded"];
        let listens = ["--ingestion-port", &text[0], "--query-port", &text[1], "--actions-port", &text[2], "--no-mqtt"];
        let mut launch = Launch::new("up", ports[0], &[arguments.as_slice(), listens.as_slice()].concat());
        for name in ["INGESTION_DATABASE_URL", "EVENTHANDLER_DATABASE_URL", "QUERY_DATABASE_URL"] {
            launch = launch.env(name, &database.url);
        }
        let process = launch.ready().await;
        let pool = database.pool().await;
        let live = "SELECT count(*) = 2 FROM projection_progress WHERE status = 'live'";
        let begun = Instant::now();
        while !sqlx::query_scalar::<_, bool>(live).fetch_one(&pool).await.unwrap_or(false) {
            assert!(begun.elapsed() < PATIENCE, "the projections are not live");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { port: ports[0], pool, _process: process, _directories: [resources, data] }
    }
}
