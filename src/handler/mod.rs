//! The event handler: folds events of the bus into projections, exactly once.
//!
//! In: claims of the consumer group `event-handler`. Out: rows of `projections`. A claim's transaction moves the
//! group's progress and carries the effects, so both are kept or both undone. An event that cannot be folded is tried
//! again at once, after 1 s and after 2 s, then goes to the dead letters, and the stream goes on; an outage of the
//! database blocks, and nothing is lost.
//!
//! A projection that is new, changed, halted or behind a gap leaves the group's batches: [`catch_up`] reads the event
//! store for it and hands it back in one transaction. [`supervise`] decides who is where.

mod applied;
mod batch;
mod catch_up;
mod expire;
mod history;
mod letters;
mod notify;
mod plan;
mod replay;
mod route;
pub mod store;
mod supervise;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use uuid::Uuid;

use crate::bus::embedded::{self, EmbeddedReader};
use crate::bus::kafka::{KafkaReader, KafkaSettings};
use crate::bus::wake::{self, Wake};
use crate::bus::{BusError, EVENT_HANDLER, Reader};
use crate::database;
use crate::dead_letters;
use crate::lifecycle::{Lifecycle, Stage};
use crate::operate::Gate;
use crate::registry::{Acks, Catalog};

pub use notify::CHANNEL as PROJECTION_CHANNEL;

/// Which bus the group reads.
#[derive(Clone)]
pub enum BusChoice {
    Embedded,
    Kafka(KafkaSettings),
}

impl BusChoice {
    /// As stored in the table `consumer_group`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kafka(_) => "kafka",
        }
    }
}

/// What a handler needs to run.
pub struct Handler {
    /// The database of the projections.
    pub pool: PgPool,
    /// The database of the event store, read only.
    pub ingestion: PgPool,
    pub instance: Uuid,
    pub bus: BusChoice,
    /// How often everything is looked at, whatever was notified.
    pub poll: Duration,
    /// News of the event store: filled by the relay of this process, if it has one.
    pub event_store: Wake,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub acks: Acks,
    /// Open while the group's progress and the projections are reconciled.
    pub gate: Gate,
    /// Open while batches get through.
    pub batches: Gate,
    /// Open while the bus answers.
    pub bus_gate: Gate,
}

impl Handler {
    /// Starts the handler's tasks. They stop with [`Stage::Handle`].
    ///
    /// # Errors
    /// The Kafka settings are not accepted by the client.
    pub fn start(self, lifecycle: &Lifecycle) -> Result<(), BusError> {
        let stop = || lifecycle.token(Stage::Handle);
        let changed = notify::Changed::default();
        let catching_up = Wake::default();
        let (busy, reading) = (database::own(&self.pool, 2), database::own(&self.ingestion, 2));
        let reader = match &self.bus {
            BusChoice::Embedded => Reader::Embedded(EmbeddedReader::new(
                embedded::store::EVENT_HANDLER,
                busy.clone(),
                reading,
                self.event_store.clone(),
                self.poll,
            )),
            BusChoice::Kafka(settings) => Reader::Kafka(KafkaReader::start(settings, EVENT_HANDLER, busy.clone())?),
        };
        let batches = batch::Batches::new(busy, reader, self.catalog.clone(), changed.clone(), self.batches);
        let supervisor = supervise::Supervisor {
            pool: self.pool.clone(),
            ingestion: self.ingestion.clone(),
            bus: self.bus.name(),
            catalog: self.catalog.clone(),
            acks: self.acks.clone(),
            gate: self.gate.clone(),
            catching_up: catching_up.clone(),
        };
        let catch_up = catch_up::CatchUp::new(
            self.pool.clone(),
            self.ingestion.clone(),
            self.bus.name(),
            self.catalog.clone(),
            catching_up,
            changed.clone(),
        );
        lifecycle.spawn(Stage::Handle, "handler.batches", batches.run(stop()));
        lifecycle.spawn(Stage::Handle, "handler.supervise", supervisor.run(stop()));
        let applied = applied::Applied::new(
            self.pool.clone(),
            self.ingestion.clone(),
            &self.bus,
            self.catalog.clone(),
            self.bus_gate,
        )?;
        lifecycle.spawn(Stage::Handle, "handler.applied", applied.run(stop()));
        let expiry = expire::Expiry { pool: self.pool.clone(), catalog: self.catalog.clone() };
        lifecycle.spawn(Stage::Handle, "handler.expire", expiry.run(stop()));
        lifecycle.spawn(Stage::Handle, "handler.catch_up", catch_up.run(stop()));
        let kafka = matches!(self.bus, BusChoice::Kafka(_));
        let replays = replay::Replays::new(
            database::own(&self.pool, 2),
            database::own(&self.ingestion, 2),
            kafka,
            changed.clone(),
        );
        dead_letters::replay::start(lifecycle, Stage::Handle, &self.pool, replays);
        lifecycle.spawn(Stage::Handle, "handler.notify", changed.tell(self.pool.clone(), stop()));
        let (wake, instance, pool, token) = (self.event_store, self.instance, self.ingestion, stop());
        lifecycle.spawn(Stage::Handle, "handler.listen", async move {
            wake::listen(wake, wake::EVENT_STORE, instance, pool, token).await;
            Ok::<(), std::convert::Infallible>(())
        });
        Ok(())
    }
}
