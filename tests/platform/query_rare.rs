//! Filters that few of many rows match: pages and streams come to their end, in pieces if need be.

use std::time::Duration;

use cornjacket::query::Limits;
use serde_json::json;

use crate::harness::fresh_database;
use crate::query_service::{Service, states};

const ROWS: i64 = 200_000;

/// Many rows of which one matches, and a service that gives a page hardly any time.
async fn many_rows() -> Service {
    let limits = Limits { filtered_page: Duration::from_millis(10), ..Limits::default() };
    let service = Service::on(&fresh_database().await, limits).await;
    sqlx::query(
        "INSERT INTO projections (projection_id, projection_type, aggregate_id, state, last_event_id,
                last_event_timestamp, shard, position)
         SELECT gen_random_uuid(), 't', 'k' || lpad(n::text, 7, '0'),
                jsonb_build_object('n', n, 'rare', n = 150000), gen_random_uuid(), now(), 0, n
           FROM generate_series(1, $1) n",
    )
    .bind(ROWS)
    .execute(&service.pool)
    .await
    .unwrap();
    sqlx::query("INSERT INTO projection_changes (projection_type, keys) VALUES ('t', NULL)")
        .execute(&service.pool)
        .await
        .unwrap();
    sqlx::query("ANALYZE projections").execute(&service.pool).await.unwrap();
    service
}

#[tokio::test]
async fn a_walk_with_a_rare_filter_comes_to_its_end_by_pages_that_may_be_empty() {
    let service = many_rows().await;
    let (mut found, mut pages, mut empty) = (Vec::new(), 0, 0);
    let mut cursor = Some(String::new());
    while let Some(token) = cursor {
        let answer = service.get(&format!("/api/v1/projections/t?limit=10&filter=rare:eq:true&cursor={token}")).await;
        let page = states(&answer);
        empty += usize::from(page.is_empty());
        pages += 1;
        found.extend(page);
        cursor = answer.body["next_cursor"].as_str().map(str::to_owned);
        assert!(pages < 1000, "it does not come on");
    }
    assert_eq!(found, [("k0150000".to_owned(), json!({"n": 150_000, "rare": true}))]);
    assert!(empty > 0, "{pages} pages: each had time for all rows, so nothing was shown");
}

#[tokio::test]
async fn a_walk_whose_filter_many_rows_match_has_full_pages_without_a_repeat() {
    let service = many_rows().await;
    let mut cursor = String::new();
    for page in 0..5_i64 {
        let answer =
            service.get(&format!("/api/v1/projections/t?limit=100&filter=rare:eq:false&cursor={cursor}")).await;
        let numbers: Vec<i64> = states(&answer).into_values().map(|state| state["n"].as_i64().unwrap()).collect();
        assert_eq!(numbers, (page * 100 + 1..=page * 100 + 100).collect::<Vec<_>>());
        answer.body["next_cursor"].as_str().unwrap().clone_into(&mut cursor);
    }
}

#[tokio::test]
async fn a_stream_of_rows_that_are_rare_finds_them_and_goes_on() {
    let service = many_rows().await;
    let path = "/api/v1/projections/t/stream?from=snapshot&filter=rare:eq:true";
    let mut stream = service.stream(path, None).await;
    let (key, _, id) = stream.row().await;
    assert_eq!(key, "k0150000");
    service.project("t", "new", json!({"rare": true})).await;
    assert_eq!(stream.row().await.0, "new");
    let mut again = service.stream(path, Some(&id)).await;
    assert_eq!(again.row().await.0, "new", "the first does not come twice");
}
