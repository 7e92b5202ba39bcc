//! The proof: what clients were told against what is stored and folded.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;

use super::load::Outcome;
use crate::harness::eventually;

/// How long everything accepted may take to be folded once the clients have stopped.
const CATCH_UP: Duration = Duration::from_mins(1);

/// Every accepted event is in the event store once, in the order of acceptance; positions have no gap; projections are
/// the fold of exactly these events.
pub async fn verify(pool: &PgPool, outcome: &Outcome) {
    let events: usize = outcome.accepted.values().map(Vec::len).sum();
    eprintln!("{events} accepted, refused {:?}, longest wait {:?}", outcome.refused, outcome.longest);
    eventually(CATCH_UP, || async {
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(pool).await.map_err(|e| e.to_string())?;
        if left == 0 { Ok(()) } else { Err(format!("{left} in the outbox")) }
    })
    .await;
    assert_eq!(stored(pool).await, outcome.accepted, "stored once each, in the order of acceptance");
    positions_have_no_gap(pool).await;
    eventually(CATCH_UP, || projected(pool, outcome)).await;
    let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dlq").fetch_one(pool).await.unwrap();
    assert_eq!(letters, 0, "a failure of the surroundings is not one of an event");
}

/// Per aggregate, the ids in the event store by position. The n-th has the value n.
async fn stored(pool: &PgPool) -> BTreeMap<String, Vec<String>> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT aggregate_id, event_id::text, (payload->>'value')::bigint FROM event_store
         WHERE event_type = 'sensor.reading' AND aggregate_id LIKE 'device-%' ORDER BY shard, position",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut stored: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (aggregate, event_id, value) in rows {
        let ids = stored.entry(aggregate.clone()).or_default();
        ids.push(event_id);
        assert_eq!(i64::try_from(ids.len()).unwrap(), value, "{aggregate} is out of order in the event store");
    }
    stored
}

pub async fn positions_have_no_gap(pool: &PgPool) {
    let gaps: Vec<(i16, i64, i64, i64)> = sqlx::query_as(
        "SELECT shard, count(*), min(position), max(position) FROM event_store GROUP BY shard
         HAVING count(*) <> max(position) OR min(position) <> 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(gaps.is_empty(), "shards with gaps (shard, events, first, last): {gaps:?}");
}

/// Both projections are what folding the accepted events gives.
async fn projected(pool: &PgPool, outcome: &Outcome) -> Result<(), String> {
    for (projection, fold) in [("sensor_state", latest as fn(usize) -> Value), ("sensor_history", history)] {
        let rows: Vec<(String, Value)> = sqlx::query_as(
            "SELECT aggregate_id, state FROM projections WHERE projection_type = $1 AND aggregate_id LIKE 'device-%'",
        )
        .bind(projection)
        .fetch_all(pool)
        .await
        .map_err(|e| e.to_string())?;
        let rows: BTreeMap<String, Value> = rows.into_iter().collect();
        for (aggregate, ids) in &outcome.accepted {
            let (is, should) = (rows.get(aggregate), fold(ids.len()));
            if is != Some(&should) {
                return Err(format!("{projection} of {aggregate} is {is:?} and should be {should}"));
            }
        }
    }
    Ok(())
}

fn latest(events: usize) -> Value {
    json!({"value": events})
}

fn history(events: usize) -> Value {
    json!({"count": events, "sum": events * (events + 1) / 2, "last": events, "ordered": true})
}

/// Waits until that many keys are projected.
pub async fn until_projected(pool: &PgPool, keys: i64) {
    eventually(Duration::from_secs(30), || async {
        let now: i64 = sqlx::query_scalar("SELECT count(*) FROM projections WHERE projection_type = 'sensor_history'")
            .fetch_one(pool)
            .await
            .map_err(|e| e.to_string())?;
        if now >= keys { Ok(()) } else { Err(format!("{now} keys are projected")) }
    })
    .await;
}

/// Per aggregate, how many events there are.
pub type Counts = BTreeMap<String, i64>;

async fn reached(pool: &PgPool, question: &'static str, goal: &Counts) -> Result<(), String> {
    let rows: Vec<(String, i64)> = sqlx::query_as(question).fetch_all(pool).await.map_err(|e| e.to_string())?;
    let now: Counts = rows.into_iter().collect();
    let behind = goal.iter().filter(|(aggregate, events)| now.get(*aggregate).unwrap_or(&0) < events).count();
    if behind == 0 { Ok(()) } else { Err(format!("{behind} of {} aggregates are behind", goal.len())) }
}

/// Whether at least these events are in the event store.
pub async fn are_stored(pool: &PgPool, goal: &Counts) -> Result<(), String> {
    reached(pool, "SELECT aggregate_id, count(*) FROM event_store GROUP BY 1", goal).await
}

/// Whether at least these events are folded.
pub async fn are_folded(pool: &PgPool, goal: &Counts) -> Result<(), String> {
    let question = "SELECT aggregate_id, (state->>'count')::bigint FROM projections
                    WHERE projection_type = 'sensor_history'";
    reached(pool, question, goal).await
}
