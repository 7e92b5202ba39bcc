//! Events that a projection could fold once and cannot any more.

use serde_json::{Value, json};

use crate::harness::{Bus, eventually, http, shared_kafka};
use crate::projections::{SOON, World, projection};

const SUM: &str = "  source: {eventTypes: [thing.seen]}\n  fields:\n    sum: \"(has(state.sum) ? state.sum : 0) + event.payload.v\"\n";

fn thing(value: &str) -> String {
    let schema = format!("{{type: object, properties: {{v: {{type: {value}}}}}}}");
    format!(
        "apiVersion: cornjacket.io/v1alpha1\nkind: EventType\nmetadata: {{name: thing.seen}}\n\
         spec: {{versions: [{{version: 1, schema: {schema}}}]}}\n"
    )
}

impl World {
    /// The status of posting one event.
    async fn attempt(&self, payload: Value) -> u16 {
        let event = json!({"event_type": "thing.seen", "aggregate_id": "a", "payload": payload});
        http::post(&http::client(), &self.ingest.url("/api/v1/events"), &event).await.expect("an answer").status
    }

    /// Projection, cause and payload of the dead letters.
    async fn letters(&self) -> Vec<(String, String, Value)> {
        let question = "SELECT subject, error_message, event_payload->'payload' FROM dlq ORDER BY failed_at";
        sqlx::query_as(question).fetch_all(&self.pool).await.expect("an answer")
    }
}

async fn the_schema_changes_under_a_projection(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    world.declare("thing.yaml", &thing("integer"));
    world.declare("live.yaml", &projection("live", SUM));
    world.until_status("live", "live").await;
    eventually(SOON, || async { world.attempt(json!({"v": "poison"})).await == 400 }).await;
    world.post_typed("thing.seen", "a", json!({"v": 1})).await;
    world.declare("thing.yaml", &thing("[integer, string]"));
    eventually(SOON, || async { world.attempt(json!({"v": "poison"})).await == 202 }).await;
    world.post_typed("thing.seen", "a", json!({"v": 3})).await;
    world.post_typed("thing.seen", "b", json!({"v": 5})).await;
    world.until_state("live", "a", json!({"sum": 4})).await;
    world.until_state("live", "b", json!({"sum": 5})).await;
    assert_eq!(causes(&world).await, ["live"]);

    // Read from the event store, by a projection that is new, it is poison all the same.
    world.declare("late.yaml", &projection("late", SUM));
    world.until_state("late", "a", json!({"sum": 4})).await;
    world.until_state("late", "b", json!({"sum": 5})).await;
    assert_eq!(causes(&world).await, ["live", "late"]);
}

/// The projections that have given an event up, which must be the poisonous one, each with its cause.
async fn causes(world: &World) -> Vec<String> {
    let letters = world.letters().await.into_iter();
    letters
        .map(|(subject, message, payload)| {
            assert!(message.contains("fields.sum"), "{message}");
            assert_eq!(payload, json!({"v": "poison"}));
            subject
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_changes_under_a_projection_on_the_embedded_bus() {
    the_schema_changes_under_a_projection("schema-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_changes_under_a_projection_on_kafka() {
    the_schema_changes_under_a_projection("schema-kafka", Bus::Kafka(shared_kafka().await)).await;
}
