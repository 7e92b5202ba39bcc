//! The databases are away: what is applied meanwhile is told so, what ran is not taken back, and afterwards all is made true.

use super::deletion::ACTION;
use super::{PROJECTION, TOPIC, World, event_type};
use crate::harness::{Bus, Launch, OwnPostgres};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_while_the_database_is_away_is_told_so_and_follows() {
    let mut postgres = tokio::task::spawn_blocking(|| OwnPostgres::start_new("cluster-database")).await.unwrap();
    let world = World::on(postgres.fresh_database().await, "database-away", Bus::Embedded).await;
    let controllers = world.controllers("").await;
    let (_registry, _lifecycle) = world.data_plane();
    let _handler = world.platform.handle("").ready().await;
    world.apply(&format!("{TOPIC}{}{PROJECTION}", event_type("room.left", "{}")));
    world.wait_for_all();

    tokio::task::block_in_place(|| postgres.crash());
    world.apply(&event_type("room.entered", "{}"));
    let said = world.until_ready_is("eventtype", "room.entered", "False", "DatabaseUnreachable").await;
    assert!(said.contains("cannot connect to the database"), "{said}");
    world.until_ready_is("projection", "room-state", "False", "DatabaseUnreachable").await;
    let condition = world.condition("projection", "room-state", "DatabaseReachable");
    assert_eq!(condition.map(|(status, ..)| status).as_deref(), Some("False"));
    world.until_ready_is("eventtype", "room.left", "True", "Available").await;
    let told = world.kubectl(&["get", "events.events.k8s.io"]);
    assert!(told.contains("DatabaseUnreachable"), "{told}");

    tokio::task::block_in_place(|| postgres.start());
    world.wait_for_all();
    let active = "SELECT count(*) FROM registration WHERE state = 'active' AND kind = 'EventType'";
    assert_eq!(sqlx::query_scalar::<_, i64>(active).fetch_one(&world.pool).await.unwrap(), 2);
    assert!(!controllers.log().contains("\"ERROR\""), "an outage is no error of the controllers");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_the_deliveries_is_named_where_it_is_the_one_that_is_away() {
    let mut postgres =
        tokio::task::spawn_blocking(|| OwnPostgres::start_new("cluster-actions-database")).await.unwrap();
    let deliveries = postgres.fresh_database().await;
    let world = World::new("actions-database-away", Bus::Embedded).await;
    let on_it = |launch: Launch| launch.env("ACTIONS_DATABASE_URL", &deliveries.url);
    let controllers = on_it(world.platform.controllers_of(&world.kubeconfig(), "")).ready().await;
    let _act = on_it(world.platform.act("")).ready().await;
    let (_registry, _lifecycle) = world.data_plane();
    let _handler = world.platform.handle("").ready().await;
    world.apply(&format!("{TOPIC}{}{ACTION}", event_type("room.left", "{}")));
    world.until_ready_is("webhookaction", "tell", "True", "Available").await;

    tokio::task::block_in_place(|| postgres.crash());
    world.apply(&event_type("room.entered", "{}"));
    let said = world.until_ready_is("eventtype", "room.entered", "False", "DatabaseUnreachable").await;
    let name = deliveries.url.rsplit('/').next().and_then(|rest| rest.split('?').next()).unwrap();
    assert!(said.contains(&format!("cannot connect to the database {name} at ")), "{said}");
    world.until_ready_is("webhookaction", "tell", "True", "Available").await;

    tokio::task::block_in_place(|| postgres.start());
    world.until_ready_is("eventtype", "room.entered", "True", "Available").await;
    assert!(!controllers.log().contains("\"ERROR\""), "an outage is no error of the controllers");
}
