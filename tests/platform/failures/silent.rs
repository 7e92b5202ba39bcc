//! Connections to the database that say nothing any more, as when a host vanishes or a firewall forgets them, while new
//! ones work.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::verify::until_projected;
use crate::harness::{Bus, Launch, Platform, eventually, fresh_database, http, in_front_of, shared_kafka};

/// Passes on what is said, until the connections of the moment are silenced: they stay open, and nothing comes through.
#[derive(Clone, Default)]
struct Line {
    silence: Arc<Mutex<CancellationToken>>,
}

impl Line {
    async fn pass(self, mut client: TcpStream, mut server: TcpStream) {
        let token = self.silence.lock().unwrap().clone();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            () = token.cancelled() => std::future::pending().await,
        }
    }

    fn silence(&self) {
        std::mem::take(&mut *self.silence.lock().unwrap()).cancel();
    }
}

async fn silent_connections_are_given_up(name: &str, bus: Bus) {
    let platform = Platform::new(name, fresh_database().await, bus);
    let line = Line::default();
    let passes = line.clone();
    let behind = in_front_of(platform.database(), move |client, server| passes.clone().pass(client, server)).await;
    let _controllers = platform.controllers().ready().await;
    let ingest = platform.ingest().ready().await;
    let through =
        |launch: Launch| launch.env("INGESTION_DATABASE_URL", &behind).env("EVENTHANDLER_DATABASE_URL", &behind);
    let relay = through(platform.relay("")).ready().await;
    let handle = through(platform.handle("")).ready().await;
    let pool = platform.database().pool().await;
    let post = async |value: i64| {
        let event = json!({"event_type": "sensor.reading", "aggregate_id": "device-1", "payload": {"value": value}});
        let answer = http::post(&http::client(), &ingest.url("/api/v1/events"), &event).await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
    };
    post(1).await;
    until_projected(&pool, 1).await;

    line.silence();
    post(2).await;
    let folded = "SELECT (state->>'value')::float8 = 2 FROM projections WHERE projection_type = 'sensor_state'";
    eventually(Duration::from_mins(2), || async {
        sqlx::query_scalar::<_, bool>(folded).fetch_one(&pool).await.unwrap_or(false)
    })
    .await;
    for mut process in [relay, handle] {
        let ready =
            || async { http::get(&http::client(), &process.url("/readyz")).await.is_ok_and(|a| a.status == 200) };
        eventually(Duration::from_secs(30), ready).await;
        let ended = tokio::task::block_in_place(|| process.terminate());
        assert!(ended.success(), "its connections hold nobody up at the end either");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_given_up_on_the_embedded_bus() {
    silent_connections_are_given_up("silent-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_given_up_on_kafka() {
    silent_connections_are_given_up("silent-kafka", Bus::Kafka(shared_kafka().await)).await;
}
