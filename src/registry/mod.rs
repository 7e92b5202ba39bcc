//! What this process runs, as declared.
//!
//! In: the table `registration`, which the controllers write; NOTIFY wakes, a poll repairs. Out: a [`Catalog`]
//! behind a `watch` channel, compiled and immutable; and, back in the database, a heartbeat per role and an
//! acknowledgement per registration, from which the controllers tell whether a resource is really served.
//!
//! Guarantees: while the database is away, the last catalog stays in use. A registration that cannot be loaded keeps
//! what was loaded for it before, and the reason is acknowledged. On a replica nothing is written.

mod acks;
mod catalog;
mod load;
mod session;
mod store;
#[cfg(test)]
pub mod testing;

use std::sync::Arc;

use crds::registration::Kind;
pub use crds::role::Role;
use sqlx::PgPool;
use tokio::sync::watch;
use uuid::Uuid;

pub use acks::Acks;
pub use catalog::{
    Catalog, EffectiveSchema, LoadedAction, LoadedEventType, LoadedProjection, LoadedSeries, UnknownVersion,
};
pub use session::{host, host_name};

use crate::lifecycle::{Lifecycle, Stage};
use crate::operate::Gate;

/// Which registrations to load, and as whom.
#[derive(Clone)]
pub struct Settings {
    /// A database that the shared migrations were applied to.
    pub pool: PgPool,
    /// The platform instance; `default` without a cluster.
    pub namespace: String,
    /// The roles that this process has on this database.
    pub roles: Vec<Role>,
    /// Identifies this process (UUID v7).
    pub instance: Uuid,
}

impl Settings {
    fn concerns(&self, kind: Kind) -> bool {
        kind.acknowledged_by().iter().any(|role| self.roles.contains(role))
    }
}

/// A running registry.
#[derive(Clone)]
pub struct Registry {
    /// The newest snapshot; empty until the first load.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Where the handler reports the projections that it runs, and who delivers webhooks its actions.
    pub acks: Acks,
}

/// Why registrations could not be read or acknowledged. All of it is transient: the session is begun anew.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot read what is registered")]
    Read(#[source] sqlx::Error),
    #[error("cannot listen for changed registrations")]
    Listen(#[source] sqlx::Error),
    #[error("cannot renew the heartbeat")]
    Heartbeat(#[source] sqlx::Error),
    #[error("cannot acknowledge registrations")]
    Acknowledge(#[source] sqlx::Error),
    #[error("the database does not answer within {} s", .0.as_secs())]
    Silent(std::time::Duration),
}

/// Starts loading registrations. The gate opens with the first catalog.
pub fn start(settings: Settings, lifecycle: &Lifecycle, gate: Gate) -> Registry {
    let (publish, catalog) = watch::channel(Arc::new(Catalog::default()));
    let acks = Acks::default();
    let task = session::run(settings, publish, acks.clone(), gate, lifecycle.token(Stage::Serve));
    lifecycle.spawn(Stage::Serve, "registry", task);
    Registry { catalog, acks }
}
