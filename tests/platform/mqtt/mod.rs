//! Events by MQTT, on a real broker.

mod device;
mod faults;
mod many;
mod messages;
mod secured;
mod up;

use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;

use crate::harness::{Bus, Launch, Mosquitto, Platform, Process, by_mqtt, eventually, fresh_database};
use device::Device;

pub const SOON: Duration = Duration::from_secs(30);

/// A broker, and a platform that takes `devices/+/reading` from it as `sensor.reading` of the device.
pub struct World {
    pub broker: Mosquitto,
    pub platform: Platform,
    pub pool: PgPool,
    _controllers: Process,
    pub relay: Process,
}

impl World {
    pub async fn new(name: &str) -> Self {
        Self::at(name, Mosquitto::start_new(name)).await
    }

    pub async fn at(name: &str, broker: Mosquitto) -> Self {
        let platform = Platform::new(&format!("mqtt-{name}"), fresh_database().await, Bus::Embedded);
        Self::on(platform, broker).await
    }

    pub async fn on(platform: Platform, broker: Mosquitto) -> Self {
        by_mqtt(platform.resources());
        let controllers = platform.controllers().ready().await;
        let relay = platform.relay("").ready().await;
        let pool = platform.database().pool().await;
        Self { broker, platform, pool, _controllers: controllers, relay }
    }

    /// An ingest at the broker; `instance` tells several apart.
    pub fn launch(&self, instance: &str) -> Launch {
        let mut launch = self.platform.ingest().env("MQTT_URL", self.broker.url());
        launch.name = format!("{}{instance}", launch.name);
        launch.env("MQTT_CLIENT_ID", format!("ingest{instance}"))
    }

    /// Starts one, and waits until its subscriptions are granted.
    pub async fn ingest(&self) -> Process {
        let ingest = self.launch("").ready().await;
        until_subscribed(&ingest, 1.0).await;
        ingest
    }

    pub fn device(&self, name: &str) -> Device {
        Device::new(self.broker.port(), name)
    }

    /// Waits until so many events of a type are in the event store.
    pub async fn until_stored(&self, event_type: &str, count: i64) {
        eventually(SOON, || async {
            let question = "SELECT count(*) FROM event_store WHERE event_type = $1";
            let now: i64 = sqlx::query_scalar(question).bind(event_type).fetch_one(&self.pool).await.unwrap();
            if now >= count { Ok(()) } else { Err(format!("{now} of {count}")) }
        })
        .await;
    }

    /// The events of an aggregate, in store order: type, payload and metadata.
    pub async fn events(&self, aggregate_id: &str) -> Vec<(String, Value, Value)> {
        let question =
            "SELECT event_type, payload, metadata FROM event_store WHERE aggregate_id = $1 ORDER BY position";
        sqlx::query_as(question).bind(aggregate_id).fetch_all(&self.pool).await.unwrap()
    }

    /// Waits until there are so many dead letters; what was kept, and why.
    pub async fn letters(&self, count: usize) -> Vec<(Value, String)> {
        eventually(SOON, || async {
            let question =
                "SELECT event_payload, error_message FROM dlq WHERE consumer = 'mqtt-ingress' ORDER BY dlq_id";
            let letters: Vec<(Value, String)> = sqlx::query_as(question).fetch_all(&self.pool).await.unwrap();
            if letters.len() >= count { Ok(letters) } else { Err(format!("{} letters", letters.len())) }
        })
        .await
    }
}

/// Waits until so many subscriptions are granted.
pub async fn until_subscribed(ingest: &Process, count: f64) {
    eventually(SOON, || async {
        let granted = ingest.metric("cornjacket_mqtt_subscriptions{state=\"granted\"}").await;
        if granted == Some(count) { Ok(()) } else { Err(format!("{granted:?}")) }
    })
    .await;
}
