//! The measurements.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection, PgPool};

use crate::client::{self, Connection, Load};
use crate::harness::{Bus, Process, fresh_database, shared_kafka};
use crate::report::{Report, per_second, percentile};
use crate::scene::{Scene, Up};
use crate::{Arguments, actions, control, large, mqtt, series, xmin};

/// Events of the measurements that are about a number of events.
pub const MANY: usize = 100_000;

pub async fn run(arguments: &Arguments, report: &mut Report) {
    let length = Duration::from_secs(arguments.seconds);
    let mut raw = 0.0;
    if arguments.wants("raw") || arguments.wants("accept") {
        raw = raw_rate(length, report).await;
    }
    if arguments.wants("accept") {
        accept(length, raw, report).await;
    }
    let embedded_or_kafka = ["end-to-end", "latency", "backlog", "relays"].iter().any(|s| arguments.wants(s));
    if embedded_or_kafka {
        if arguments.wants_bus("embedded") {
            both_buses(arguments, Bus::Embedded, "embedded", report).await;
        }
        if arguments.wants_bus("kafka") {
            both_buses(arguments, Bus::Kafka(shared_kafka().await), "Kafka", report).await;
        }
    }
    if arguments.wants("latency") && arguments.wants_bus("embedded") {
        latency_of_up(report).await;
    }
    if arguments.wants("idle") {
        idle(report).await;
    }
    if arguments.wants("mqtt") {
        mqtt::run(report).await;
    }
    if arguments.wants("actions") {
        actions::run(report).await;
    }
    if arguments.wants("control") {
        control::run(report).await;
    }
    if arguments.wants("series") {
        series::run(report).await;
    }
    if arguments.wants("large") {
        large::run(report).await;
    }
    if arguments.wants("xmin") {
        xmin::run(report).await;
    }
}

async fn both_buses(arguments: &Arguments, bus: Bus, name: &str, report: &mut Report) {
    let mut rate = 8000.0;
    if arguments.wants("end-to-end") {
        rate = end_to_end(bus.clone(), name, report).await;
    }
    if arguments.wants("latency") {
        latency(bus.clone(), name, rate, report).await;
    }
    if arguments.wants("backlog") {
        backlog(bus.clone(), name, rate, report).await;
    }
    if arguments.wants("relays") {
        relays(bus, name, report).await;
    }
}

/// PostgreSQL's own rate: the statement shape of the outbox, 500 rows a statement, three connections, a commit each.
async fn raw_rate(length: Duration, report: &mut Report) -> f64 {
    let database = fresh_database().await;
    let pool = database.pool().await;
    sqlx::raw_sql(
        "CREATE TABLE raw (id uuid PRIMARY KEY, created_at timestamptz NOT NULL DEFAULT now(), body jsonb NOT NULL,
           shard smallint NOT NULL, seq bigint GENERATED ALWAYS AS IDENTITY);
         CREATE INDEX ON raw (created_at); CREATE INDEX ON raw (shard, seq)",
    )
    .execute(&pool)
    .await
    .expect("a table");
    let begun = Instant::now();
    let writers = (0..3).map(|writer| insert_rows(database.url.clone(), writer, begun, length));
    let rows: usize = futures::future::join_all(writers).await.into_iter().sum();
    let seconds = begun.elapsed().as_secs_f64();
    report.add("PostgreSQL: inserts of 500 rows, 3 connections (the limit)", per_second(rows, seconds), "");
    rate(rows, seconds)
}

async fn insert_rows(url: String, writer: usize, begun: Instant, length: Duration) -> usize {
    let mut connection = PgConnection::connect(&url).await.expect("a connection");
    let mut rows = 0;
    while begun.elapsed() < length {
        let ids: Vec<uuid::Uuid> = (0..500).map(|_| uuid::Uuid::now_v7()).collect();
        let bodies: Vec<String> = (0..500).map(|n| client::event(rows + n * 3 + writer)).collect();
        let shards: Vec<i16> = (0..500).map(|n| n % 64).collect();
        sqlx::query("INSERT INTO raw (id, body, shard) SELECT i, b::jsonb, s FROM unnest($1::uuid[], $2::text[], $3::smallint[]) AS x (i, b, s)")
            .bind(ids)
            .bind(bodies)
            .bind(shards)
            .execute(&mut connection)
            .await
            .expect("inserted");
        rows += 500;
    }
    rows
}

async fn accept(length: Duration, raw: f64, report: &mut Report) {
    let scene = Scene::begin("accept", Bus::Embedded).await;
    let alone = client::batches(scene.port, 6, 500, length, None).await;
    let share = format!("{:.0} % of PostgreSQL's own (target 50 %)", 100.0 * rate(alone.accepted, alone.seconds) / raw);
    report.add("batches of 500 accepted, relay and handler stopped", per_second(alone.accepted, alone.seconds), share);
    drop(scene);

    let scene = Scene::whole("accept-running", Bus::Embedded).await;
    let load = client::batches(scene.port, 6, 500, length, None).await;
    report.add("batches of 500 accepted, relay and handler running", per_second(load.accepted, load.seconds), "");
    drop(scene);

    let scene = Scene::whole("accept-single", Bus::Embedded).await;
    let Load { accepted, seconds, mut latencies } = client::singles(scene.port, 64, length).await;
    report.add("single posts accepted, 64 clients, all roles running", per_second(accepted, seconds), "target 6 000/s");
    report.add("time to 202, 64 clients, p50", format!("{:.1} ms", percentile(&mut latencies, 50.0)), "");
    report.add("time to 202, 64 clients, p99", format!("{:.1} ms", percentile(&mut latencies, 99.0)), "");
}

/// Events in by batches until all are in a projection that counts them.
async fn end_to_end(bus: Bus, name: &str, report: &mut Report) -> f64 {
    let target = if matches!(bus, Bus::Embedded) { "target 8 000/s" } else { "target 5 000/s" };
    let scene = Scene::whole(&format!("end-to-end-{name}"), bus).await;
    let begun = Instant::now();
    let load = client::batches(scene.port, 4, 100, Duration::from_mins(2), Some(MANY)).await;
    scene.until_folded(load.accepted).await;
    let seconds = begun.elapsed().as_secs_f64();
    report.add(format!("end to end, {name} bus"), per_second(load.accepted, seconds), target);
    rate(load.accepted, seconds)
}

/// Time from before a post until a projection shows it, at 50 events/s and at half the end-to-end rate.
async fn latency(bus: Bus, name: &str, full: f64, report: &mut Report) {
    let target = if matches!(bus, Bus::Embedded) { "target p99 < 15 ms" } else { "" };
    let scene = Scene::whole(&format!("latency-{name}"), bus).await;
    let mut times = probe(scene.port, &scene.pool, 500, Duration::from_micros(500)).await;
    let p50 = percentile(&mut times, 50.0);
    report.add(format!("time to projection at 50 events/s, {name} bus, p50"), format!("{p50:.1} ms"), "");
    let p99 = percentile(&mut times, 99.0);
    report.add(format!("time to projection at 50 events/s, {name} bus, p99"), format!("{p99:.1} ms"), target);
    let sent = Arc::new(AtomicUsize::new(0));
    let load = tokio::spawn(steady(scene.port, full / 2.0, sent.clone()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (begun, before) = (Instant::now(), sent.load(Ordering::Relaxed));
    // Looked at less often: at full speed the questions alone would take a good part of a core.
    let mut times = probe(scene.port, &scene.pool, 400, Duration::from_millis(2)).await;
    let reached = per_second(sent.load(Ordering::Relaxed) - before, begun.elapsed().as_secs_f64());
    assert!(!load.is_finished(), "the load ended before the measurement");
    load.abort();
    let p50 = percentile(&mut times, 50.0);
    report.add(
        format!("time to projection at half load, {name} bus, p50"),
        format!("{p50:.1} ms"),
        format!("beside {reached}"),
    );
    let p99 = percentile(&mut times, 99.0);
    report.add(
        format!("time to projection at half load, {name} bus, p99"),
        format!("{p99:.1} ms"),
        "target p99 < 100 ms",
    );
}

/// The same at 50 events/s with all roles in one process, as on a laptop.
async fn latency_of_up(report: &mut Report) {
    let up = Up::start().await;
    let mut times = probe(up.port, &up.pool, 500, Duration::from_micros(500)).await;
    let p50 = percentile(&mut times, 50.0);
    report.add("time to projection at 50 events/s, `up`, p50", format!("{p50:.1} ms"), "");
    let p99 = percentile(&mut times, 99.0);
    report.add("time to projection at 50 events/s, `up`, p99", format!("{p99:.1} ms"), "target p99 < 15 ms");
}

/// Posts events, one each 20 ms, and looks for each in the projection, as often as `look` says.
async fn probe(port: u16, pool: &PgPool, count: usize, look: Duration) -> Vec<f64> {
    let mut connection = Connection::open(port).await.expect("ingest listens");
    let mut times = Vec::with_capacity(count);
    let mut next = tokio::time::interval(Duration::from_millis(20));
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 1..=count {
        next.tick().await;
        let begun = Instant::now();
        let body =
            format!(r#"{{"event_type":"sensor.reading","aggregate_id":"probe","payload":{{"value":{number}}}}}"#);
        let status = connection.post("/api/v1/events", "application/json", body.as_bytes()).await.expect("an answer");
        assert_eq!(status, 202);
        until_shown(pool, "probe", number, begun, look).await;
        times.push(begun.elapsed().as_secs_f64());
    }
    times
}

pub async fn until_shown(pool: &PgPool, aggregate: &str, number: usize, begun: Instant, look: Duration) {
    let wanted = i64::try_from(number).expect("a count");
    loop {
        let shown: Option<i64> = sqlx::query_scalar(
            "SELECT (state->>'value')::bigint FROM projections WHERE projection_type = 'sensor_state' AND aggregate_id = $1",
        )
        .bind(aggregate)
        .fetch_optional(pool)
        .await
        .expect("an answer");
        if shown == Some(wanted) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "event {number} is not shown");
        tokio::time::sleep(look).await;
    }
}

/// The load of the end-to-end measurement (batches of 100 by 4 clients), at a steady rate.
pub async fn steady(port: u16, per_second: f64, sent: Arc<AtomicUsize>) {
    let between = Duration::from_secs_f64(100.0 / per_second.max(1.0));
    let clients = (0..4).map(|number| steady_client(port, number * between, 4 * between, sent.clone()));
    futures::future::join_all(clients).await;
}

async fn steady_client(port: u16, after: Duration, every: Duration, sent: Arc<AtomicUsize>) {
    let mut connection = Connection::open(port).await.expect("ingest listens");
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + after, every);
    loop {
        tick.tick().await;
        let first = sent.fetch_add(100, Ordering::Relaxed);
        let body: String = (first..first + 100).map(|n| client::event(n) + "\n").collect();
        let status = connection.post("/api/v1/events/batch", "application/x-ndjson", body.as_bytes()).await;
        assert_eq!(status.expect("an answer"), 202);
    }
}

/// Relay and handler stop, the outbox fills, and they are started again.
async fn backlog(bus: Bus, name: &str, full: f64, report: &mut Report) {
    let mut scene = Scene::whole(&format!("backlog-{name}"), bus).await;
    scene.stop_relay_and_handler();
    let load = client::batches(scene.port, 6, 500, Duration::from_mins(2), Some(MANY)).await;
    // The broker takes seconds to admit a consumer to its group: the handler waits for the relay.
    scene.start_handler().await;
    if name == "Kafka" {
        scene.until_assigned().await;
    }
    let begun = Instant::now();
    scene.start_relay().await;
    scene.until_folded(load.accepted).await;
    let seconds = begun.elapsed().as_secs_f64();
    let share = format!(
        "{:.0} % of the end-to-end rate (target 100 %), start of the relay included",
        100.0 * rate(load.accepted, seconds) / full
    );
    report.add(format!("backlog of {MANY} drained, {name} bus"), per_second(load.accepted, seconds), share);
}

/// The same backlog into the event store by one relay and by two, on Kafka published as well.
async fn relays(bus: Bus, name: &str, report: &mut Report) {
    for count in [1, 2] {
        let mut scene = Scene::begin(&format!("relays-{name}-{count}"), bus.clone()).await;
        client::batches(scene.port, 6, 500, Duration::from_mins(2), Some(MANY)).await;
        let begun = Instant::now();
        let relays = (0..count).map(|number: usize| scene.platform.relay(&number.to_string()).ready());
        scene.relays = futures::future::join_all(relays).await;
        scene.until("the outbox is empty", "SELECT NOT EXISTS (SELECT FROM outbox)").await;
        let seconds = begun.elapsed().as_secs_f64();
        let what = format!("backlog of {MANY} out of the outbox, {name} bus, {count} relay process(es)");
        report.add(what, per_second(MANY, seconds), "starts included");
    }
}

/// CPU and memory of each role with nothing to do.
async fn idle(report: &mut Report) {
    let scene = Scene::whole("idle", Bus::Embedded).await;
    let query = scene.platform.query().ready().await;
    let roles: [(&str, &Process); 5] = [
        ("controllers", &scene.controllers),
        ("ingest", &scene.ingest),
        ("relay", &scene.relays[0]),
        ("handle", scene.handler.as_ref().expect("started")),
        ("query", &query),
    ];
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = roles.map(|(_, process)| cpu_seconds(process.pid()));
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let seconds = begun.elapsed().as_secs_f64();
    for ((role, process), before) in roles.into_iter().zip(before) {
        let share = 100.0 * (cpu_seconds(process.pid()) - before) / seconds;
        report.add(format!("idle {role}: CPU of one core"), format!("{share:.2} %"), "target < 1 %");
        report.add(
            format!("idle {role}: memory"),
            format!("{:.0} MB", status_mb(process.pid(), "VmRSS:")),
            "target < 100 MB",
        );
    }
}

/// User and system time of a process, in seconds (100 ticks a second on Linux).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// A size of a process in MB: `VmRSS:` is its memory, `VmHWM:` the most that it was.
pub fn status_mb(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("a number") / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "a figure")]
pub fn rate(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}
