//! What is written: late and early events, old ones, bad ones, and where a series starts.

use chrono::{TimeDelta, Utc};
use serde_json::json;

use super::world::{COLUMNS, SOON, World, ago, manifest};
use crate::harness::{Bus, eventually, fresh_database, http, shared_kafka};

#[tokio::test(flavor = "multi_thread")]
async fn late_and_early_events_get_partitions_and_those_past_the_retention_are_counted() {
    let world = World::start("late").await;
    world.declare("late", &manifest("late", "", &format!("    chunkInterval: 1h\n    retention: 2d\n{COLUMNS}")));
    world.until_running("late").await;
    let late = ago(TimeDelta::hours(30));
    let readings = [
        ("a".to_owned(), late, json!({"value": 1.5, "unit": "C"})),
        ("a".to_owned(), Utc::now() + TimeDelta::minutes(4), json!({"value": 2})),
        ("b".to_owned(), ago(TimeDelta::days(3)), json!({"value": 3})),
        ("b".to_owned(), ago(TimeDelta::minutes(1)), json!({"value": 4})),
    ];
    world.post(&readings).await;
    world.until_rows("late", 3).await;
    let partitions = world.partitions("late").await;
    assert!(partitions.contains(&format!("late_{}0000", late.format("%Y%m%d%H"))), "{partitions}");
    let values = world.text(
        "SELECT string_agg(concat_ws('/', aggregate_id, value, unit), ' ' ORDER BY value) FROM timeseries.late"
            .to_owned(),
    );
    assert_eq!(values.await, "a/1.5/C a/2 b/4");
    assert_eq!(world.handle.metric("cornjacket_series_too_old_total").await, Some(1.0));
    let row = "SELECT concat(time = e.timestamp, ' ', t.aggregate_id = e.aggregate_id) FROM timeseries.late t
                 JOIN event_store e USING (event_id) WHERE value = 1.5";
    assert_eq!(world.text(row.to_owned()).await, "t t", "time and aggregate are the event's");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_column_is_written_and_read_back() {
    let world = World::start("types").await;
    let columns = "    columns:
    - {name: a, type: Text, from: event.payload.a}
    - {name: b, type: Boolean, from: event.payload.b}
    - {name: c, type: Integer, from: event.payload.c}
    - {name: d, type: BigInt, from: event.payload.d}
    - {name: e, type: Double, from: event.payload.e}
    - {name: f, type: Numeric, from: event.payload.f}
    - {name: g, type: Timestamp, from: event.payload.g}
    - {name: h, type: Uuid, from: event.payload.h}
    - {name: select, type: Json, from: event.payload.i}
";
    world.declare("types", &manifest("types", "  key: \"'room-' + event.payload.a\"\n", columns));
    world.until_running("types").await;
    let id = "0190b6c8-7f00-7000-8000-000000000001";
    let payload = json!({
        "a": "it's", "b": true, "c": 7, "d": 9_007_199_254_740_993_i64, "e": 1.25, "f": "12345678901234567890.123456789",
        "g": "2026-01-31T12:00:00Z", "h": id, "i": {"n": [1, null, "x"]}
    });
    world.post(&[("m".to_owned(), Utc::now(), payload)]).await;
    world.until_rows("types", 1).await;
    let answer = world.get("/api/v1/timeseries/types").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let row = &answer.body["rows"][0];
    assert_eq!(row["aggregate_id"], "room-it's");
    assert_eq!((&row["a"], &row["b"], &row["c"]), (&json!("it's"), &json!(true), &json!(7)));
    assert_eq!((&row["d"], &row["e"]), (&json!(9_007_199_254_740_993_i64), &json!(1.25)));
    assert_eq!((&row["g"], &row["h"]), (&json!("2026-01-31T12:00:00+00:00"), &json!(id)));
    assert_eq!(row["select"], json!({"n": [1, null, "x"]}));
    let exact = world.text("SELECT f::text FROM timeseries.types".to_owned()).await;
    assert_eq!(exact, "12345678901234567890.123456789", "no digit is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_makes_no_row_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let own = fresh_database().await;
    let world = World::apart("letters", &own).await;
    world.declare_plain("letters").await;
    world.post_value("a", json!(1)).await;
    world.post_value("a", json!("hot")).await;
    world.post_value("a", json!(2)).await;
    world.post_value("b", json!(3)).await;
    world.until_rows("letters", 3).await;
    let letters: Vec<(String, String, String, i32, String)> = sqlx::query_as(
        "SELECT consumer, subject, error_message, retry_count, event_payload->'payload'->>'value' FROM dlq",
    )
    .fetch_all(&world.series)
    .await
    .expect("letters");
    let cause = "time series letters: columns.value: \"hot\" is no Double: make it a number with double(…)";
    let (consumer, subject) = ("tsdb-writer".to_owned(), "letters".to_owned());
    assert_eq!(letters, [(consumer, subject, cause.to_owned(), 3, "hot".to_owned())]);
    let elsewhere: i64 = sqlx::query_scalar("SELECT count(*) FROM dlq").fetch_one(&world.pool).await.expect("a count");
    assert_eq!(elsewhere, 0, "the letters are where the series are");

    // Asked for too early it fails again, and says so; once the definition is mended its row is written.
    ask_for_replay(&world).await;
    let letter = || world.text("SELECT concat(status, ' ', retry_count) FROM dlq".to_owned());
    eventually(SOON, || async { letter().await == "pending 4" }).await;
    let hash = || world.text("SELECT hash::text FROM series_progress".to_owned());
    let before = hash().await;
    let value = "from: \"string(event.payload.value) == 'hot' ? 100.0 : event.payload.value\"";
    world.declare("letters", &manifest("letters", "", &COLUMNS.replace("from: event.payload.value", value)));
    eventually(SOON, || async { hash().await != before }).await;
    ask_for_replay(&world).await;
    world.until_rows("letters", 4).await;
    eventually(SOON, || async { letter().await.starts_with("replayed") }).await;
    let values = world.text("SELECT string_agg(value::text, ' ' ORDER BY value) FROM timeseries.letters".to_owned());
    assert_eq!(values.await, "1 2 3 100");
}

async fn ask_for_replay(world: &World) {
    let url = world.handle.url("/api/v1/dead-letters/replay");
    let filter = json!({"consumer": "tsdb-writer", "subject": "letters"});
    let answer = http::post(&http::client(), &url, &filter).await.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_that_halts_says_where_and_goes_on_when_it_is_mended() {
    let world = World::start("halt").await;
    world.declare("halt", &manifest("halt", "  onError: Halt\n", COLUMNS));
    world.declare("beside", &manifest("beside", "", COLUMNS));
    world.until_running("halt").await;
    world.until_running("beside").await;
    world.post_value("a", json!(1)).await;
    world.until_rows("halt", 1).await;
    world.post_value("a", json!("hot")).await;
    let message = world.until_condition("halt", "CaughtUp", "False", "Halted").await;
    assert!(message.contains("columns.value: \"hot\" is no Double"), "{message}");
    let stalled = world.until_condition("halt", "Stalled", "True", "Halted").await;
    assert!(stalled.contains("mend the definition"), "{stalled}");
    world.post_value("a", json!(2)).await;
    world.until_rows("beside", 2).await;
    assert_eq!(world.count("halt").await, 1, "nothing behind the event is written");
    let mended = COLUMNS.replace(
        "from: event.payload.value",
        "from: \"string(event.payload.value) == 'hot' ? 0 : event.payload.value\"",
    );
    world.declare("halt", &manifest("halt", "  onError: Halt\n", &mended));
    world.until_rows("halt", 3).await;
    world.until_running("halt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_series_is_filled_from_the_event_store_unless_it_starts_at_the_latest() {
    let world = World::start("start").await;
    let before: Vec<_> = (0..1500).map(|n| (format!("d{}", n % 7), Utc::now(), json!({"value": n}))).collect();
    world.post(&before).await;
    eventually(SOON, || async {
        let stored: i64 =
            sqlx::query_scalar("SELECT count(*) FROM event_store").fetch_one(&world.pool).await.unwrap_or(0);
        stored == 1500
    })
    .await;
    world.declare("all", &manifest("all", "", COLUMNS));
    world.declare("new", &manifest("new", "  startFrom: Latest\n", COLUMNS));
    world.until_running("all").await;
    world.until_running("new").await;
    world.until_rows("all", 1500).await;
    world.post_value("d1", json!(-1)).await;
    world.until_rows("new", 1).await;
    world.until_rows("all", 1501).await;
    let readers: Vec<String> =
        sqlx::query_scalar("SELECT reader FROM event_store_reader WHERE reader LIKE 'timeseries:%' ORDER BY 1")
            .fetch_all(&world.pool)
            .await
            .expect("readers");
    assert_eq!(readers, ["timeseries:all", "timeseries:new"], "what they have not read is not dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_kafka_rows_come_from_the_event_store_as_well() {
    let world = World::on_bus("kafka", Bus::Kafka(shared_kafka().await)).await;
    world.declare_plain("kafka").await;
    for value in 1..=20 {
        world.post_value(&format!("d{}", value % 3), json!(value)).await;
    }
    world.until_rows("kafka", 20).await;
    assert_eq!(world.text("SELECT sum(value)::text FROM timeseries.kafka".to_owned()).await, "210");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_database_itself_refuses_is_found_and_put_aside() {
    let world = World::start("careful").await;
    world.declare_plain("careful").await;
    world.post_value("a", json!(1)).await;
    world.until_rows("careful", 1).await;
    // As an operator may, who wants no readings beyond reason.
    sqlx::query("ALTER TABLE timeseries.careful ADD CONSTRAINT reason CHECK (value < 1000)")
        .execute(&world.series)
        .await
        .expect("altered");
    let readings: Vec<_> = (2..=40).map(|n| if n == 20 { 5000 } else { n }).collect();
    let reading = |value: &i64| ("a".to_owned(), Utc::now(), json!({"value": value}));
    world.post(&readings.iter().map(reading).collect::<Vec<_>>()).await;
    world.until_rows("careful", 39).await;
    let letters: Vec<(String, String)> =
        sqlx::query_as("SELECT event_payload->'payload'->>'value', error_message FROM dlq")
            .fetch_all(&world.series)
            .await
            .expect("letters");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].0 == "5000" && letters[0].1.contains("violates check constraint"), "{letters:?}");
}
