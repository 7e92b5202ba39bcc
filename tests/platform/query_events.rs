//! Events are read in order, by aggregate, by id, and as a stream from any point.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use crate::query_service::{Service, Stream, append, refusal};

#[tokio::test]
async fn the_events_of_an_aggregate_come_in_order_and_in_pages() {
    let service = Service::start().await;
    let mut expected = Vec::new();
    for n in 0..25 {
        let event_type = if n % 5 == 0 { "rare" } else { "common" };
        expected.push((append(&service.pool, event_type, "a").await.0.to_string(), event_type));
        append(&service.pool, "common", "b").await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = service.get(&format!("/api/v1/events?aggregate_id=a&limit=10&cursor={cursor}")).await.body;
        seen.extend(ids(&answer));
        match answer["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, expected.iter().map(|e| e.0.clone()).collect::<Vec<_>>());
    let rare = service.get("/api/v1/events?aggregate_id=a&event_type=rare").await.body;
    assert_eq!(ids(&rare), expected.iter().filter(|e| e.1 == "rare").map(|e| e.0.clone()).collect::<Vec<_>>());

    let one = service.get(&format!("/api/v1/events/{}", expected[0].0)).await;
    let fields: Vec<&String> = one.body.as_object().unwrap().keys().collect();
    let named = [
        "aggregate_id",
        "event_id",
        "event_type",
        "ingested_at",
        "metadata",
        "payload",
        "position",
        "shard",
        "timestamp",
    ];
    assert_eq!((one.status, fields), (200, named.map(str::to_owned).iter().collect()));
    for (path, status) in [
        ("/api/v1/events".to_owned(), 400),
        ("/api/v1/events?aggregate_id=".to_owned(), 400),
        ("/api/v1/events/not-an-id".to_owned(), 400),
        (format!("/api/v1/events/{}", Uuid::now_v7()), 404),
        ("/api/v1/events/stream?from=yesterday".to_owned(), 400),
        ("/api/v1/events/stream?follow=maybe".to_owned(), 400),
    ] {
        assert_eq!(refusal(&service.get(&path).await).0, status, "{path}");
    }
}

fn ids(answer: &Value) -> Vec<String> {
    answer["events"].as_array().unwrap().iter().map(|e| e["event_id"].as_str().unwrap().to_owned()).collect()
}

/// Reads to the end of a stream that does not follow, breaking off after every `piece` events.
async fn read_all(service: &Service, path: &str, piece: usize) -> Vec<Value> {
    let mut events = Vec::new();
    let mut id = None;
    loop {
        let mut stream: Stream = service.stream(path, id.as_deref()).await;
        for _ in 0..piece {
            let frame = stream.next().await.unwrap();
            if frame.event == "end" {
                return events;
            }
            events.push(serde_json::from_str(&frame.data).unwrap());
            id = Some(frame.id);
        }
    }
}

#[tokio::test]
async fn a_stream_of_events_is_whole_in_order_and_resumes_anywhere() {
    let service = Service::start().await;
    let mut appended = Vec::new();
    for n in 0..400 {
        let event_type = if n % 40 == 0 { "rare" } else { "common" };
        // One aggregate has as many events as all others, so that its shard is cut off in every page.
        let aggregate = if n % 2 == 0 { "hot".to_owned() } else { format!("a{}", n % 31) };
        appended.push((append(&service.pool, event_type, &aggregate).await.0.to_string(), event_type, aggregate));
    }
    let all = read_all(&service, "/api/v1/events/stream?from=earliest&follow=false", 90).await;
    let seen: Vec<&str> = all.iter().map(|e| e["event_id"].as_str().unwrap()).collect();
    assert_eq!(seen, appended.iter().map(|e| e.0.as_str()).collect::<Vec<_>>());
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for event in &all {
        let position = event["position"].as_i64().unwrap();
        let before = last.insert(event["shard"].as_i64().unwrap(), position).unwrap_or(0);
        assert_eq!(position, before + 1);
    }
    for (query, expected) in [
        ("event_type=rare", appended.iter().filter(|e| e.1 == "rare").count()),
        ("aggregate_id=hot", 200),
        ("aggregate_id=hot&event_type=rare", 10),
        ("aggregate_id=nobody", 0),
    ] {
        let path = format!("/api/v1/events/stream?from=earliest&follow=false&{query}");
        assert_eq!(read_all(&service, &path, 1000).await.len(), expected, "{query}");
    }
    let from = format!("/api/v1/events/stream?follow=false&from={}", appended[390].0);
    assert_eq!(read_all(&service, &from, 1000).await.len(), 10);
    let time = all[0]["ingested_at"].as_str().unwrap();
    let from = format!("/api/v1/events/stream?follow=false&from={time}");
    assert!(read_all(&service, &from, 1000).await.len() >= 399);
    assert_eq!(read_all(&service, "/api/v1/events/stream?follow=false", 1000).await.len(), 0);
}

#[tokio::test]
async fn a_stream_of_events_goes_on_with_what_comes() {
    let service = Service::start().await;
    append(&service.pool, "old", "a").await;
    let mut stream = service.stream("/api/v1/events/stream", None).await;
    stream.first_id().await;
    for n in 0..5 {
        let (id, ..) = append(&service.pool, "new", &format!("a{n}")).await;
        sqlx::query("SELECT pg_notify('cornjacket_event_store', 'x 1')").execute(&service.pool).await.unwrap();
        let frame = stream.next().await.unwrap();
        let event: Value = serde_json::from_str(&frame.data).unwrap();
        assert_eq!(event["event_id"], id.to_string());
    }
}
