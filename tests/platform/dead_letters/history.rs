//! Rows that cannot be folded anew: events are refused, or applied last where that was asked for.

use serde_json::json;

use super::{THING, thing};
use crate::harness::Bus;
use crate::projections::{World, projection};

fn joined(text: &str, more: &str) -> String {
    let fields = format!("s: \"(has(state.s) ? state.s : '') + {text}\"");
    let spec = format!("  source: {{eventTypes: [thing.seen]}}\n  rebuild: Never\n{more}  fields: {{{fields}}}\n");
    projection("joined", &spec)
}

const PENDING: &str = "SELECT count(*) FROM dlq WHERE status = 'pending'";

#[tokio::test(flavor = "multi_thread")]
async fn where_the_history_is_no_longer_whole_an_event_is_applied_last_if_that_is_asked_for() {
    let world = World::start("letters-history", Bus::Embedded).await;
    world.declare("thing.yaml", THING);
    world.declare("joined.yaml", &joined("event.payload.v", ""));
    let before = world.until_live("joined", None).await;
    world.post_all(&[thing("a", "1"), thing("a", 2), thing("a", "3")]).await;
    world.until(PENDING, 1).await;
    world.until_state("joined", "a", json!({"s": "13"})).await;
    world.declare("joined.yaml", &joined("string(event.payload.v)", ""));
    world.until_live("joined", Some(&before)).await;
    // As when retention drops the oldest partition.
    sqlx::query("DELETE FROM event_store WHERE payload->>'v' = '1'").execute(&world.pool).await.expect("deleted");

    world.replay(json!({"all": true})).await;
    world.until_nothing_is_asked_for().await;
    let letter = &world.letters_of("a").await[0];
    assert_eq!((letter.status.as_str(), letter.retry_count), ("pending", 4));
    assert!(letter.error_message.contains("retention") && letter.error_message.contains("append"), "{letter:?}");
    world.until_state("joined", "a", json!({"s": "13"})).await;

    world.replay(json!({"all": true, "append": true})).await;
    world.until(PENDING, 0).await;
    world.until_state("joined", "a", json!({"s": "132"})).await;
    assert!(world.letters_of("a").await[0].reason.as_ref().is_some_and(|why| why.contains("applied last")));
    world.post_all(&[thing("a", "4")]).await;
    world.until_state("joined", "a", json!({"s": "1324"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_began_late_is_folded_from_where_it_began() {
    let world = World::start("letters-latest", Bus::Embedded).await;
    world.declare("thing.yaml", THING);
    world.post_all(&[thing("a", "before")]).await;
    world.until("SELECT count(*) FROM event_store", 1).await;
    world.declare("joined.yaml", &joined("event.payload.v", "  startFrom: Latest\n"));
    let before = world.until_live("joined", None).await;
    world.post_all(&[thing("a", 1), thing("a", "2")]).await;
    world.until(PENDING, 1).await;
    world.until_state("joined", "a", json!({"s": "2"})).await;
    world.declare("joined.yaml", &joined("string(event.payload.v)", "  startFrom: Latest\n"));
    world.until_live("joined", Some(&before)).await;
    world.replay(json!({"all": true})).await;
    world.until(PENDING, 0).await;
    world.until_state("joined", "a", json!({"s": "12"})).await;
}
