//! Time series: events as rows of typed tables, exactly once.
//!
//! In: the event store, read by cursors of its own on either bus, and the definitions of what is registered. Out: rows of
//! the tables that the controllers made in the schema `timeseries` of the time-series database. A batch's transaction moves
//! the cursors and carries the rows, so both are kept or both undone.
//!
//! Each series has cursors and a task of its own ([`writer`]): one that lags, fails or is halted holds up none of the others.
//! Several instances share the shards of a series by the locks of its cursors. [`supervise`] starts and ends the tasks and
//! says how far they are; an event that makes no row becomes a dead letter, which [`replay`] works through; [`upkeep`] makes partitions ahead, and drops those past their retention.

mod batch;
mod layout;
mod partitions;
mod program;
mod replay;
mod store;
mod supervise;
#[cfg(test)]
mod testing;
mod upkeep;
mod value;
mod writer;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use uuid::Uuid;

pub use program::Program;

use crate::bus::wake::{self, Wake};
use crate::lifecycle::{Lifecycle, Stage};
use crate::operate::Gate;
use crate::registry::{Acks, Catalog};
use crate::{database, dead_letters};

pub use crate::dead_letters::TSDB_WRITER;

/// The consumer group that reads for a table.
fn group(table: &str) -> String {
    format!("{TSDB_WRITER}:{table}")
}

/// The name under which a series keeps partitions of the event store from being dropped.
fn reader_name(table: &str) -> String {
    format!("timeseries:{table}")
}

/// What the writer needs to run.
pub struct TimeSeries {
    /// The time-series database.
    pub pool: PgPool,
    /// The database of the event store.
    pub ingestion: PgPool,
    pub instance: Uuid,
    /// News of the event store: filled by the relay of this process, if it has one.
    pub event_store: Wake,
    /// How often every shard is looked at, whatever was notified.
    pub poll: Duration,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub acks: Acks,
    /// Open while the series are looked after.
    pub gate: Gate,
}

impl TimeSeries {
    /// Starts the tasks. They stop with [`Stage::Handle`].
    pub fn start(self, lifecycle: &Lifecycle) {
        let token = || lifecycle.token(Stage::Handle);
        let upkeep = upkeep::Upkeep { pool: self.pool.clone(), catalog: self.catalog.clone() };
        lifecycle.spawn(Stage::Handle, "series.upkeep", upkeep.run(token()));
        let replays = replay::Replays { pool: self.pool.clone(), catalog: self.catalog.clone() };
        let serial = dead_letters::replay::Serial::new(database::own(&self.pool, 1), replays);
        dead_letters::replay::start(lifecycle, Stage::Handle, &self.pool, serial);
        let (news, instance, ingestion, stop) =
            (self.event_store.clone(), self.instance, self.ingestion.clone(), token());
        lifecycle.spawn(Stage::Handle, "series.listen", async move {
            wake::listen(news, wake::EVENT_STORE, instance, ingestion, stop).await;
            Ok::<(), Infallible>(())
        });
        let supervisor = supervise::Supervisor::new(self);
        lifecycle.spawn(Stage::Handle, "series.supervise", supervisor.run(token()));
    }
}
