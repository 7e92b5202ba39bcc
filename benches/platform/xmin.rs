//! Throughput while a transaction holds back cleaning up for two minutes.

use std::time::{Duration, Instant};

use sqlx::Acquire;

use crate::harness::Bus;
use crate::large::round;
use crate::report::Report;
use crate::scene::Scene;
use crate::sections::{MANY, rate};

/// How long the old transaction is held.
const HELD: Duration = Duration::from_mins(2);
/// Rounds before it, whose mean is what it is measured against.
const BEFORE: u8 = 4;

pub async fn run(report: &mut Report) {
    let scene = Scene::whole("xmin", Bus::Embedded).await;
    let mut free = 0.0;
    for _ in 0..BEFORE {
        free += round(&scene, report, "end to end, nothing held").await / f64::from(BEFORE);
    }
    let mut holder = scene.pool.acquire().await.expect("a connection");
    let mut old = holder.begin().await.expect("a transaction");
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *old).await.expect("set");
    let _: i64 =
        sqlx::query_scalar("SELECT count(*) FROM outbox_shard").fetch_one(&mut *old).await.expect("a snapshot");
    let begun = Instant::now();
    let (mut seconds, mut rounds) = (0.0, Vec::new());
    while begun.elapsed() < HELD {
        let round_begun = Instant::now();
        rounds.push(round(&scene, report, "end to end, xmin held").await);
        seconds += round_begun.elapsed().as_secs_f64();
    }
    old.rollback().await.expect("ended");
    let percent = |rate: f64| format!("{:.0} %", 100.0 * rate / free);
    let whole = rate(rounds.len() * MANY, seconds);
    let last = rounds.iter().rev().take(4).sum::<f64>() / 4.0;
    report.add("xmin held for two minutes against not", percent(whole), "target 50 %");
    report.add("the same, its last four rounds", percent(last), "");
}
