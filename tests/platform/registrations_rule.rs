//! Registrations are written from a seat at the database: who lost it writes no more, and who took it over does.

use controllers::effects::postgres::{Seat, seat_options};
use controllers::plan::Step;
use cornjacket::database;
use crds::registration::{Compiled, Kind, ResourceKey, Topic};
use serde_json::{from_value, json};
use sqlx::postgres::PgConnectOptions;

use crate::controllers_world::{SOON, World};
use crate::harness::eventually;

/// A session at the database that holds the lock of controllers.
const SEATED: &str = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

fn options(world: &World) -> PgConnectOptions {
    seat_options(database::options(&world.url, "test").unwrap())
}

/// Registers a Topic of this name.
fn register(name: &str, generation: i64) -> Step {
    let topic: Topic = from_value(json!({"topicName": name, "partitions": 1, "replicationFactor": 1})).unwrap();
    let key = ResourceKey { namespace: "default".to_owned(), kind: Kind::Topic, name: name.to_owned() };
    Step::Register { key, generation, form: Compiled::Topic(topic).into() }
}

fn remove(name: &str) -> Step {
    let key = ResourceKey { namespace: "default".to_owned(), kind: Kind::Topic, name: name.to_owned() };
    Step::Remove { key }
}

/// Name, generation, state and claim of each registration.
async fn registered(world: &World) -> Vec<(String, i64, String, bool)> {
    let rows = "SELECT name, generation, state, topic_claimed FROM registration ORDER BY name";
    sqlx::query_as(rows).fetch_all(&world.pool).await.unwrap()
}

fn row(name: &str, generation: i64, state: &str) -> (String, i64, String, bool) {
    (name.to_owned(), generation, state.to_owned(), false)
}

#[tokio::test]
async fn who_lost_the_seat_writes_no_registration_and_who_took_it_does() {
    let world = World::new().await;
    let mut seat = Seat::connect(&options(&world), "default").await.unwrap();
    assert!(seat.take().await.unwrap());
    seat.apply(&[register("kept", 1), register("edited", 1)], &[], &[]).await.unwrap();
    let before = [row("edited", 1, "active"), row("kept", 1, "active")];
    assert_eq!(registered(&world).await, before);
    let mut other = Seat::connect(&options(&world), "default").await.unwrap();
    assert!(!other.take().await.unwrap(), "one at a time");

    let pid: i32 = sqlx::query_scalar(SEATED).fetch_one(&world.pool).await.unwrap();
    assert!(
        sqlx::query_scalar::<_, bool>("SELECT pg_terminate_backend($1)")
            .bind(pid)
            .fetch_one(&world.pool)
            .await
            .unwrap()
    );
    eventually(SOON, async || {
        sqlx::query_scalar::<_, i32>(SEATED).fetch_all(&world.pool).await.is_ok_and(|all| all.is_empty())
    })
    .await;

    // Neither before another took over nor after.
    let late = [register("edited", 2), register("new", 1), remove("kept")];
    let written = seat.apply(&late, &[], &[]).await;
    assert!(written.is_err(), "{written:?}");
    assert!(other.take().await.unwrap());
    let written = seat.apply(&late, &[], &[]).await;
    assert!(written.is_err(), "{written:?}");
    assert!(seat.claim_topics(&["kept".to_owned()]).await.is_err());
    assert!(seat.take().await.is_err(), "what it held before is not taken for held");
    assert!(seat.registered().await.is_err());
    assert_eq!(registered(&world).await, before, "nothing is written");

    other.apply(&late, &[], &[]).await.unwrap();
    assert_eq!(
        registered(&world).await,
        [row("edited", 2, "active"), row("kept", 1, "removed"), row("new", 1, "active")]
    );
}
