//! Projections fed by several topics, and by several aggregates through a key of their own: folded in the order of the
//! event store, whatever becomes of the handler.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Bus, eventually, shared_kafka};
use crate::projections::{SOON, World, projection};

const THINGS: &str = "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata: {name: things}\nspec:\n  topicName: NAME\n  \
                      partitions: 3\n  replicationFactor: 1\n  prefixes: [thing.]\n";
/// Lists the numbers of the events, so that every loss, repetition and change of order shows.
const LIST: &str = "  source: {eventTypes: [sensor.reading, thing.seen]}\n  fields:\n    list: \"(has(state.list) ? state.list : []) + [event.payload.value]\"\n";
const AGGREGATES: i64 = 6;

/// Posts values `from..to`: each aggregate's events come alternately by one topic and the other.
async fn post(world: &World, from: i64, to: i64) {
    for value in from..to {
        let kind = if value / AGGREGATES % 2 == 0 { "sensor.reading" } else { "thing.seen" };
        let payload = json!({"value": value, "room": format!("room-{}", value % 2)});
        world.post_typed(kind, &format!("aggregate-{}", value % AGGREGATES), payload).await;
    }
}

fn list(state: &Value) -> Vec<i64> {
    state["list"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

/// The numbers in the event store, by aggregate, in its order.
async fn stored(world: &World) -> BTreeMap<String, Vec<i64>> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT aggregate_id, (payload->>'value')::bigint FROM event_store ORDER BY shard, position")
            .fetch_all(&world.pool)
            .await
            .expect("an answer");
    let mut stored = BTreeMap::<String, Vec<i64>>::new();
    for (aggregate, value) in rows {
        stored.entry(aggregate).or_default().push(value);
    }
    stored
}

async fn lists(world: &World, projection: &str) -> BTreeMap<String, Vec<i64>> {
    let rows: Vec<(String, Value)> =
        sqlx::query_as("SELECT aggregate_id, state FROM projections WHERE projection_type = $1")
            .bind(projection)
            .fetch_all(&world.pool)
            .await
            .expect("an answer");
    rows.into_iter().map(|(key, state)| (key, list(&state))).collect()
}

/// Both projections are the fold of the first `events` events.
async fn are_the_fold(world: &World, events: i64) {
    let wanted: BTreeMap<String, Vec<i64>> = (0..AGGREGATES)
        .map(|a| (format!("aggregate-{a}"), (0..events).filter(|v| v % AGGREGATES == a).collect()))
        .collect();
    eventually(SOON, || async {
        let (stored, both, rooms) = (stored(world).await, lists(world, "both").await, lists(world, "rooms").await);
        if stored != wanted || both != wanted {
            return Err(format!("stored {stored:?}\nfolded {both:?}"));
        }
        let mut split = BTreeMap::<String, Vec<i64>>::new();
        for (room, value) in rooms.iter().flat_map(|(room, values)| values.iter().map(move |value| (room, value))) {
            assert_eq!(*room, format!("room-{}", value % 2));
            split.entry(format!("aggregate-{}", value % AGGREGATES)).or_default().push(*value);
        }
        if split == wanted { Ok(()) } else { Err(format!("rooms {rooms:?}")) }
    })
    .await;
}

async fn projections_of_several_topics_and_aggregates_are_folded_in_store_order(name: &str, bus: Bus) {
    let mut world = World::start(name, bus).await;
    let topic = world.platform.topic().replace("events", "things");
    world.declare("things.yaml", &THINGS.replace("NAME", &topic));
    // Only where both topics are known does an event of the prefix go to the second.
    eventually(SOON, || async {
        let known = "SELECT count(*) FROM registration WHERE kind = 'Topic' AND state = 'active'";
        sqlx::query_scalar::<_, i64>(known).fetch_one(&world.pool).await.is_ok_and(|topics| topics == 2)
    })
    .await;
    world.declare("both.yaml", &projection("both", LIST));
    world.declare("rooms.yaml", &projection("rooms", &format!("{LIST}  key: event.payload.room\n")));
    for projection in ["both", "rooms"] {
        eventually(SOON, || async {
            let hash = "SELECT live_hash IS NOT NULL FROM projection_progress WHERE projection_type = $1";
            let served: Option<bool> =
                sqlx::query_scalar(hash).bind(projection).fetch_optional(&world.pool).await.expect("an answer");
            served == Some(true)
        })
        .await;
    }
    post(&world, 0, 60).await;
    are_the_fold(&world, 60).await;

    post(&world, 60, 90).await;
    assert!(world.handle.terminate().success());
    post(&world, 90, 120).await;
    world.handle.start_again();
    are_the_fold(&world, 120).await;

    for round in 4..8 {
        post(&world, round * 30, round * 30 + 20).await;
        world.handle.kill9();
        post(&world, round * 30 + 20, round * 30 + 30).await;
        world.handle.start_again();
    }
    are_the_fold(&world, 240).await;
    let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dlq").fetch_one(&world.pool).await.expect("an answer");
    assert_eq!(letters, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_of_several_topics_and_aggregates_are_folded_in_store_order_on_the_embedded_bus() {
    let name = "topics-embedded";
    projections_of_several_topics_and_aggregates_are_folded_in_store_order(name, Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_of_several_topics_and_aggregates_are_folded_in_store_order_on_kafka() {
    let bus = Bus::Kafka(shared_kafka().await);
    projections_of_several_topics_and_aggregates_are_folded_in_store_order("topics-kafka", bus).await;
}
