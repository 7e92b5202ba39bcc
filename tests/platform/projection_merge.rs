//! `merge` projections through a running handler: RFC 7396, event by event, also when they are rebuilt.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use crate::harness::{Bus, http, shared_kafka};
use crate::projections::{World, projection};

const MERGED: &str = "  source: {eventTypes: [thing.seen]}\n  merge: {}\n";

/// RFC 7396 as its text has it, so that the platform is not measured by itself.
fn merge(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut fields = match target {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for (name, value) in patch {
        let before = fields.remove(name).unwrap_or(Value::Null);
        if !value.is_null() {
            fields.insert(name.clone(), merge(before, value));
        }
    }
    Value::Object(fields)
}

/// What implementations get wrong: nulls that remove, nulls within arrays that do not, arrays replaced as a whole,
/// scalars in the place of objects and back, nulls in a first payload.
fn hard_cases() -> Vec<Value> {
    vec![
        json!({"gone": null, "a": {"b": 1, "none": null, "c": [1, null, {"d": null}]}}),
        json!({"a": {"b": null, "e": {"f": null, "g": 1}}}),
        json!({"a": {"c": [{"x": null}], "missing": null}}),
        json!({"a": {"e": {}}}),
        json!({"a": [1, 2]}),
        json!({"a": {"h": {"i": {"j": null, "k": 0}}}, "": {"": ""}}),
        json!(["a", "payload", "that", "is", "an", "array", null]),
        json!({"b": {"c": null}}),
        json!({"b": "text"}),
        json!({"b": null, "z": false}),
        json!({}),
    ]
}

fn random(rng: &mut StdRng, depth: u32) -> Value {
    match rng.random_range(0..if depth == 0 { 3 } else { 7 }) {
        0 => Value::Null,
        1 => json!(rng.random_range(-3..3)),
        2 => json!([null, {"x": null}, rng.random_range(0..9)]),
        _ => object(rng, depth - 1),
    }
}

fn object(rng: &mut StdRng, depth: u32) -> Value {
    let fields = (0..rng.random_range(0..4)).map(|_| {
        let name = ["a", "b", "c", "d"][rng.random_range(0..4)].to_owned();
        (name, random(rng, depth))
    });
    Value::Object(fields.collect())
}

async fn merge_projections_are_the_merge_of_their_events_and_so_is_a_rebuild(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    world.declare("merged.yaml", &projection("merged", MERGED));
    let mut rng = StdRng::seed_from_u64(7396);
    let hard = hard_cases().into_iter().map(|payload| ("hard".to_owned(), payload));
    let drawn = (0..60).map(|n| (format!("drawn-{}", n % 4), object(&mut rng, 3)));
    let mut states = BTreeMap::<String, Value>::new();
    for (aggregate, payload) in hard.chain(drawn) {
        let before = states.remove(&aggregate).unwrap_or(Value::Null);
        states.insert(aggregate.clone(), merge(before, &payload));
        world.post_typed("thing.seen", &aggregate, payload).await;
    }
    // An event that happened before the others is no news.
    let late = json!({"event_type": "thing.seen", "aggregate_id": "hard", "payload": {"late": true},
                      "event_time": "2020-01-01T00:00:00Z"});
    let answer = http::post(&http::client(), &world.ingest.url("/api/v1/events"), &late).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    world.post_typed("thing.seen", "hard", json!({"end": 1})).await;
    states.insert("hard".to_owned(), merge(states["hard"].clone(), &json!({"end": 1})));
    are_so(&world, "merged", &states).await;

    let before = world.until_live("merged", None).await;
    world.declare("merged.yaml", &projection("merged", &format!("{MERGED}  filter: \"true\"\n")));
    world.until_live("merged", Some(&before)).await;
    are_so(&world, "merged", &states).await;
    world.declare("second.yaml", &projection("second", MERGED));
    are_so(&world, "second", &states).await;
}

async fn are_so(world: &World, projection: &str, states: &BTreeMap<String, Value>) {
    for (aggregate, state) in states {
        world.until_state(projection, aggregate, state.clone()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_projections_are_the_merge_of_their_events_and_so_is_a_rebuild_on_the_embedded_bus() {
    merge_projections_are_the_merge_of_their_events_and_so_is_a_rebuild("merge-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_projections_are_the_merge_of_their_events_and_so_is_a_rebuild_on_kafka() {
    let bus = Bus::Kafka(shared_kafka().await);
    merge_projections_are_the_merge_of_their_events_and_so_is_a_rebuild("merge-kafka", bus).await;
}
