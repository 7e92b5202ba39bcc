//! The query service answers as existing clients expect, and refuses in words.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::harness::http::Answer;
use crate::query_service::{Service, append, refusal, states};

#[tokio::test]
async fn a_projection_has_exactly_the_fields_of_the_contract() {
    let service = Service::start().await;
    service.project("sensor_state", "device-001", json!({"value": 72.5, "unit": "fahrenheit"})).await;
    let id: Uuid = sqlx::query_scalar(
        "UPDATE projections SET last_event_id = projection_id, updated_at = '2026-01-02T03:04:06Z' RETURNING projection_id",
    )
    .fetch_one(&service.pool)
    .await
    .unwrap();
    let url = format!("{}/api/v1/projections/sensor_state", service.url);
    let row = format!(
        r#"{{"projection_id":"{id}","projection_type":"sensor_state","aggregate_id":"device-001","state":{{"unit": "fahrenheit", "value": 72.5}},"last_event_id":"{id}","last_event_timestamp":"2026-01-02T03:04:05.678901Z","updated_at":"2026-01-02T03:04:06Z"}}"#
    );
    let one = service.client.get(format!("{url}/device-001")).send().await.unwrap();
    assert_eq!(one.headers()["content-type"], "application/json");
    assert_eq!(one.text().await.unwrap(), row);
    let list = service.client.get(&url).send().await.unwrap();
    assert_eq!(list.text().await.unwrap(), format!(r#"{{"projections":[{row}],"total":1,"limit":20,"offset":0}}"#));
    let none = service.client.get(format!("{url}/device-002")).send().await.unwrap();
    assert_eq!(none.status(), 404);
    assert_eq!(none.headers()["content-type"], "application/problem+json");
    let missing = service.get("/api/v1/projections/sensor_state/device-002").await;
    assert_eq!(refusal(&missing), (404, "projection not found".to_owned()));
    assert_eq!(missing.body["type"], "urn:cornjacket:problem:unknown-projection", "none is declared here");
    let empty = service.get("/api/v1/projections/no_such_type?limit=5&offset=10").await;
    assert_eq!(empty.body, json!({"projections": [], "total": 0, "limit": 5, "offset": 10}));
}

/// Both are `projection not found` to clients that know no more; what to do about it differs.
#[tokio::test]
async fn a_missing_row_and_an_unknown_projection_are_told_apart_with_the_way_out() {
    let service = Service::start().await;
    service.declare("sensor_state");
    let missing = service.get("/api/v1/projections/sensor_state/device-002").await;
    let unknown = service.get("/api/v1/projections/sensor_stat/device-002").await;
    let detail = |answer: &Answer| answer.body["detail"].as_str().unwrap().to_owned();
    for answer in [&missing, &unknown] {
        assert_eq!(refusal(answer), (404, "projection not found".to_owned()));
    }
    assert!(detail(&missing).starts_with("sensor_state has no row 'device-002'"), "{}", missing.body);
    assert!(detail(&missing).contains("after_event="), "{}", missing.body);
    assert!(detail(&unknown).starts_with("no projection of the type 'sensor_stat' is declared"), "{}", unknown.body);
    assert!(detail(&unknown).contains("GET /api/v1/projections"), "{}", unknown.body);
    assert!(detail(&unknown).ends_with("did you mean sensor_state?"), "{}", unknown.body);
    // Rows of a projection that is declared no longer are still served.
    service.project("gone", "device-001", json!({})).await;
    assert_eq!(service.get("/api/v1/projections/gone/device-001").await.status, 200);
}

#[tokio::test]
async fn any_aggregate_id_can_be_asked_for() {
    let service = Service::start().await;
    for (id, path) in [("stream", "%73tream"), ("a/b c", "a%2Fb%20c"), ("ä?#%", "%C3%A4%3F%23%25"), ("..", "%2E%2E")] {
        service.project("t", id, json!({"id": id})).await;
        if id != ".." {
            let answer = service.get(&format!("/api/v1/projections/t/{path}")).await;
            assert_eq!(answer.body["state"], json!({"id": id}), "{path}: {}", answer.body);
        }
    }
    for path in ["a%00b", "%FF", &"x".repeat(300)] {
        let answer = service.get(&format!("/api/v1/projections/t/{path}")).await;
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
        refusal(&answer);
    }
}

#[tokio::test]
async fn a_bad_parameter_is_refused_by_name_value_and_range() {
    let service = Service::start().await;
    for (query, error) in [
        ("limit=0", "limit: '0' must be a whole number from 1 to 100"),
        ("limit=101", "limit: '101' must be a whole number from 1 to 100"),
        ("limit=ten", "limit: 'ten' must be a whole number from 1 to 100"),
        ("limit=", "limit: '' must be a whole number from 1 to 100"),
        ("offset=-1", "offset: '-1' must be a whole number, 0 or more"),
        ("offset=9223372036854775808", "offset: '9223372036854775808' must be a whole number, 0 or more"),
        (
            "cursor=abc",
            "cursor: 'abc' cannot be used: it was not given out by this request; begin with an empty cursor",
        ),
        ("cursor=&offset=3", "offset: '3' does not go with cursor: give one of the two"),
        ("filter=value", "filter: 'value' must read field:operator:value, for example value:gt:70"),
        ("after_event=7", "after_event: '7' must be an event id (a UUID)"),
        ("timeout=1h", "timeout: '1h' must be a time from 0s to 30s, such as 5s or 500ms"),
    ] {
        let answer = service.get(&format!("/api/v1/projections/t?{query}")).await;
        assert_eq!(refusal(&answer), (400, error.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn cursors_walk_every_row_once_while_rows_change() {
    let service = Service::start().await;
    for n in 0..250 {
        service.project("t", &format!("k{n:03}"), json!({"n": n})).await;
    }
    let mut seen = Vec::new();
    let mut cursor = Some(String::new());
    while let Some(token) = cursor {
        let answer = service.get(&format!("/api/v1/projections/t?limit=40&cursor={token}")).await;
        seen.extend(states(&answer).into_keys());
        assert!(answer.body.get("total").is_none());
        cursor = answer.body["next_cursor"].as_str().map(str::to_owned);
        // Rows before, at and behind the cursor change; others appear and go.
        for key in ["k000".to_owned(), "k125".to_owned(), "k249".to_owned(), format!("a{}", seen.len())] {
            service.project("t", &key, json!({"n": -1})).await;
        }
        sqlx::query("DELETE FROM projections WHERE aggregate_id LIKE 'a%'").execute(&service.pool).await.unwrap();
    }
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), unique.len()), (250, 250));
    let first = service.get("/api/v1/projections/t?limit=1&cursor=").await;
    let token = first.body["next_cursor"].as_str().unwrap();
    for elsewhere in ["/api/v1/projections/u?cursor=", "/api/v1/projections/t?filter=n:gt:1&cursor="] {
        assert_eq!(service.get(&format!("{elsewhere}{token}")).await.status, 400, "a cursor of another request");
    }
}

#[tokio::test]
async fn filters_select_by_fields_of_the_state() {
    let service = Service::start().await;
    for (key, state) in [
        ("cold", json!({"value": 3, "unit": "c", "at": {"city": "Oslo"}, "on": true})),
        ("warm", json!({"value": 70.5, "unit": "f", "at": {"city": "Rome"}, "tags": ["a"]})),
        ("text", json!({"value": "70", "unit": "c", "gone": null})),
    ] {
        service.project("t", key, state).await;
    }
    for (filters, expected) in [
        (vec!["value:eq:3"], vec!["cold"]),
        (vec!["value:eq:70.50"], vec!["warm"]),
        (vec!["value:eq:\"70\""], vec!["text"]),
        (vec!["value:gt:3"], vec!["warm"]),
        (vec!["value:gte:3"], vec!["cold", "warm"]),
        (vec!["value:lt:1e9"], vec!["cold", "warm"]),
        (vec!["value:lte:\"8\""], vec!["text"]),
        (vec!["at.city:eq:Oslo"], vec!["cold"]),
        (vec!["at.city:gt:P"], vec!["warm"]),
        (vec!["unit:ne:c"], vec!["warm"]),
        (vec!["on:eq:true"], vec!["cold"]),
        (vec!["gone:eq:null"], vec!["text"]),
        (vec!["gone:exists:true"], vec!["text"]),
        (vec!["tags:exists:false"], vec!["cold", "text"]),
        (vec!["unit:eq:c", "value:gte:0"], vec!["cold"]),
    ] {
        let query: Vec<String> = filters.iter().map(|f| format!("filter={}", encode(f))).collect();
        for paging in ["limit=100", "cursor="] {
            let answer = service.get(&format!("/api/v1/projections/t?{paging}&{}", query.join("&"))).await;
            let found: Vec<String> = states(&answer).into_keys().collect();
            assert_eq!(
                found,
                {
                    let mut e = expected.clone();
                    e.sort_unstable();
                    e
                },
                "{filters:?}"
            );
        }
    }
}

#[tokio::test]
async fn filters_are_data_and_never_part_of_a_statement() {
    let service = Service::start().await;
    service.project("t", "k", json!({"value": 1})).await;
    for attempt in [
        "value' OR '1'='1:eq:1",
        "value:eq:1' OR true --",
        "value')) OR 1=1; DROP TABLE projections; --:gt:0",
        "value:gt:0 UNION SELECT 1",
        "{value}:eq:1",
        "value,x:gt:0",
        "\"value\":gt:0",
        "$1:eq:1",
        "value\\:gt:0",
    ] {
        let answer = service.get(&format!("/api/v1/projections/t?filter={}", encode(attempt))).await;
        assert_eq!((answer.status, &answer.body["total"]), (200, &json!(0)), "{attempt}: {}", answer.body);
    }
    for refused in ["value:eq:\"\\u0000\"", "a%00:eq:1", "value:eq:a%00", "value:or 1=1:1"] {
        let text = if refused.contains('%') { refused.to_owned() } else { encode(refused) };
        assert_eq!(service.get(&format!("/api/v1/projections/t?filter={text}")).await.status, 400, "{refused}");
    }
    assert_eq!(states(&service.get("/api/v1/projections/t?filter=value:eq:1").await).len(), 1);
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[tokio::test]
async fn a_reader_of_its_own_write_waits_until_the_projection_has_passed_it() {
    let service = Service::start().await;
    let pool = &service.pool;
    sqlx::raw_sql(
        "INSERT INTO projection_progress (projection_type, status) VALUES ('t', 'live');
         INSERT INTO consumer_group VALUES ('event-handler', 'embedded');
         INSERT INTO bus_cursor SELECT 'event-handler', generate_series(0, 63), 0",
    )
    .execute(pool)
    .await
    .unwrap();
    let (event, shard, position) = append(pool, "sensor.reading", "k").await;
    let path = format!("/api/v1/projections/t/k?after_event={event}");
    let late = service.get(&format!("{path}&timeout=1s")).await;
    let (status, error) = refusal(&late);
    assert_eq!(status, 504);
    assert!(error.contains(&event.to_string()) && error.contains("within 1000 ms (the projection is live)"), "{error}");

    let handler = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut transaction = pool.begin().await.unwrap();
        crate::query_service::project(&mut transaction, "t", "k", &json!({"mine": true})).await;
        let moved = "UPDATE bus_cursor SET position = $1 WHERE shard = $2";
        sqlx::query(moved).bind(position).bind(shard).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(service.get(&path), handler);
    assert_eq!(answer.body["state"], json!({"mine": true}));

    let unknown = service.get(&format!("/api/v1/projections/t/k?after_event={}", Uuid::now_v7())).await;
    assert_eq!(refusal(&unknown).0, 404);

    let waiting = Uuid::now_v7();
    let outbox = "INSERT INTO outbox (outbox_id, event_payload, shard) VALUES ($1, '{}', 0)";
    sqlx::query(outbox).bind(waiting).execute(pool).await.unwrap();
    let in_outbox = service.get(&format!("/api/v1/projections/t/k?after_event={waiting}&timeout=1s")).await;
    assert!(refusal(&in_outbox).1.contains("still in the outbox"), "{}", in_outbox.body);
    let not_stored = service.get(&format!("/api/v1/events/{waiting}")).await;
    assert_eq!(refusal(&not_stored).0, 404);
}

#[tokio::test]
async fn on_kafka_the_events_own_partition_decides() {
    let service = Service::start().await;
    let pool = &service.pool;
    let (event, shard, position) = append(pool, "sensor.reading", "device-001").await;
    let partition = cornjacket::bus::partition::partition_of("device-001", 12);
    sqlx::raw_sql(
        "INSERT INTO projection_progress (projection_type, status) VALUES ('t', 'live');
         INSERT INTO consumer_group VALUES ('event-handler', 'kafka');
         INSERT INTO bus_cursor SELECT 'event-handler', generate_series(0, 63), 99;
         INSERT INTO bus_offset (consumer_group, topic, partition, next_offset)
         SELECT 'event-handler', 'sensor-events', generate_series(0, 11), 0",
    )
    .execute(pool)
    .await
    .unwrap();
    service.route("sensor-events");
    let read = "UPDATE bus_offset SET positions[$1] = $2 WHERE (partition = $3) = $4";
    for (own, status, timeout) in [(false, 504, "1s"), (true, 200, "20s")] {
        let path = format!("/api/v1/projections/t?after_event={event}&timeout={timeout}");
        sqlx::query(read)
            .bind(i32::from(shard) + 1)
            .bind(position)
            .bind(partition)
            .bind(own)
            .execute(pool)
            .await
            .unwrap();
        assert_eq!(service.get(&path).await.status, status);
    }
}

#[tokio::test]
async fn the_projections_there_are_show_how_far_they_have_come() {
    let service = Service::start().await;
    sqlx::query(
        "INSERT INTO projection_progress (projection_type, target_hash, status, beside, behind, updated_at)
         VALUES ('t', repeat('a', 64), 'catching_up', true, 7, '2026-01-02T03:04:05Z')",
    )
    .execute(&service.pool)
    .await
    .unwrap();
    let answer = service.get("/api/v1/projections").await;
    let expected = json!({"projection_types": [{
        "projection_type": "t", "status": "catching_up", "rebuilding": true, "behind": 7, "message": null, "dead_letters": 0,
        "updated_at": "2026-01-02T03:04:05Z"
    }]});
    assert_eq!(answer.body, expected);
}

#[tokio::test]
async fn the_description_names_every_endpoint_and_the_page_needs_no_other_host() {
    let service = Service::start().await;
    let description = service.get("/openapi.json").await.body;
    let paths: Vec<&String> = description["paths"].as_object().unwrap().keys().collect();
    let expected = [
        "/api/v1/events",
        "/api/v1/events/stream",
        "/api/v1/events/{event_id}",
        "/api/v1/projections",
        "/api/v1/projections/{projection_type}",
        "/api/v1/projections/{projection_type}/stream",
        "/api/v1/projections/{projection_type}/{aggregate_id}",
        "/api/v1/timeseries",
        "/api/v1/timeseries/{name}",
        "/api/v1/timeseries/{name}/export",
    ];
    assert_eq!(paths.into_iter().collect::<BTreeSet<_>>(), expected.map(str::to_owned).iter().collect());
    let ids: BTreeSet<&str> =
        description["paths"].as_object().unwrap().values().map(|p| p["get"]["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 10, "{ids:?}");
    for reference in description.to_string().split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(description.pointer(pointer).is_some(), "{pointer}");
    }
    let page = service.client.get(format!("{}/docs", service.url)).send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    let text = page.text().await.unwrap();
    assert!(text.contains("openapi.json") && !text.contains("http://") && !text.contains("https://"));
}
