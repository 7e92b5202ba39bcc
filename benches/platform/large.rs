//! Throughput with ten million events in the store.

use std::time::{Duration, Instant};

use crate::client;
use crate::harness::Bus;
use crate::report::{Report, per_second};
use crate::scene::Scene;
use crate::sections::{MANY, rate};

/// Events put into the store beforehand.
const STORED: i64 = 10_000_000;
/// Rows of one filling statement.
const STEP: i64 = 500_000;

pub async fn run(report: &mut Report) {
    let scene = Scene::whole("large", Bus::Embedded).await;
    let small = round(&scene, report, "end to end, empty store").await;
    fill(&scene).await;
    let large = round(&scene, report, "end to end, 10 million events stored").await;
    report.add("10 million events against empty", format!("{:.0} %", 100.0 * large / small), "target 80 %");
}

/// Carries [`MANY`] events from the request to the projection as fast as it goes; returns events/s.
pub async fn round(scene: &Scene, report: &mut Report, what: &str) -> f64 {
    let before = folded(scene).await;
    let begun = Instant::now();
    let load = client::batches(scene.port, 4, 100, Duration::from_mins(4), Some(MANY)).await;
    scene.until_folded(before + load.accepted).await;
    let seconds = begun.elapsed().as_secs_f64();
    report.add(what, per_second(load.accepted, seconds), "");
    rate(load.accepted, seconds)
}

async fn folded(scene: &Scene) -> usize {
    let count: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum((state->>'count')::bigint), 0)::bigint FROM projections WHERE projection_type = 'sensor_history'",
    )
    .fetch_one(&scene.pool)
    .await
    .expect("an answer");
    usize::try_from(count).expect("a count")
}

/// Stored as a relay would have, of a type that no projection reads; positions and cursors move along.
async fn fill(scene: &Scene) {
    for step in 0..STORED / STEP {
        eprintln!("  filling the event store: {} of {STORED}", step * STEP);
        let mut tx = scene.pool.begin().await.expect("a transaction");
        sqlx::query("SELECT pg_advisory_xact_lock(1667891201)").execute(&mut *tx).await.expect("batches kept out");
        sqlx::query("SELECT FROM outbox_shard FOR UPDATE").execute(&mut *tx).await.expect("relays kept out");
        sqlx::query(
            "INSERT INTO event_store (event_id, event_type, aggregate_id, timestamp, payload, metadata, ingested_at, shard, position)
             SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
                     || substr(md5(n::text || random()), 1, 3) || '8' || substr(md5(n::text || random()), 1, 15))::uuid,
                    'other.thing', 'thing-' || n % 100000, now(), '{\"value\": 1}', '{}', now(), s.shard,
                    s.position + (n / 64) + 1
               FROM generate_series(0, $1 - 1) n JOIN outbox_shard s ON s.shard = n % 64",
        )
        .bind(STEP)
        .execute(&mut *tx)
        .await
        .expect("stored");
        for sql in [
            "UPDATE outbox_shard s SET position = m.last FROM (SELECT shard, max(position) AS last FROM event_store GROUP BY shard) m WHERE m.shard = s.shard",
            "UPDATE bus_cursor c SET position = s.position FROM outbox_shard s WHERE s.shard = c.shard",
        ] {
            sqlx::query(sql).execute(&mut *tx).await.expect("moved");
        }
        tx.commit().await.expect("committed");
    }
    sqlx::query("ANALYZE event_store").execute(&scene.pool).await.expect("analysed");
}
