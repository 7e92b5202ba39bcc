//! Time series: rows written, and a day of readings asked for by the hour.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::client;
use crate::harness::{Bus, Process, http};
use crate::report::{Report, per_second, percentile};
use crate::scene::{PATIENCE, Scene};
use crate::sections::MANY;

const MANIFEST: &str = r"
apiVersion: cornjacket.io/v1alpha1
kind: Projection
metadata: {name: readings}
spec:
  source: {eventTypes: [sensor.reading]}
  timeSeries:
    table: readings
    retention: 30d
    columns:
    - {name: value, type: Double, from: event.payload.value}
    - {name: unit, type: Text, from: 'has(event.payload.unit) ? event.payload.unit : null'}
";

/// A reading a second for a day.
const SECONDS: i64 = 86_400;
const DEVICES: i64 = 100;
/// Devices whose day is asked for, each once.
const ASKED: i64 = 100;

pub async fn run(report: &mut Report) {
    written(report).await;
    asked(report).await;
}

/// A series that is declared when the events are there: the writer alone is at work.
async fn written(report: &mut Report) {
    let mut scene = Scene::begin("series-written", Bus::Embedded).await;
    scene.start_relay().await;
    let load = client::batches(scene.port, 4, 500, Duration::from_mins(4), Some(2 * MANY)).await;
    scene.until("all are stored", "SELECT NOT EXISTS (SELECT FROM outbox)").await;
    declare(&scene).await;
    let begun = Instant::now();
    let _writer = scene.platform.handle("").ready().await;
    until_rows(&scene.pool, i64::try_from(load.accepted).expect("a count")).await;
    let what =
        "rows of a time series written from the event store, start of the process and projections beside it included";
    report.add(what, per_second(load.accepted, begun.elapsed().as_secs_f64()), "");
}

async fn declare(scene: &Scene) {
    std::fs::write(scene.platform.resources().join("readings.yaml"), MANIFEST).expect("our own directory");
    scene.until("the table is there", "SELECT to_regclass('timeseries.readings') IS NOT NULL").await;
}

async fn until_rows(pool: &PgPool, wanted: i64) {
    let begun = Instant::now();
    loop {
        let rows: i64 =
            sqlx::query_scalar("SELECT count(*) FROM timeseries.readings").fetch_one(pool).await.unwrap_or(0);
        if rows == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{rows} of {wanted} rows within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Rows as the writer would have written them, in the order of time; looked after as the database does by itself.
async fn asked(report: &mut Report) {
    let mut scene = Scene::begin("series-asked", Bus::Embedded).await;
    declare(&scene).await;
    scene.start_relay().await;
    let _writer = scene.platform.handle("").ready().await;
    // Yesterday, a whole day of UTC: one partition, which a late reading makes.
    let day = (chrono::Utc::now() - chrono::TimeDelta::days(1)).date_naive();
    let midnight = day.and_hms_opt(0, 0, 0).expect("a time").and_utc();
    let late = serde_json::json!({"event_type": "sensor.reading", "aggregate_id": "late", "event_time": midnight, "payload": {"value": 1}});
    let url = scene.ingest.url("/api/v1/events");
    let answer = http::post(&http::client(), &url, &late).await.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.body);
    until_rows(&scene.pool, 1).await;
    fill(&scene.pool, midnight).await;
    let query = scene.platform.query().ready().await;
    let range = format!("from={}&to={}&step=1h", shown(midnight), shown(midnight + chrono::TimeDelta::days(1)));
    for agg in ["avg", "max", "last", "rate"] {
        let mut times = Vec::new();
        for device in 0..ASKED {
            let path =
                format!("/api/v1/timeseries/readings?aggregate_id=device-{device:03}&agg={agg}&column=value&{range}");
            times.push(timed(&query, &path).await);
        }
        let what = format!("a day of one device by the hour, {agg}, of 8.64 million rows: p50, p99");
        let target = if agg == "avg" { "target p99 50 ms" } else { "" };
        report.add(
            what,
            format!("{:.1} ms, {:.1} ms", percentile(&mut times, 50.0), percentile(&mut times, 99.0)),
            target,
        );
    }
    let all = timed(&query, &format!("/api/v1/timeseries/readings?agg=avg&column=value&{range}")).await;
    report.add("a day of all 100 devices by the hour, avg", format!("{all:.2} s"), "");
}

fn shown(at: chrono::DateTime<chrono::Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

async fn fill(pool: &PgPool, midnight: chrono::DateTime<chrono::Utc>) {
    for hour in 0..24 {
        eprintln!("  filling the time series: hour {hour} of 24");
        sqlx::query(
            "INSERT INTO timeseries.readings (time, aggregate_id, event_id, value, unit)
             SELECT $1 + second * interval '1 second', 'device-' || lpad(device::text, 3, '0'), gen_random_uuid(),
                    20 + 10 * random(), 'celsius'
               FROM generate_series($2, $2 + 3599) second, generate_series(0, $3 - 1) device",
        )
        .bind(midnight)
        .bind(hour * (SECONDS / 24))
        .bind(DEVICES)
        .execute(pool)
        .await
        .expect("inserted");
    }
    eprintln!("  waiting until the database has looked after the rows by itself");
    let begun = Instant::now();
    let looked_after = "SELECT coalesce(bool_and(last_autovacuum IS NOT NULL AND last_autoanalyze IS NOT NULL
            AND n_ins_since_vacuum < 20000 + 0.06 * n_live_tup), false)
       FROM pg_stat_user_tables WHERE schemaname = 'timeseries' AND n_live_tup > 100000";
    while !sqlx::query_scalar::<_, bool>(looked_after).fetch_one(pool).await.unwrap_or(false) {
        assert!(begun.elapsed() < PATIENCE, "autovacuum did not come within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Seconds to the whole answer, of 24 points.
async fn timed(query: &Process, path: &str) -> f64 {
    let (client, url) = (http::client(), query.url(path));
    let begun = Instant::now();
    let answer = http::get(&client, &url).await.expect("an answer");
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(answer.body["points"].as_array().map(Vec::len), Some(24), "{}", answer.body);
    seconds
}
