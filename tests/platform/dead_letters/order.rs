//! What becomes of letters that fail again, of those behind them, and of those that are discarded.

use serde_json::json;

use super::{THING, ask, tell, thing};
use crate::harness::Bus;
use crate::projections::{World, projection};

fn sum(number: &str, rebuild: &str) -> String {
    let fields = format!("sum: \"(has(state.sum) ? state.sum : 0) + {number}\"");
    projection(
        "sums",
        &format!("  source: {{eventTypes: [thing.seen]}}\n  rebuild: {rebuild}\n  fields: {{{fields}}}\n"),
    )
}

const PENDING: &str = "SELECT count(*) FROM dlq WHERE status = 'pending'";

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_fails_again_is_pending_with_the_new_cause_and_keeps_back_those_behind_it() {
    let world = World::start("letters-again", Bus::Embedded).await;
    world.declare("thing.yaml", THING);
    world.declare("sums.yaml", &sum("event.payload.v", "Never"));
    let before = world.until_live("sums", None).await;
    let events = [thing("a", 1), thing("a", "2"), thing("a", "x"), thing("a", "4"), thing("a", 8), thing("b", "16")];
    world.post_all(&events).await;
    world.until(PENDING, 4).await;
    world.until_state("sums", "a", json!({"sum": 9})).await;

    // Nothing is mended yet: all fail as they did.
    assert_eq!(world.replay(json!({"subject": "sums", "aggregate_id": "a"})).await, 3);
    world.until_nothing_is_asked_for().await;
    let letters = world.letters_of("a").await;
    assert_eq!(letters.iter().map(|letter| letter.retry_count).collect::<Vec<_>>(), [4, 3, 3]);
    assert!(letters.iter().all(|letter| letter.status == "pending"));
    let first = letters[0].dlq_id.to_string();
    assert!(letters[1].reason.as_ref().is_some_and(|why| why.contains(&first)), "{letters:?}");
    world.until_state("sums", "a", json!({"sum": 9})).await;

    world.declare("sums.yaml", &sum("int(event.payload.v)", "Never"));
    world.until_live("sums", Some(&before)).await;
    assert_eq!(world.replay(json!({"all": true})).await, 4);
    world.until_nothing_is_asked_for().await;
    let letters = world.letters_of("a").await;
    assert_eq!(
        letters.iter().map(|letter| letter.status.as_str()).collect::<Vec<_>>(),
        ["replayed", "pending", "pending"]
    );
    assert!(letters[1].error_message.contains("projection sums: fields.sum"), "{letters:?}");
    assert!(letters[1].error_message != world.letters_of("b").await[0].error_message);
    assert_eq!((letters[1].retry_count, letters[1].reason.as_ref()), (4, None));
    assert_eq!((letters[2].retry_count, letters[2].requested), (3, false));
    let second = letters[1].dlq_id;
    assert!(letters[2].reason.as_ref().is_some_and(|why| why.contains(&second.to_string())), "{letters:?}");
    world.until_state("sums", "a", json!({"sum": 11})).await;
    world.until_state("sums", "b", json!({"sum": 16})).await;
    discard_and_go_on(&world, second).await;
}

async fn discard_and_go_on(world: &World, poison: uuid::Uuid) {
    let no_reason = tell(&world.handle, &format!("/{poison}/discard"), json!({"reason": " "})).await;
    assert_eq!(
        (no_reason.status, no_reason.body["error"].as_str().map(|e| e.starts_with("reason: ''"))),
        (400, Some(true))
    );
    let discarded = tell(&world.handle, &format!("/{poison}/discard"), json!({"reason": "nobody's number"})).await;
    assert_eq!(discarded.status, 200, "{}", discarded.body);
    assert_eq!(
        (&discarded.body["status"], &discarded.body["reason"]),
        (&json!("discarded"), &json!("nobody's number"))
    );
    for path in ["replay", "discard"] {
        let again = tell(&world.handle, &format!("/{poison}/{path}"), json!({"reason": "once more"})).await;
        let expected = if path == "replay" { 400 } else { 409 };
        assert_eq!(again.status, expected, "{}", again.body);
    }
    let again = tell(&world.handle, &format!("/{poison}/replay"), json!({})).await;
    assert_eq!(again.status, 409, "{}", again.body);

    // The one behind it is not kept back any more; the discarded event stays out of the row.
    assert_eq!(world.replay(json!({"aggregate_id": "a"})).await, 1);
    world.until(PENDING, 0).await;
    world.until_state("sums", "a", json!({"sum": 15})).await;
    let shown = ask(&world.handle, &format!("/{poison}")).await;
    assert_eq!((shown.status, &shown.body["event_payload"]["payload"]), (200, &json!({"v": "x"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_alone_is_replayed_alone_and_events_that_fail_anew_after_it_are_told() {
    let world = World::start("letters-alone", Bus::Embedded).await;
    world.declare("thing.yaml", THING);
    // Takes texts only where the sum is not 5: then what follows fails.
    let strict = "(has(state.sum) && state.sum == 5 ? int('none') : int(event.payload.v))";
    world.declare("sums.yaml", &sum("(event.payload.v + 0)", "Never"));
    let before = world.until_live("sums", None).await;
    world.post_all(&[thing("a", 1), thing("a", "4"), thing("a", 2), thing("b", "4"), thing("b", "5")]).await;
    world.until(PENDING, 3).await;
    world.declare("sums.yaml", &sum(strict, "Never"));
    world.until_live("sums", Some(&before)).await;

    let one = world.letters_of("b").await[0].dlq_id;
    let answer = tell(&world.handle, &format!("/{one}/replay"), json!({})).await;
    assert_eq!((answer.status, answer.body["replay_requested_at"].is_string()), (202, true), "{}", answer.body);
    world.until_state("sums", "b", json!({"sum": 4})).await;
    let of_b = world.letters_of("b").await;
    assert_eq!((of_b[0].status.as_str(), of_b[1].status.as_str()), ("replayed", "pending"));

    // 1 and 4 make 5: the 2, which is in the row, would fail behind them.
    world.replay(json!({"aggregate_id": "a"})).await;
    world.until_nothing_is_asked_for().await;
    let of_a = &world.letters_of("a").await[0];
    assert_eq!(of_a.status, "pending");
    assert!(of_a.error_message.contains("cannot be folded anew: event "), "{of_a:?}");
    world.until_state("sums", "a", json!({"sum": 3})).await;
    // Behind the 2 it does no harm.
    world.replay(json!({"aggregate_id": "a", "append": true})).await;
    world.until_state("sums", "a", json!({"sum": 7})).await;
    assert_eq!(world.letters_of("a").await[0].reason.as_deref(), Some("applied last, as it was asked for"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_folds_what_letters_hold_and_a_projection_that_is_gone_replays_nothing() {
    let world = World::start("letters-rebuilt", Bus::Embedded).await;
    world.declare("thing.yaml", THING);
    world.declare("sums.yaml", &sum("event.payload.v", "BlueGreen"));
    let before = world.until_live("sums", None).await;
    world.post_all(&[thing("a", "1"), thing("a", "x"), thing("a", 2)]).await;
    world.until(PENDING, 2).await;
    world.declare("sums.yaml", &sum("int(event.payload.v)", "BlueGreen"));
    world.until_live("sums", Some(&before)).await;
    world.until_state("sums", "a", json!({"sum": 3})).await;
    let letters = world.letters_of("a").await;
    assert_eq!((letters[0].status.as_str(), letters[1].status.as_str()), ("replayed", "pending"), "{letters:?}");
    assert_eq!(letters[0].reason.as_deref(), Some("folded when the projection was built anew"));
    assert!(letters[1].retry_count > 3, "it failed in the rebuild too: {letters:?}");

    std::fs::remove_file(world.platform.resources().join("sums.yaml")).expect("our own file");
    world.until_status("sums", "removed").await;
    world.replay(json!({"all": true})).await;
    world.until_nothing_is_asked_for().await;
    let letter = &world.letters_of("a").await[1];
    assert!(letter.status == "pending" && letter.error_message.contains("not declared any more"), "{letter:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_halted_projection_wait_until_it_goes_on() {
    let world = World::start("letters-halted", Bus::Embedded).await;
    let halting =
        |number: &str| sum(number, "Never").replace("  rebuild: Never\n", "  rebuild: Never\n  onError: Halt\n");
    world.declare("thing.yaml", THING);
    world.declare("sums.yaml", &sum("event.payload.v", "Never"));
    world.until_live("sums", None).await;
    world.post_all(&[thing("a", 1), thing("a", "2"), thing("a", 8)]).await;
    world.until(PENDING, 1).await;
    world.declare("sums.yaml", &halting("event.payload.v"));
    let halts = "SELECT count(*) FROM projection_progress WHERE live_spec->>'onError' = 'Halt'";
    world.until(halts, 1).await;
    world.post_all(&[thing("a", "4")]).await;
    world.until_status("sums", "halted").await;

    world.replay(json!({"subject": "sums"})).await;
    // By then the loop has looked more than once.
    world.until("SELECT count(*) FROM dlq WHERE replay_requested_at < now() - interval '2 seconds'", 1).await;
    let letter = &world.letters_of("a").await[0];
    assert_eq!((letter.status.as_str(), letter.requested, letter.retry_count), ("pending", true, 3));

    world.declare("sums.yaml", &halting("int(event.payload.v)"));
    world.until(PENDING, 0).await;
    world.until_state("sums", "a", json!({"sum": 15})).await;
}
