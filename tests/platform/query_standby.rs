//! Queries answered by a streaming replica of the handler's database.

use serde_json::json;

use crate::harness::{Bus, OwnPostgres, Platform, eventually, http};
use crate::projections::{SOON, World};
use crate::query_service::refusal;

#[tokio::test(flavor = "multi_thread")]
async fn on_a_standby_reads_work_and_streams_of_projections_say_why_they_do_not() {
    let mut primary = tokio::task::block_in_place(|| OwnPostgres::start_new("query-primary"));
    let database = primary.fresh_database().await;
    let standby = tokio::task::block_in_place(|| OwnPostgres::standby_of(&mut primary, "query-standby"));
    let world = World::on(Platform::new("standby", database.clone(), Bus::Embedded)).await;
    let replica = standby.database_like(&database);
    let query = world.platform.query().env("QUERY_DATABASE_URL", &replica.url).ready().await;
    let client = http::client();

    let event = json!({"event_type": "sensor.reading", "aggregate_id": "a", "payload": {"value": 7}});
    let answer = http::post(&client, &world.ingest.url("/api/v1/events"), &event).await.unwrap();
    let event_id = answer.body["event_id"].as_str().expect("accepted").to_owned();
    let row = query.url("/api/v1/projections/sensor_state/a");
    eventually(SOON, || async { http::get(&client, &row).await.is_ok_and(|answer| answer.status == 200) }).await;
    let own = http::get(&client, &format!("{row}?after_event={event_id}&timeout=20s")).await.unwrap();
    assert_eq!((own.status, &own.body["state"]), (200, &json!({"value": 7})), "{}", own.body);
    for page in ["?limit=10", "?cursor=", "?cursor=&filter=value:eq:7"] {
        let list = http::get(&client, &query.url(&format!("/api/v1/projections/sensor_state{page}"))).await.unwrap();
        assert_eq!((list.status, list.body["projections"].as_array().map(Vec::len)), (200, Some(1)), "{}", list.body);
    }
    let stored = http::get(&client, &query.url(&format!("/api/v1/events/{event_id}"))).await.unwrap();
    assert_eq!(stored.status, 200, "{}", stored.body);

    let stream = http::get(&client, &query.url("/api/v1/projections/sensor_state/stream")).await.unwrap();
    let (status, error) = refusal(&stream);
    assert_eq!(status, 501);
    assert!(error.contains("QUERY_DATABASE_URL names a standby"), "{error}");
    let health = http::get(&client, &query.url("/health")).await.unwrap();
    assert_eq!(health.status, 200, "{}", health.body);
}
