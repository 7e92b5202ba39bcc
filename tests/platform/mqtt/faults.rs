//! What the broker has taken is never lost: whoever stops, dies or is away.

use std::time::Duration;

use sqlx::PgPool;

use super::device::Device;
use super::{World, until_subscribed};
use crate::harness::{Bus, Mosquitto, OwnPostgres, Platform, eventually, http};

const DEVICES: usize = 6;
const CAUGHT_UP: Duration = Duration::from_mins(1);

/// Devices that publish 1, 2, 3, … each, the next as soon as the broker has the last.
struct Fleet {
    devices: Vec<Device>,
    published: i64,
}

impl Fleet {
    fn new(port: u16) -> Self {
        Self { devices: (0..DEVICES).map(|n| Device::new(port, &format!("fleet-{n}"))).collect(), published: 0 }
    }

    /// One more message of each.
    async fn round(&mut self) {
        self.published += 1;
        let payload = format!("{{\"value\": {}}}", self.published);
        for (number, device) in self.devices.iter_mut().enumerate() {
            device.send(&format!("devices/{number}/reading"), &payload, &[]).await;
        }
        for device in &mut self.devices {
            device.until_taken().await;
        }
    }

    async fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.round().await;
        }
    }
}

/// The values of each device, in store order.
async fn values(pool: &PgPool) -> Vec<Vec<i64>> {
    let question = "SELECT aggregate_id, (payload->>'value')::bigint FROM event_store ORDER BY shard, position";
    let rows: Vec<(String, i64)> = sqlx::query_as(question).fetch_all(pool).await.unwrap();
    let of = |number: usize| {
        let name = format!("device-{number}");
        rows.iter().filter(|(aggregate, _)| *aggregate == name).map(|(_, value)| *value).collect()
    };
    (0..DEVICES).map(of).collect()
}

/// Waits until every device's values are there up to the last.
async fn until_all_are_stored(pool: &PgPool, last: i64) -> Vec<Vec<i64>> {
    eventually(CAUGHT_UP, || async {
        let values = values(pool).await;
        let behind = values.iter().filter(|of| of.last() != Some(&last)).count();
        if behind == 0 { Ok(values) } else { Err(format!("{behind} devices are behind")) }
    })
    .await
}

fn once_each(last: i64) -> Vec<Vec<i64>> {
    vec![(1..=last).collect(); DEVICES]
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_is_killed_ten_times_and_every_message_is_stored_once_in_order() {
    let world = World::new("killed").await;
    let mut ingest = world.ingest().await;
    let mut fleet = Fleet::new(world.broker.port());
    for _ in 0..10 {
        fleet.rounds(10).await;
        ingest.kill9();
        fleet.rounds(2).await;
        ingest.start_again();
        until_subscribed(&ingest, 1.0).await;
    }
    fleet.round().await;
    let values = until_all_are_stored(&world.pool, fleet.published).await;
    assert_eq!(values, once_each(fleet.published), "what the broker sends again is stored once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_restarted_mid_stream_and_nothing_is_lost() {
    let mut world = World::new("broker-restarted").await;
    // This broker forgets shared subscriptions when it stops, and drops what comes before they are asked for again.
    let ingest = world.launch("").env("MQTT_SHARE", "").ready().await;
    until_subscribed(&ingest, 1.0).await;
    let mut fleet = Fleet::new(world.broker.port());
    for restarts in 1..=3 {
        fleet.rounds(20).await;
        world.broker.stop();
        let connected = || ingest.metric("cornjacket_mqtt_connected");
        eventually(CAUGHT_UP, || async { connected().await == Some(0.0) }).await;
        let ready = http::get(&http::client(), &ingest.url("/readyz")).await.unwrap();
        assert_eq!(ready.status, 200, "HTTP needs no broker");
        world.broker.start();
        fleet.rounds(5).await;
        let connects = || ingest.metric("cornjacket_mqtt_connects_total");
        eventually(CAUGHT_UP, || async { connects().await > Some(f64::from(restarts)) }).await;
    }
    let stored = until_all_are_stored(&world.pool, fleet.published).await;
    for (number, mut values) in stored.into_iter().enumerate() {
        // A device that had no answer publishes again, which is another message.
        values.dedup();
        assert_eq!(values, (1..=fleet.published).collect::<Vec<_>>(), "device {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_messages_wait_and_are_stored_once_in_order_afterwards() {
    let mut postgres = tokio::task::spawn_blocking(|| OwnPostgres::start_new("mqtt-away")).await.unwrap();
    let world = World::on(
        Platform::new("mqtt-away", postgres.fresh_database().await, Bus::Embedded),
        Mosquitto::start_new("away"),
    )
    .await;
    let _ingest = world.ingest().await;
    let mut fleet = Fleet::new(world.broker.port());
    fleet.rounds(5).await;
    until_all_are_stored(&world.pool, fleet.published).await;
    for _ in 0..2 {
        fleet.rounds(3).await;
        postgres.crash();
        fleet.rounds(20).await;
        postgres.start();
        fleet.rounds(3).await;
        until_all_are_stored(&world.pool, fleet.published).await;
    }
    assert_eq!(values(&world.pool).await, once_each(fleet.published));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_ingest_is_stopped_in_order_waits_at_the_broker() {
    let world = World::new("stopped").await;
    let mut ingest = world.ingest().await;
    let mut fleet = Fleet::new(world.broker.port());
    fleet.rounds(5).await;
    assert!(ingest.terminate().success());
    fleet.rounds(5).await;
    ingest.start_again();
    let values = until_all_are_stored(&world.pool, fleet.published).await;
    assert_eq!(values, once_each(fleet.published));
}
