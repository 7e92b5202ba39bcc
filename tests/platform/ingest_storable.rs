//! Whatever is accepted can be stored and read back as the later rooms read it.

use chrono::{DateTime, Utc};
use cornjacket::event::Envelope;
use cornjacket::ingest::Settings;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use crate::ingest_world::{World, read};

/// Text of JSON strings, with escapes of all kinds.
fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[a-zA-Z0-9._ /~ü漢😀\u{7f}\u{85}\u{2028}]{1,8}",
        2 => r#"\\[nrtbf"/\\]"#,
        1 => r"\\u00[0-9a-f]{2}",
        1 => r"\\ud8[0-3][0-9a-f]\\udc[0-9a-f]{2}",
        1 => r"\\u[0-9a-fA-F]{4}",
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?",
        r"-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,5})?[eE][+-]?[0-9]{1,5}",
        r"-?[1-9][0-9]{300,320}",
        r"0\.[0-9]{900,1100}",
    ]
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![number(), string(), "true|false|null"];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec((string(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members.into_iter().map(|(k, v)| format!("{k} :{v}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn time() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("null".to_owned()),
        2 => r#""[0-2][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{1,12})?(Z|[+-][01][0-9]:[0-5][0-9])""#,
        1 => r#""000[01]-0[1-2]-0[1-3]T0[0-3]:00:00[+-]1[0-4]:00""#,
    ]
}

fn event() -> impl Strategy<Value = String> {
    let name = prop_oneof![4 => Just("\"name\"".to_owned()), 2 => string()];
    let trace = prop_oneof![2 => Just("null".to_owned()), 1 => string()];
    (name.clone(), name, json(), time(), trace).prop_map(|(kind, aggregate, payload, time, trace)| {
        format!(
            r#"{{"event_type":{kind},"aggregate_id":{aggregate},"payload":{payload},"event_time":{time},"trace_id":{trace}}}"#
        )
    })
}

/// Id, type, aggregate, time, payload, and the whole.
type Stored = (Uuid, String, String, DateTime<Utc>, Json<Value>, Json<Envelope>);

#[tokio::test]
async fn whatever_is_accepted_is_stored_and_reads_back() {
    let world = World::start(Settings::default()).await;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let strategy = event();
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..20 {
        let events: Vec<String> = (0..200).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
        let request = world.post_to("/api/v1/events/batch").header("content-type", "application/x-ndjson");
        let (_, body) = read(request.body(events.join("\n"))).await;
        let results = body["results"].as_array().unwrap_or_else(|| panic!("{body}"));
        assert_eq!(results.len(), events.len());
        for (event, result) in events.iter().zip(results) {
            if result["code"] == 202 {
                accepted += 1;
            } else {
                refused += 1;
                assert_eq!(result["code"], 400, "{event}: {result}");
                assert!(
                    result["errors"].as_array().unwrap().iter().all(|e| e["rule"] != "storable"),
                    "the checks let pass what the database refuses: {event}: {result}"
                );
            }
        }
    }
    assert!(accepted > 500 && refused > 500, "{accepted} accepted, {refused} refused: the generator is lopsided");
    assert_eq!(world.outbox_rows().await, accepted);
    // As the relay takes them to the event store, and as every reader parses them.
    let rows: Vec<Stored> = sqlx::query_as(
        "SELECT (event_payload->>'event_id')::uuid, (event_payload->>'event_type')::varchar(255),
                (event_payload->>'aggregate_id')::varchar(255), (event_payload->>'timestamp')::timestamptz,
                event_payload->'payload', event_payload
         FROM outbox",
    )
    .fetch_all(&world.pool)
    .await
    .unwrap();
    for (id, kind, aggregate, time, _, Json(envelope)) in rows {
        assert_eq!((id, kind, aggregate), (envelope.event_id, envelope.event_type, envelope.aggregate_id));
        assert_eq!(time, envelope.timestamp);
    }
}
