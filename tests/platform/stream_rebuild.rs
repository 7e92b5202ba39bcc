//! A stream of a projection over its rebuild by a running handler.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::harness::{Bus, shared_kafka};
use crate::projections::{World, projection};
use crate::query_service::Stream;

const KEYS: usize = 5;
const ROUNDS: i64 = 40;
/// Version of the definition, and number of the event.
const VERSIONED: &str =
    "  source: {eventTypes: [sensor.reading]}\n  fields:\n    d: \"1\"\n    n: \"has(state.n) ? state.n + 1 : 1\"\n";

/// Reads until every key is at its end, reconnecting after every few rows: (key, definition, number) in order.
async fn read(url: String) -> Vec<(String, i64, i64)> {
    let (mut had, mut ended, mut id, mut length) = (Vec::new(), BTreeSet::new(), None::<String>, 1);
    while ended.len() < KEYS {
        let mut stream = Stream::open(&url, id.as_deref()).await;
        length = length * 5 % 17 + 1;
        for _ in 0..length {
            if ended.len() == KEYS {
                break;
            }
            let (key, state, row_id) = stream.row().await;
            let number = |field: &str| state[field].as_i64().expect("a number");
            let version = (number("d"), number("n"));
            if version == (2, ROUNDS) {
                ended.insert(key.clone());
            }
            had.push((key, version.0, version.1));
            id = Some(row_id);
        }
    }
    had
}

async fn a_stream_over_a_rebuild_misses_no_newest_state_and_repeats_none(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    let query = world.platform.query().ready().await;
    world.declare("versioned.yaml", &projection("versioned", VERSIONED));
    for key in 0..KEYS {
        world.post(&format!("k{key}"), json!({"value": 1})).await;
    }
    world.until_state("versioned", "k0", json!({"d": 1, "n": 1})).await;
    let url = query.url("/api/v1/projections/versioned/stream?from=snapshot");
    let readers = [tokio::spawn(read(url.clone())), tokio::spawn(read(url))];
    for round in 2..=ROUNDS {
        if round == ROUNDS / 3 {
            world.declare("versioned.yaml", &projection("versioned", &VERSIONED.replace("d: \"1\"", "d: \"2\"")));
        }
        for key in 0..KEYS {
            world.post(&format!("k{key}"), json!({"value": round})).await;
        }
    }
    for reader in readers {
        let had = reader.await.expect("it had every key's end");
        let mut last = BTreeMap::<&str, (i64, i64)>::new();
        for (key, definition, number) in &had {
            let before = last.insert(key, (*definition, *number)).unwrap_or_default();
            assert!(*definition >= before.0 && *number >= before.1, "{key} went back: {had:?}");
            assert!((*definition, *number) != before, "{key} came twice: {had:?}");
        }
        assert!(had.iter().any(|(_, definition, _)| *definition == 1), "the reader was there before the swap");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_a_rebuild_misses_no_newest_state_and_repeats_none_on_the_embedded_bus() {
    a_stream_over_a_rebuild_misses_no_newest_state_and_repeats_none("swap-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_a_rebuild_misses_no_newest_state_and_repeats_none_on_kafka() {
    let bus = Bus::Kafka(shared_kafka().await);
    a_stream_over_a_rebuild_misses_no_newest_state_and_repeats_none("swap-kafka", bus).await;
}
