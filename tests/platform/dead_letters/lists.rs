//! Looking at letters: filters, pages, counts, and what is refused.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{ask, tell};
use crate::harness::{Bus, Platform, Process, eventually, fresh_database, http};
use crate::projections::SOON;

/// When the oldest of [`letters`] failed.
fn beginning() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

/// 120 letters of three consumers nobody of whom runs, a minute apart; of each consumer every fourth is replayed.
async fn letters(pool: &PgPool) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for n in 0..120 {
        let id = Uuid::now_v7();
        let event =
            json!({"event_type": format!("t.{}", n % 5), "aggregate_id": format!("a{}", n % 7), "payload": {"n": n}});
        sqlx::query(
            "INSERT INTO dlq (dlq_id, consumer, subject, event_id, event_payload, error_message, failed_at, status)
             VALUES ($1, $2, $3, $4, $5, 'because', $6, $7)",
        )
        .bind(id)
        .bind(["one", "two", "three"][n % 3])
        .bind((n % 2 == 0).then_some("even"))
        .bind(Uuid::from_u128(n as u128 + 1))
        .bind(event)
        .bind(beginning() + TimeDelta::minutes(i64::try_from(n).expect("small")))
        .bind(if n % 4 == 3 { "replayed" } else { "pending" })
        .execute(pool)
        .await
        .expect("inserted");
        ids.push(id);
    }
    ids
}

/// Whether the letter of this number matches.
type Holds = fn(u128) -> bool;

/// All letters that match, over pages of seven.
async fn all(process: &Process, filter: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ask(process, &format!("?limit=7&{filter}&cursor={cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let letters = page.body["dead_letters"].as_array().expect("letters");
        assert!(letters.len() <= 7);
        found.extend(letters.iter().cloned());
        match page.body["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return found,
        }
    }
}

async fn world(name: &str) -> (PgPool, Process) {
    let platform = Platform::new(name, fresh_database().await, Bus::Embedded);
    let handle = platform.handle("").ready().await;
    (platform.database().pool().await, handle)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_narrows_the_list_and_pages_hold_each_letter_once() {
    let (pool, handle) = world("letters-list").await;
    let ids = letters(&pool).await;
    let numbers = |found: &[Value]| -> Vec<u128> {
        found.iter().map(|l| l["event_id"].as_str().unwrap().parse::<Uuid>().unwrap().as_u128() - 1).collect()
    };
    let every: Vec<u128> = numbers(&all(&handle, "").await);
    assert_eq!(every, (0..120).rev().collect::<Vec<_>>(), "the newest first, each once");
    let time = |minutes| (beginning() + TimeDelta::minutes(minutes)).format("%Y-%m-%dT%H:%M:%SZ");
    let range = format!("failed_from={}&failed_to={}", time(10), time(20));
    let cases: [(&str, Holds); 8] = [
        ("consumer=two", |n| n % 3 == 1),
        ("subject=even", |n| n % 2 == 0),
        ("status=replayed", |n| n % 4 == 3),
        ("event_type=t.3", |n| n % 5 == 3),
        ("aggregate_id=a6", |n| n % 7 == 6),
        ("event_id=00000000-0000-0000-0000-000000000002", |n| n == 1),
        (&range, |n| (10..20).contains(&n)),
        ("consumer=one&status=pending&subject=even", |n| n % 3 == 0 && n % 4 != 3 && n % 2 == 0),
    ];
    for (filter, holds) in cases {
        let wanted: Vec<u128> = (0..120).rev().filter(|n| holds(*n)).collect();
        assert_eq!(numbers(&all(&handle, filter).await), wanted, "{filter}");
    }
    let one = ask(&handle, &format!("/{}", ids[5])).await;
    assert_eq!((one.status, &one.body["event_payload"]["payload"]), (200, &json!({"n": 5})));
    assert_eq!(
        (&one.body["consumer"], &one.body["event_type"], &one.body["aggregate_id"]),
        (&json!("three"), &json!("t.0"), &json!("a5"))
    );
    let summary = ask(&handle, "/summary").await.body;
    let parts = summary["consumers"].as_array().expect("parts");
    assert_eq!(parts.len(), 6);
    let counted = |field: &str| parts.iter().map(|part| part[field].as_i64().unwrap()).sum::<i64>();
    assert_eq!((counted("pending"), counted("replayed"), counted("discarded"), counted("requested")), (90, 30, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused_by_its_name() {
    let (pool, handle) = world("letters-refused").await;
    let ids = letters(&pool).await;
    for (path, says) in [
        ("?limit=0", "limit: '0' must be"),
        ("?limit=501", "limit: '501' must be"),
        ("?status=gone", "status: 'gone' must be"),
        ("?consumr=one", "consumr"),
        ("?event_id=7", "event_id: '7' must be"),
        ("?failed_from=today", "failed_from: 'today' must be"),
        ("?cursor=abc", "cursor: 'abc' cannot be used"),
        ("/nothing", "dlq_id: 'nothing' must be"),
    ] {
        let answer = ask(&handle, path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        assert!(answer.body["error"].as_str().is_some_and(|e| e.contains(says)), "{path}: {}", answer.body);
    }
    // A cursor is of its filters.
    let page = ask(&handle, "?limit=1&consumer=one").await;
    let cursor = page.body["next_cursor"].as_str().expect("a cursor");
    assert_eq!(ask(&handle, &format!("?limit=1&consumer=two&cursor={cursor}")).await.status, 400);
    assert_eq!(ask(&handle, &format!("/{}", Uuid::now_v7())).await.status, 404);
    for path in ["/replay", "/discard"] {
        for body in [json!({"reason": "x"}), json!({"reason": "x", "consumr": "one", "all": true}), json!([])] {
            let answer = tell(&handle, path, body).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        }
    }
    let answer = tell(&handle, "/replay", json!({})).await;
    assert!(answer.body["error"].as_str().is_some_and(|e| e.starts_with("all: 'false'")), "{}", answer.body);
    // Nothing of it has changed anything.
    assert_eq!(all(&handle, "status=pending").await.len(), 90);

    let answer = tell(
        &handle,
        "/discard",
        json!({"consumer": "one", "failed_to": beginning() + TimeDelta::minutes(30), "reason": "old"}),
    )
    .await;
    assert_eq!((answer.status, &answer.body["discarded"]), (200, &json!(7)), "{}", answer.body);
    let discarded = all(&handle, "status=discarded").await;
    assert!(discarded.len() == 7 && discarded.iter().all(|l| l["reason"] == "old" && l["consumer"] == "one"));
    let id = ids[0].to_string();
    assert!(discarded.iter().any(|letter| letter["dlq_id"] == id.as_str()));
    let answer = tell(&handle, "/replay", json!({"all": true})).await;
    assert_eq!((answer.status, &answer.body["requested"]), (202, &json!(83)), "{}", answer.body);
    assert_eq!(answer.body["consumers"].as_object().map(serde_json::Map::len), Some(3));
}

/// The event handler's letters are in its own database, those of the relay in that of ingestion.
#[tokio::test(flavor = "multi_thread")]
async fn each_role_shows_the_letters_of_its_database_and_metrics_count_them() {
    let platform = Platform::new("letters-apart", fresh_database().await, Bus::Embedded)
        .with_handler_database(fresh_database().await);
    let ingest = platform.ingest().ready().await;
    let (relay, handle) = tokio::join!(platform.relay("").ready(), platform.handle("").ready());
    let pool = platform.database().pool().await;
    let event = json!({"event_type": "t", "aggregate_id": "a", "payload": 1});
    sqlx::query(
        "INSERT INTO dlq (dlq_id, consumer, event_id, event_payload, error_message) VALUES ($1, 'relay', $2, $3, 'no')",
    )
    .bind(Uuid::now_v7())
    .bind(Uuid::now_v7())
    .bind(event)
    .execute(&pool)
    .await
    .expect("inserted");
    assert_eq!(all(&relay, "").await.len(), 1);
    assert_eq!(all(&handle, "").await.len(), 0);
    let metric = "cornjacket_dead_letters{consumer=\"relay\",status=\"pending\"}";
    eventually(SOON, || async { relay.metric(metric).await == Some(1.0) }).await;
    let openapi = http::get(&http::client(), &relay.url("/openapi.json")).await.expect("an answer").body;
    let paths: BTreeSet<&String> = openapi["paths"].as_object().expect("paths").keys().collect();
    assert!(paths.iter().all(|path| path.starts_with("/api/v1/dead-letters")) && paths.len() == 7, "{paths:?}");
    let ingestion = http::get(&http::client(), &ingest.url("/api/v1/dead-letters")).await.expect("an answer");
    assert_eq!(ingestion.status, 404, "not where anybody may post");
}
