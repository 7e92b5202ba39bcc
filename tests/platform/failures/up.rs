//! `cornjacket up`, killed under load and started again: its private PostgreSQL included, nothing is lost.

use std::time::Duration;

use sqlx::PgPool;
use tempfile::TempDir;

use super::load::{Load, Pace};
use super::{turn, verify};
use crate::harness::{Launch, eventually, free_port, sensor_resources};

/// `up` with a data directory of its own, and the sensor resources.
fn launch(data: &TempDir, resources: &TempDir) -> Launch {
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let text: Vec<String> = ports.iter().map(u16::to_string).collect();
    let (dir, resources) = (data.path().display().to_string(), resources.path().display().to_string());
    let arguments = ["up", "--data-dir", &dir, "--resources", &resources, "--bus", "embedded", "--bind", "127.0.0.1"];
    let ports_by_flag = ["--ingestion-port", &text[0], "--query-port", &text[1], "--actions-port", &text[2]];
    Launch::new("up-killed", ports[0], &[arguments.as_slice(), ports_by_flag.as_slice()].concat())
}

async fn pool(data: &TempDir) -> PgPool {
    let url = std::fs::read_to_string(data.path().join("database.url")).unwrap();
    PgPool::connect(url.trim()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_is_killed_under_load_and_started_again() {
    let _turn = turn().await;
    let data = tempfile::Builder::new().prefix("cornjacket-up-").tempdir().unwrap();
    let resources = sensor_resources("up");
    let launch = launch(&data, &resources);
    let mut up = launch.clone().ready().await;
    let load = Load::start(&up.url("/api/v1/events"), Pace::Steady);
    for _ in 0..3 {
        load.more(200).await;
        up.kill9();
        up.start_again();
    }
    load.more(200).await;
    let outcome = load.finish().await;
    verify(&pool(&data).await, &outcome).await;
    assert!(up.terminate().success(), "an orderly end");
    eventually(Duration::from_secs(1), || async { !data.path().join("postgres/data/postmaster.pid").exists() }).await;
}
