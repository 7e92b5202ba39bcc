//! The relay: takes accepted events from the outbox, in order, to the event store and the bus.
//!
//! In: rows of `outbox`. Out: rows of `event_store` with a gap-free position per shard, and on Kafka the published
//! message. Guarantees: nothing is lost (a row is deleted in the transaction that stores it, or after its
//! publication is confirmed); events of one aggregate keep their order; any number of relays may run, each shard being
//! locked by one at a time; an event that cannot be stored or published goes to the dead letters and holds up nobody.

mod append;
pub mod maintenance;
pub mod partitions;
mod poison;
mod publish;
mod replay;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use uuid::Uuid;

use crate::bus::kafka::KafkaSettings;
use crate::bus::wake::{self, Wake};
use crate::database;
use crate::lifecycle::{Lifecycle, Stage};
use crate::operate::Gate;
use crate::pace::Pace;
use crate::registry::Catalog;

/// What a relay needs to run.
pub struct Relay {
    /// The database that holds `outbox` and `event_store`.
    pub pool: PgPool,
    pub instance: Uuid,
    pub settings: Settings,
    /// News of accepted events: filled by the outbox of this process, if it has one.
    pub outbox: Wake,
    /// News for readers of the event store.
    pub event_store: Wake,
    /// Where topics of event types are looked up.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Kafka, where that is the bus.
    pub kafka: Option<KafkaSettings>,
    /// Open while the database answers and, on Kafka, the broker confirms.
    pub database: Gate,
    pub bus: Gate,
}

/// How a relay works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most events in one transaction. Larger: fewer commits; smaller: shorter ones.
    pub batch: i64,
    /// Tasks that claim shards at the same time.
    pub workers: usize,
    /// How often the whole outbox is looked at, whatever was notified.
    pub poll: Duration,
    /// How long events stay in the event store.
    pub retention: Duration,
    /// Drop a partition even if a registered reader has not read it.
    pub drop_unread: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch: 8000,
            workers: 1,
            poll: Duration::from_secs(5),
            retention: Duration::from_hours(7 * 24),
            drop_unread: false,
        }
    }
}

impl Relay {
    /// Starts the relay's tasks. They stop with [`Stage::Relay`].
    ///
    /// # Errors
    /// The Kafka settings are not accepted by the client.
    pub fn start(self, lifecycle: &Lifecycle) -> Result<(), crate::bus::BusError> {
        let stop = || lifecycle.token(Stage::Relay);
        let publish = Wake::default();
        let publish_again = publish.clone();
        let busy = database::own(&self.pool, u32::try_from(self.settings.workers).unwrap_or(1) + 1);
        for number in 0..self.settings.workers {
            let appender = append::Appender {
                pool: busy.clone(),
                keep_for_publishing: self.kafka.is_some(),
                pace: Pace::new(self.settings.batch),
                poll: self.settings.poll,
                outbox: self.outbox.clone(),
                event_store: self.event_store.clone(),
                publish: publish.clone(),
                database: self.database.clone(),
                sweeps: number == 0,
            };
            lifecycle.spawn(Stage::Relay, "relay.append", appender.run(stop()));
        }
        if let Some(kafka) = &self.kafka {
            let publisher = publish::Publisher::new(&self, kafka, publish)?;
            lifecycle.spawn(Stage::Relay, "relay.publish", publisher.run(stop()));
        } else {
            self.bus.open();
        }
        let maintenance = maintenance::Maintenance {
            pool: self.pool.clone(),
            retention: self.settings.retention,
            drop_unread: self.settings.drop_unread,
        };
        lifecycle.spawn(Stage::Relay, "relay.maintain", maintenance.run(stop()));
        replay::start(lifecycle, &self.pool, self.kafka.is_some(), &self.outbox, &publish_again);
        let (pool, instance) = (self.pool.clone(), self.instance);
        let (tells, listens, stop_tell, stop_listen) = (self.event_store.clone(), self.outbox.clone(), stop(), stop());
        let telling_pool = pool.clone();
        lifecycle.spawn(Stage::Relay, "relay.tell", async move {
            wake::tell(tells, wake::EVENT_STORE, instance, telling_pool, stop_tell).await;
            Ok::<(), std::convert::Infallible>(())
        });
        lifecycle.spawn(Stage::Relay, "relay.listen", async move {
            wake::listen(listens, wake::OUTBOX, instance, pool, stop_listen).await;
            Ok::<(), std::convert::Infallible>(())
        });
        Ok(())
    }
}
