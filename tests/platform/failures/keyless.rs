//! Without an idempotency key: what was accepted is stored once; only what was never answered may be there beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use super::load::{Load, Outcome, Pace};
use super::{Kind, turn, verify};
use crate::harness::{Platform, eventually, fresh_database};

/// An event as it is stored.
struct Stored {
    aggregate: String,
    id: String,
    value: i64,
}

async fn stored(pool: &PgPool) -> Vec<Stored> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT aggregate_id, event_id::text, (payload->>'value')::bigint FROM event_store
         WHERE aggregate_id LIKE 'device-%' ORDER BY shard, position",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    rows.into_iter().map(|(aggregate, id, value)| Stored { aggregate, id, value }).collect()
}

/// What folding these events gives, as the projection `sensor_history` does it.
fn folded(events: &[Stored]) -> BTreeMap<&str, Value> {
    let mut rows: BTreeMap<&str, (i64, i64, i64, bool)> = BTreeMap::new();
    for event in events {
        let (count, sum, last, ordered) = rows.entry(&event.aggregate).or_insert((0, 0, 0, true));
        *ordered &= event.value == *last + 1;
        (*count, *sum, *last) = (*count + 1, *sum + event.value, event.value);
    }
    let state = |(count, sum, last, ordered)| json!({"count": count, "sum": sum, "last": last, "ordered": ordered});
    rows.into_iter().map(|(aggregate, row)| (aggregate, state(row))).collect()
}

async fn projected(pool: &PgPool) -> BTreeMap<String, Value> {
    let rows: Vec<(String, Value)> =
        sqlx::query_as("SELECT aggregate_id, state FROM projections WHERE projection_type = 'sensor_history'")
            .fetch_all(pool)
            .await
            .unwrap();
    rows.into_iter().collect()
}

fn nothing_is_lost_and_only_the_unanswered_is_repeated(events: &[Stored], outcome: &Outcome) {
    let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), events.len(), "no event is stored twice");
    for (aggregate, accepted) in &outcome.accepted {
        let lost: Vec<_> = accepted.iter().filter(|id| !ids.contains(id.as_str())).collect();
        assert!(lost.is_empty(), "accepted and not stored, of {aggregate}: {lost:?}");
        // A repetition comes right behind what it repeats: the client waits for an answer before it goes on.
        let mut values: Vec<i64> = events.iter().filter(|e| e.aggregate == *aggregate).map(|e| e.value).collect();
        values.dedup();
        let goal: Vec<i64> = (1..=i64::try_from(accepted.len()).unwrap()).collect();
        assert_eq!(values, goal, "{aggregate} in the order of acceptance");
    }
    let told: usize = outcome.accepted.values().map(Vec::len).sum();
    // No answer (0), and 503, which says that the event may be stored or not.
    let unanswered: u32 = [0, 503].iter().filter_map(|status| outcome.refused.get(status)).sum();
    let beside = events.len() - told;
    eprintln!("{told} accepted, {beside} stored beside them, of {unanswered} without an answer");
    assert!(beside <= usize::try_from(unanswered).unwrap(), "{beside} beside, {unanswered} without an answer");
}

async fn ingest_and_connections_are_killed(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let platform = Platform::new(&format!("keyless-{kind:?}"), fresh_database().await, bus);
    let _controllers = platform.controllers().ready().await;
    let (mut ingest, mut relay, _handle) =
        tokio::join!(platform.ingest().ready(), platform.relay("").ready(), platform.handle("").ready());
    let load = Load::start_without_keys(&ingest.url("/api/v1/events"), Pace::FlatOut);
    let pool = platform.database().pool().await;
    for _ in 0..5 {
        load.more(300).await;
        ingest.kill9();
        relay.kill9();
        ingest.start_again();
        relay.start_again();
        load.more(100).await;
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE application_name = 'cornjacket outbox writer' AND datname = current_database()";
        sqlx::query(ended).execute(&pool).await.unwrap();
    }
    let outcome = load.finish().await;
    eventually(Duration::from_mins(1), || async {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&pool).await.unwrap();
        if left == 0 { Ok(()) } else { Err(format!("{left} in the outbox")) }
    })
    .await;
    let events = stored(&pool).await;
    nothing_is_lost_and_only_the_unanswered_is_repeated(&events, &outcome);
    verify::positions_have_no_gap(&pool).await;
    let goal: BTreeMap<String, Value> =
        folded(&events).into_iter().map(|(aggregate, state)| (aggregate.to_owned(), state)).collect();
    eventually(Duration::from_mins(1), || async { projected(&pool).await == goal }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_nothing_accepted_is_lost_and_only_the_unanswered_may_repeat_on_the_embedded_bus() {
    ingest_and_connections_are_killed(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_nothing_accepted_is_lost_and_only_the_unanswered_may_repeat_on_kafka() {
    ingest_and_connections_are_killed(Kind::Kafka).await;
}
