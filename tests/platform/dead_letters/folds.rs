//! Replays into projections of every kind: whatever flows and whoever is killed meanwhile, their rows equal the fold of the
//! event store in store order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::THING;
use crate::harness::{Bus, eventually, shared_kafka};
use crate::projections::{SOON, World, projection};

const AGGREGATES: u64 = 100;

/// Projections that cannot take a text as `v`, or can. The last one has a key of its own.
fn declare(world: &World, texts: bool) {
    let number = if texts { "int(event.payload.v)" } else { "(event.payload.v + 0)" };
    let filter = format!("  source: {{eventTypes: [thing.seen]}}\n  filter: \"{number} >= 0\"\n  rebuild: Never\n");
    let mixed = format!("((has(state.mixed) ? state.mixed : 7) * 31 + {number}) % 1000003");
    let fields = "  source: {eventTypes: [thing.seen]}\n  rebuild: Never\n";
    world.declare("newest.yaml", &projection("newest", &format!("{filter}  latest: {{}}\n")));
    world.declare("merged.yaml", &projection("merged", &format!("{filter}  merge: {{}}\n")));
    world.declare("mixed.yaml", &projection("mixed", &format!("{fields}  fields: {{mixed: \"{mixed}\"}}\n")));
    let summed = format!(
        "{fields}  key: \"event.payload.k\"\n  fields:\n    sum: \"(has(state.sum) ? state.sum : 0) + {number}\"\n    n: \"has(state.n) ? \
         state.n + 1 : 1\"\n"
    );
    world.declare("summed.yaml", &projection("summed", &summed));
}

const NAMES: [&str; 4] = ["newest", "merged", "mixed", "summed"];

/// The n-th event: every third has a text as `v`. Times go back and forth.
fn event(n: u64) -> Value {
    let at: DateTime<Utc> = Utc::now() - TimeDelta::seconds(i64::try_from(n * 7919 % 3600).expect("small"));
    let v = if n % 3 == 1 { json!((n % 1000).to_string()) } else { json!(n % 1000) };
    json!({
        "event_type": "thing.seen", "aggregate_id": format!("a{}", n % AGGREGATES), "event_time": at,
        "payload": {"v": v, "k": format!("k{}", n * 31 % 37), format!("f{}", n % 5): n},
    })
}

#[derive(sqlx::FromRow)]
struct Stored {
    event_id: Uuid,
    aggregate_id: String,
    timestamp: DateTime<Utc>,
    payload: Value,
}

/// Rows by projection and key.
type Rows = BTreeMap<(String, String), Value>;

/// The fold of the event store, written down a second time.
fn fold(events: &[Stored]) -> Rows {
    let mut rows = Rows::new();
    let mut newest: BTreeMap<&str, (DateTime<Utc>, Uuid)> = BTreeMap::new();
    for event in events {
        let number = |v: &Value| v.as_i64().unwrap_or_else(|| v.as_str().unwrap().parse().unwrap());
        let v = number(&event.payload["v"]);
        let key = |name: &str, key: &str| (name.to_owned(), key.to_owned());
        let stamp = (event.timestamp, event.event_id);
        if newest.get(event.aggregate_id.as_str()).is_none_or(|last| stamp > *last) {
            newest.insert(&event.aggregate_id, stamp);
            rows.insert(key("newest", &event.aggregate_id), event.payload.clone());
            let merged = rows.entry(key("merged", &event.aggregate_id)).or_insert_with(|| Map::new().into());
            merged.as_object_mut().unwrap().extend(event.payload.as_object().unwrap().clone());
        }
        let mixed = rows.entry(key("mixed", &event.aggregate_id)).or_insert_with(|| json!({"mixed": 7}));
        *mixed = json!({"mixed": (mixed["mixed"].as_i64().unwrap() * 31 + v) % 1_000_003});
        let summed = rows.entry(key("summed", event.payload["k"].as_str().unwrap())).or_insert_with(|| json!({}));
        let of = |field: &str| summed[field].as_i64().unwrap_or(0);
        *summed = json!({"sum": of("sum") + v, "n": of("n") + 1});
    }
    rows
}

impl World {
    async fn stored(&self) -> Vec<Stored> {
        let question = "SELECT event_id, aggregate_id, timestamp, payload FROM event_store ORDER BY shard, position";
        sqlx::query_as(question).fetch_all(&self.pool).await.expect("an answer")
    }

    async fn rows(&self) -> Rows {
        let question = "SELECT projection_type, aggregate_id, state FROM projections WHERE projection_type = ANY($1)";
        let rows: Vec<(String, String, Value)> =
            sqlx::query_as(question).bind(NAMES.map(str::to_owned).to_vec()).fetch_all(&self.pool).await.expect("rows");
        rows.into_iter().map(|(name, key, state)| ((name, key), state)).collect()
    }

    /// Waits until the rows equal the fold of the event store; says which row does not.
    async fn until_rows_equal_the_fold(&self) {
        eventually(SOON, || async {
            let (wanted, rows) = (fold(&self.stored().await), self.rows().await);
            let differs = wanted.iter().find(|(key, state)| rows.get(*key) != Some(state));
            match differs {
                None if rows.len() == wanted.len() => Ok(()),
                None => Err(format!("{} rows instead of {}", rows.len(), wanted.len())),
                Some((key, state)) => Err(format!("{key:?} is {:?} instead of {state}", rows.get(key))),
            }
        })
        .await;
    }

    /// Declares the mended projections, and waits until they are what is served.
    async fn mend(&self) {
        let mut before = Vec::new();
        for name in NAMES {
            before.push(self.hash(name).await);
        }
        declare(self, true);
        for (name, before) in NAMES.into_iter().zip(before) {
            eventually(SOON, || async { self.hash(name).await != before }).await;
        }
    }

    async fn hash(&self, name: &str) -> Option<String> {
        let question = "SELECT live_hash::text FROM projection_progress WHERE projection_type = $1";
        sqlx::query_scalar(question).bind(name).fetch_one(&self.pool).await.expect("an answer")
    }

    /// Posts so many events, and waits until the texts among them are letters of every projection.
    async fn fail(&self, events: std::ops::Range<u64>) -> i64 {
        self.declare("thing.yaml", THING);
        declare(self, false);
        for name in NAMES {
            eventually(SOON, || async { self.is_served(name).await }).await;
        }
        let texts = i64::try_from(events.clone().filter(|n| n % 3 == 1).count() * NAMES.len()).expect("a count");
        self.post_all(&events.map(event).collect::<Vec<_>>()).await;
        self.until("SELECT count(*) FROM dlq WHERE status = 'pending'", texts).await;
        texts
    }

    /// Whether it is fed by the group, or reads the event store for good.
    async fn is_served(&self, name: &str) -> bool {
        let question = "SELECT live_hash IS NOT NULL FROM projection_progress WHERE projection_type = $1";
        let served: Option<bool> =
            sqlx::query_scalar(question).bind(name).fetch_optional(&self.pool).await.expect("an answer");
        served == Some(true)
    }
}

async fn ten_thousand_letters_are_replayed_while_events_flow(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    let letters = world.fail(0..7_500).await;
    assert_eq!(letters, 10_000);
    world.mend().await;
    let stop = AtomicBool::new(false);
    let flow = async {
        let mut next = 100_000;
        while !stop.load(Ordering::SeqCst) {
            world.post_all(&(next..next + 50).map(event).collect::<Vec<_>>()).await;
            next += 50;
        }
        next - 100_000
    };
    let replay = async {
        let begun = std::time::Instant::now();
        assert_eq!(world.replay(json!({"consumer": "event-handler"})).await, 10_000);
        world.until("SELECT count(*) FROM dlq WHERE status = 'replayed'", letters).await;
        stop.store(true, Ordering::SeqCst);
        begun.elapsed()
    };
    let (posted, took) = tokio::join!(flow, replay);
    assert!(posted > 0);
    println!("10 000 letters replayed in {:.1} s, beside {posted} events", took.as_secs_f64());
    world.until_rows_equal_the_fold().await;
    assert_eq!(world.count("SELECT count(*) FROM dlq").await, letters, "nothing failed again");
    // What comes later goes on from there.
    world.post_all(&(200_000..200_300).map(event).collect::<Vec<_>>()).await;
    world.until_rows_equal_the_fold().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_letters_are_replayed_while_events_flow_on_the_embedded_bus() {
    ten_thousand_letters_are_replayed_while_events_flow("letters-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_letters_are_replayed_while_events_flow_on_kafka() {
    ten_thousand_letters_are_replayed_while_events_flow("letters-kafka", Bus::Kafka(shared_kafka().await)).await;
}

const REPLAYED: &str = "SELECT count(*) FROM dlq WHERE status = 'replayed'";

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_killed_amid_a_replay_goes_on_with_it() {
    let mut world = World::start("letters-killed", Bus::Embedded).await;
    let letters = world.fail(0..7_500).await;
    world.mend().await;
    // Two of them share the work.
    let mut second = world.platform.handle("second").ready().await;
    world.replay(json!({"all": true})).await;
    let (mut done, mut kills) = (0, 0);
    while done < letters {
        done = eventually(SOON * 2, || async {
            let now = world.count(REPLAYED).await;
            if now > done || now == letters { Ok(now) } else { Err(format!("{now} of {letters}")) }
        })
        .await;
        if done < letters {
            kills += 1;
            for process in [&mut world.handle, &mut second] {
                process.kill9();
                process.start_again();
            }
        }
    }
    assert!(kills > 0, "it was over before anybody could be killed");
    world.until_nothing_is_asked_for().await;
    world.until_rows_equal_the_fold().await;
    assert_eq!(world.count(REPLAYED).await, letters);
}
