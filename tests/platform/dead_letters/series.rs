//! Letters of time series: the event becomes a row.

use serde_json::json;

use super::{ask, tell};
use crate::harness::{eventually, fresh_database};
use crate::time_series::world::{COLUMNS, SOON, World, manifest};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_made_no_row_is_written_once_the_series_is_mended() {
    let world = World::apart("replayed", &fresh_database().await).await;
    world.declare_plain("mended").await;
    for value in [json!(1), json!("2.5"), json!("hot"), json!("4")] {
        world.post_value("a", value).await;
    }
    world.post_value("b", json!("3.5")).await;
    world.until_rows("mended", 1).await;
    let waiting =
        async || ask(&world.handle, "?status=pending").await.body["dead_letters"].as_array().map_or(0, Vec::len);
    eventually(SOON, || async { waiting().await == 4 }).await;
    let hash = || async {
        let question =
            "SELECT hash::text FROM registration_ack WHERE role = 'handle' AND name = 'mended' AND error IS NULL";
        let hash: Option<String> = sqlx::query_scalar(question).fetch_optional(&world.pool).await.expect("an answer");
        hash
    };
    let before = hash().await;
    let mended = COLUMNS.replace("from: event.payload.value}", "from: double(event.payload.value)}");
    world.declare("mended", &manifest("mended", "", &mended));
    eventually(SOON, || async { hash().await.is_some_and(|now| Some(now) != before) }).await;

    let letters = async || -> Vec<(String, i32, Option<String>)> {
        sqlx::query_as("SELECT status, retry_count, reason FROM dlq WHERE aggregate_id = 'a' ORDER BY position")
            .fetch_all(&world.series)
            .await
            .expect("letters")
    };
    let written = letters().await;
    let answer = tell(&world.handle, "/replay", json!({"consumer": "tsdb-writer"})).await;
    assert_eq!((answer.status, &answer.body["requested"]), (202, &json!(4)), "{}", answer.body);
    world.until_rows("mended", 3).await;
    eventually(SOON, || async { waiting().await == 2 }).await;
    let letters = letters().await;
    assert_eq!((letters[0].0.as_str(), letters[1].0.as_str()), ("replayed", "pending"), "{letters:?}");
    // How often an event is tried before depends on those that the writer comes to with it.
    assert_eq!((written[1].1 >= 3, letters[1].1), (true, written[1].1 + 1), "{written:?} {letters:?}");
    assert!(letters[2].2.as_ref().is_some_and(|why| why.starts_with("not tried: letter ")), "{letters:?}");
    let sum = world.text("SELECT sum(value)::text FROM timeseries.mended".to_owned()).await;
    assert_eq!(sum, "7", "each once: 1, 2.5 and 3.5");
}
