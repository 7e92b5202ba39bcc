//! Letters of actions: an event that could not be evaluated becomes a delivery.

use serde_json::json;

use super::{THING, tell, thing};
use crate::harness::{Bus, eventually};
use crate::projections::{SOON, World};

fn action(when: &str) -> String {
    format!(
        "apiVersion: cornjacket.io/v1alpha1\nkind: WebhookAction\nmetadata: {{name: told}}\nspec:\n  \
         source: {{eventTypes: [thing.seen]}}\n  when: \"{when}\"\n  url: https://receiver.invalid/hook\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_an_action_could_not_evaluate_is_delivered_once_the_action_is_mended() {
    let world = World::start("letters-actions", Bus::Embedded).await;
    let mut launch = world.platform.handle("-act").env("ACTIONS_DATABASE_URL", &world.platform.database().url);
    "act".clone_into(&mut launch.arguments[0]);
    let act = launch.ready().await;
    world.declare("thing.yaml", THING);
    world.declare("told.yaml", &action("event.payload.v + 0 > 3"));
    let hash = || async {
        let question =
            "SELECT hash::text FROM registration_ack WHERE role = 'act' AND kind = 'WebhookAction' AND error IS NULL";
        let hash: Option<String> = sqlx::query_scalar(question).fetch_optional(&world.pool).await.expect("an answer");
        hash
    };
    let before = eventually(SOON, || async { hash().await.ok_or("it is not loaded yet") }).await;
    world.post_all(&[thing("a", 1), thing("a", "7"), thing("a", "2"), thing("a", "x")]).await;
    world.until("SELECT count(*) FROM dlq WHERE consumer = 'actions' AND status = 'pending'", 3).await;
    world.declare("told.yaml", &action("int(event.payload.v) > 3"));
    eventually(SOON, || async { hash().await.is_some_and(|now| now != before) }).await;

    let answer = tell(&act, "/replay", json!({"consumer": "actions"})).await;
    assert_eq!((answer.status, &answer.body["requested"]), (202, &json!(3)), "{}", answer.body);
    world.until("SELECT count(*) FROM dlq WHERE consumer = 'actions' AND status = 'replayed'", 2).await;
    world.until_nothing_is_asked_for().await;
    let letters = world.letters_of("a").await;
    let said: Vec<(&str, Option<&str>)> = letters.iter().map(|l| (l.status.as_str(), l.reason.as_deref())).collect();
    let expected = [
        ("replayed", Some("it is to be delivered")),
        ("replayed", Some("the action does not take it")),
        ("pending", None),
    ];
    assert_eq!(said, expected);
    assert!(letters[2].error_message.starts_with("action told: "), "{letters:?}");
    assert_eq!(world.count("SELECT count(*) FROM delivery WHERE action = 'told' AND status <> 'suppressed'").await, 1);
}
