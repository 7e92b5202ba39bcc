//! The relay: rows that cannot be stored or published, several relays, partitions and their retention.

use std::time::Duration;

use chrono::{Days, NaiveDate, Utc};
use cornjacket::bus::embedded::store::report_reader;
use cornjacket::relay::maintenance::Maintenance;
use cornjacket::relay::partitions;
use cornjacket::relay::store::{self, Claim};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Bus, Platform, Process, eventually, fresh_database, http, shared_kafka};

const SOON: Duration = Duration::from_mins(1);

/// Puts rows into the outbox as ingest does, of one shard.
pub async fn outbox(pool: &PgPool, shard: i16, envelopes: &[Value]) {
    for envelope in envelopes {
        let id = envelope["event_id"].as_str().and_then(|id| id.parse::<Uuid>().ok()).unwrap_or_else(Uuid::now_v7);
        sqlx::query("INSERT INTO outbox (outbox_id, event_payload, shard) VALUES ($1, $2, $3)")
            .bind(id)
            .bind(envelope)
            .bind(shard)
            .execute(pool)
            .await
            .expect("inserted");
    }
}

pub fn envelope(aggregate: &str, value: i64) -> Value {
    json!({
        "event_id": Uuid::now_v7(), "event_type": "sensor.reading", "aggregate_id": aggregate, "timestamp": Utc::now(),
        "payload": {"value": value}, "metadata": {}, "ingested_at": Utc::now(),
    })
}

pub async fn count(pool: &PgPool, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(pool).await.expect("an answer")
}

async fn a_row_that_the_store_refuses_becomes_a_dead_letter(name: &str, bus: Bus) {
    let platform = Platform::new(name, fresh_database().await, bus);
    let _controllers = platform.controllers().ready().await;
    let _ingest = platform.ingest().ready().await;
    let pool = platform.database().pool().await;
    let mut no_time = envelope("a", 2);
    no_time["timestamp"] = json!("never");
    let mut long_name = envelope("a", 4);
    long_name["aggregate_id"] = json!("x".repeat(300));
    let rows = [envelope("a", 1), no_time, envelope("a", 3), long_name, envelope("a", 5)];
    outbox(&pool, 7, &rows).await;
    outbox(&pool, 8, &[envelope("b", 1)]).await;
    let _relay = platform.relay("").ready().await;
    eventually(SOON, || async { count(&pool, "SELECT count(*) FROM outbox").await == 0 }).await;
    let stored: Vec<(i64, Value)> =
        sqlx::query_as("SELECT position, payload->'value' FROM event_store WHERE shard = 7 ORDER BY position")
            .fetch_all(&pool)
            .await
            .expect("an answer");
    assert_eq!(stored, [(1, json!(1)), (2, json!(3)), (3, json!(5))], "neighbours are stored, without a gap");
    assert_eq!(count(&pool, "SELECT count(*) FROM event_store WHERE shard = 8").await, 1);
    let causes: Vec<(String, String)> =
        sqlx::query_as("SELECT consumer, error_message FROM dlq ORDER BY failed_at, dlq_id")
            .fetch_all(&pool)
            .await
            .expect("an answer");
    assert_eq!(causes.len(), 2, "{causes:?}");
    assert!(causes.iter().all(|(consumer, _)| consumer == "relay"));
    assert!(causes[0].1.contains("never") && causes[1].1.contains("255"), "{causes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_store_refuses_becomes_a_dead_letter_on_the_embedded_bus() {
    a_row_that_the_store_refuses_becomes_a_dead_letter("refused-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_store_refuses_becomes_a_dead_letter_on_kafka() {
    a_row_that_the_store_refuses_becomes_a_dead_letter("refused-kafka", Bus::Kafka(shared_kafka().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_too_large_to_publish_becomes_a_dead_letter_and_holds_up_nobody() {
    let platform = Platform::new("too-large", fresh_database().await, Bus::Kafka(shared_kafka().await));
    let _controllers = platform.controllers().ready().await;
    let _ingest = platform.ingest().ready().await;
    let pool = platform.database().pool().await;
    let mut large = envelope("a", 2);
    large["payload"] = json!({"value": 2, "text": "x".repeat(1_200_000)});
    outbox(&pool, 3, &[envelope("a", 1), large, envelope("a", 3)]).await;
    let (_relay, _handle) = (platform.relay("").ready().await, platform.handle("").ready().await);
    eventually(SOON, || async { count(&pool, "SELECT count(*) FROM outbox").await == 0 }).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM event_store").await, 3, "the store has it");
    let cause: String = sqlx::query_scalar("SELECT error_message FROM dlq").fetch_one(&pool).await.expect("one letter");
    assert!(cause.contains("bytes"), "{cause}");
    eventually(SOON, || async {
        count(
            &pool,
            "SELECT count(*) FROM projections WHERE projection_type = 'sensor_state' AND state->>'value' = '3'",
        )
        .await
            == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_stored_already_takes_no_position() {
    let platform = Platform::new("known", fresh_database().await, Bus::Embedded);
    let _ingest = platform.ingest().ready().await;
    let _relay = platform.relay("").ready().await;
    let pool = platform.database().pool().await;
    let first = envelope("a", 1);
    for rows in [vec![first.clone()], vec![first, envelope("a", 2)]] {
        outbox(&pool, 5, &rows).await;
        eventually(SOON, || async { count(&pool, "SELECT count(*) FROM outbox").await == 0 }).await;
    }
    let positions: Vec<i64> = sqlx::query_scalar("SELECT position FROM event_store WHERE shard = 5 ORDER BY 1")
        .fetch_all(&pool)
        .await
        .expect("an answer");
    assert_eq!(positions, [1, 2]);
}

async fn several_relays_share_the_work(name: &str, bus: Bus) {
    let platform = Platform::new(name, fresh_database().await, bus);
    let _controllers = platform.controllers().ready().await;
    let ingest = platform.ingest().ready().await;
    let pool = platform.database().pool().await;
    let mut relays = Vec::new();
    for number in ["1", "2", "3"] {
        relays.push(platform.relay(number).ready().await);
    }
    let post = |round: i64| {
        let events: Vec<Value> = (0..500)
            .map(|n| json!({"event_type": "sensor.reading", "aggregate_id": format!("d{}", n % 100), "payload": {"value": round * 5 + n / 100}}))
            .collect();
        let url = ingest.url("/api/v1/events/batch");
        async move { http::post(&http::client(), &url, &json!(events)).await.expect("an answer").status }
    };
    let mut posted = 0;
    // Who takes what is chance, so it goes on until each had its share.
    while posted < 20 || (posted < 400 && least_stored(&relays).await < 500.0) {
        assert_eq!(post(posted).await, 202);
        posted += 1;
    }
    eventually(SOON, || async { count(&pool, "SELECT count(*) FROM outbox").await == 0 }).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM event_store").await, posted * 500);
    let disordered = "SELECT count(*) FROM (SELECT (payload->>'value')::bigint AS v,
             lag((payload->>'value')::bigint) OVER (PARTITION BY aggregate_id ORDER BY position) AS before FROM event_store) e
          WHERE e.before >= e.v";
    assert_eq!(count(&pool, disordered).await, 0, "each aggregate is stored in the order of acceptance");
    let gaps = "SELECT count(*) FROM (SELECT shard FROM event_store GROUP BY shard HAVING max(position) <> count(*)) g";
    assert_eq!(count(&pool, gaps).await, 0);
    let least = least_stored(&relays).await;
    assert!(least >= 500.0, "a relay did next to nothing: it stored {least} of {}", posted * 500);
}

/// What the relay stored that stored least.
async fn least_stored(relays: &[Process]) -> f64 {
    let mut least = f64::INFINITY;
    for relay in relays {
        least = least.min(relay.metric("cornjacket_relay_stored_total").await.unwrap_or(0.0));
    }
    least
}

#[tokio::test(flavor = "multi_thread")]
async fn several_relays_share_the_work_on_the_embedded_bus() {
    several_relays_share_the_work("relays-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_relays_share_the_work_on_kafka() {
    several_relays_share_the_work("relays-kafka", Bus::Kafka(shared_kafka().await)).await;
}

/// Claims a few rows at a time until a claim says that there are no more; returns how many there are then.
async fn drain(pool: PgPool) -> i64 {
    let shards = [3].into_iter().collect();
    let claim = Claim { shards, per_shard: 3, bytes_per_shard: i64::MAX, sweep: false, keep: false };
    loop {
        let moved = store::claim(&pool, claim).await.expect("claimed");
        if moved.first().is_some_and(|m| m.found < claim.per_shard) {
            return count(&pool, "SELECT count(*) FROM outbox").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_relay_takes_rows_that_another_took_for_the_end_of_a_shard() {
    let platform = Platform::new("ends", fresh_database().await, Bus::Embedded);
    let _relay = platform.relay("").ready().await.terminate();
    let pool = platform.database().pool().await;
    let rows: Vec<Value> = (1..=900).map(|n| envelope("a", n)).collect();
    outbox(&pool, 3, &rows).await;
    for left in futures::future::join_all((0..4).map(|_| tokio::spawn(drain(pool.clone())))).await {
        assert_eq!(left.expect("drained"), 0);
    }
    let in_order = "SELECT count(*) FROM event_store WHERE position = (payload->>'value')::bigint";
    assert_eq!(count(&pool, in_order).await, 900);
}

/// A partition of that day with one event in it.
async fn old_partition(pool: &PgPool, day: NaiveDate) {
    let mut connection = pool.acquire().await.expect("a connection");
    partitions::make(&mut connection, &[day]).await.expect("made");
    sqlx::query(
        "INSERT INTO event_store (event_id, event_type, aggregate_id, timestamp, payload, metadata, ingested_at, shard, position)
         VALUES ($1, 't', 'a', now(), '{}', '{}', now(), 9, 41)",
    )
    .bind(partitions::first_id(day))
    .execute(&mut *connection)
    .await
    .expect("stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_makes_the_partition_that_a_late_row_needs() {
    let platform = Platform::new("late-row", fresh_database().await, Bus::Embedded);
    let _relay = platform.relay("").ready().await;
    let pool = platform.database().pool().await;
    let day = Utc::now().date_naive() - Days::new(3);
    let insert = "INSERT INTO outbox (outbox_id, event_payload, shard) VALUES ($1, $2, 9)";
    let (id, late) = (partitions::first_id(day), envelope("late", 1));
    sqlx::query(insert).bind(id).bind(late).execute(&pool).await.expect("inserted");
    let stored = format!("SELECT count(*) FROM {}", partitions::name(day));
    let stored = || async { sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(stored.clone())).fetch_one(&pool).await };
    eventually(SOON, || async { stored().await.is_ok_and(|rows| rows == 1) }).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM dlq").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_dropped_after_its_retention_but_not_before_its_readers_have_read_it() {
    let platform = Platform::new("retention", fresh_database().await, Bus::Embedded);
    assert!(platform.migrate().status().expect("it starts").success());
    let pool = platform.database().pool().await;
    let now = Utc::now();
    let day = now.date_naive() - Days::new(10);
    old_partition(&pool, day).await;
    let maintenance =
        |drop_unread| Maintenance { pool: pool.clone(), retention: Duration::from_hours(7 * 24), drop_unread };
    let exists = || async {
        let name: Option<String> = sqlx::query_scalar("SELECT to_regclass($1)::text")
            .bind(partitions::name(day))
            .fetch_one(&pool)
            .await
            .expect("an answer");
        name.is_some()
    };
    let mut positions = vec![0; 64];
    positions[9] = 40;
    report_reader(&pool, "a reader", &positions).await.expect("reported");
    maintenance(false).round(now).await.expect("a round");
    assert!(exists().await, "position 41 is not read yet");
    positions[9] = 41;
    report_reader(&pool, "a reader", &positions).await.expect("reported");
    maintenance(false).round(now).await.expect("a round");
    assert!(!exists().await);
    old_partition(&pool, day).await;
    positions[9] = 0;
    report_reader(&pool, "a reader", &positions).await.expect("reported");
    maintenance(true).round(now).await.expect("a round");
    assert!(!exists().await, "dropped on request, read or not");
    let ahead = partitions::name(now.date_naive() + Days::new(partitions::AHEAD));
    let made: bool =
        sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(ahead).fetch_one(&pool).await.expect("an answer");
    assert!(made, "partitions are made ahead");
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_of_upkeep_at_once_all_succeed_and_make_each_partition_once() {
    let platform = Platform::new("upkeep", fresh_database().await, Bus::Embedded);
    assert!(platform.migrate().status().expect("it starts").success());
    let pool = platform.database().pool().await;
    let now = Utc::now();
    let old = now.date_naive() - Days::new(10);
    old_partition(&pool, old).await;
    let rounds = [(); 4].map(|()| {
        let maintenance =
            Maintenance { pool: pool.clone(), retention: Duration::from_hours(7 * 24), drop_unread: true };
        tokio::spawn(async move { maintenance.round(now).await })
    });
    for round in futures::future::join_all(rounds).await {
        round.expect("no panic").expect("a round");
    }
    let partitions: Vec<String> = sqlx::query_scalar(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'event_store'::regclass ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .expect("an answer");
    let first = now.date_naive() - Days::new(1);
    let wanted: Vec<_> = (0..=partitions::AHEAD + 1).map(|day| partitions::name(first + Days::new(day))).collect();
    assert_eq!(partitions, wanted);
}
