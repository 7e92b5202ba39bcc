//! A change that loses data waits in the cluster until somebody says, by the command that the status gives, that it may go on.

use super::{PROJECTION, SOON, TOPIC, World, event_type};
use crate::harness::{Bus, eventually};

/// As if an event had been folded.
const ROW: &str = "INSERT INTO projections (projection_id, projection_type, aggregate_id, state, last_event_id,
                          last_event_timestamp, shard, position)
                   VALUES (gen_random_uuid(), 'room_state', 'a', '{}', gen_random_uuid(), now(), 0, 1)";

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_approves_the_plan_that_the_status_shows() {
    let world = World::new("approval", Bus::Embedded).await;
    let _controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    let _handler = world.platform.handle("").ready().await;
    world.apply(&format!("{TOPIC}{}{PROJECTION}", event_type("room.left", "{}")));
    world.until_ready_is("projection", "room-state", "True", "Available").await;
    sqlx::query(ROW).execute(&world.pool).await.unwrap();

    let changed = PROJECTION.replace("latest: {}", "latest: {}, filter: 'true', rebuild: InPlace");
    world.apply(&changed);
    let message = world.until_ready_is("projection", "room-state", "False", "ApprovalRequired").await;
    assert!(message.starts_with("generation 1 is still served; generation 2 loses data"), "{message}");
    let hash = world.get("projection", "room-state").unwrap()["status"]["planHash"].as_str().unwrap().to_owned();
    // The command as it is printed.
    let (_, command) = message.split_once("kubectl ").expect("a command");
    let (command, _) = command.split_once(';').expect("its end");
    assert!(command.contains(&hash) && command.contains(&world.namespace), "{command}");
    world.cluster.must(&command.split(' ').collect::<Vec<_>>());

    world.until_ready_is("projection", "room-state", "True", "Available").await;
    eventually(SOON, || async {
        let is = world.condition("projection", "room-state", "ApprovalRequired").ok_or("no condition")?;
        if (is.0.as_str(), is.1.as_str()) == ("False", "NoApprovalNeeded") { Ok(()) } else { Err(format!("{is:?}")) }
    })
    .await;
    let object = world.get("projection", "room-state").unwrap();
    assert!(object["status"]["planHash"].is_null(), "{}", object["status"]);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM projections").fetch_one(&world.pool).await.unwrap();
    assert_eq!(rows, 0, "built anew of no events");
}
