//! Acknowledgements are heard by a notification; a poll finds those of which none came.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::{TOPIC, World};
use crate::harness::{Bus, eventually};

/// The controllers look every 3 s at what they were not told of; a session that lost its seat would take longer.
const POLLED: Duration = Duration::from_secs(10);
const CHANNEL: &str = "cornjacket_ack";

/// A relay, alive for as long as the test.
const RELAY: &str = "INSERT INTO instance (instance, role, host, version, heartbeat_at)
                     VALUES (gen_random_uuid(), 'relay', 'nowhere', '0', now() + interval '1 hour')";

/// It runs everything that is registered.
const ACKNOWLEDGED: &str = "INSERT INTO registration_ack (instance, role, namespace, kind, name, hash)
    SELECT i.instance, i.role, r.namespace, r.kind, r.name, r.hash FROM instance i, registration r";

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_of_which_nobody_is_told_is_found_by_a_look() {
    let world = World::new("unheard", Bus::Embedded).await;
    let _controllers = world.controllers("").await;
    sqlx::query(RELAY).execute(&world.pool).await.unwrap();
    world.apply(TOPIC);
    world.until_ready_is("topic", "rooms", "False", "AwaitingInstances").await;
    let mut listener = PgListener::connect(&world.platform.database().url).await.unwrap();
    listener.listen(CHANNEL).await.unwrap();

    assert_eq!(sqlx::query(ACKNOWLEDGED).execute(&world.pool).await.unwrap().rows_affected(), 1);
    eventually(POLLED, || async {
        let ready = world.condition("topic", "rooms", "Ready").ok_or("no condition")?;
        if (ready.0.as_str(), ready.1.as_str()) == ("True", "Available") { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
    // A notification of our own is behind all that were sent before it.
    sqlx::query("SELECT pg_notify($1, 'the end')").bind(CHANNEL).execute(&world.pool).await.unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "the end", "nobody was told");
}
