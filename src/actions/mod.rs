//! What happens to events outside the platform: deliveries of WebhookActions.
//!
//! In: events of the event store, by cursors of this room's own, on either bus. Out: requests to endpoints, signed, each
//! delivery with an id that stays the same over all its attempts. A delivery is durable before its event counts as read;
//! every attempt is kept; a process that dies has its deliveries attempted again by others. So each is made at least once,
//! and more than once only where nobody knows whether it arrived.
//!
//! ```text
//! intake: event ▶ program (when, body, key) ▶ duplicates ▶ delivery rows
//! dispatch: due rows ▶ lanes, rate limit, breaker ▶ attempt ▶ verdict ▶ settle
//! ```
//!
//! An endpoint has a lane of its own: one that hangs holds up nobody else.

mod attempt;
pub mod client;
mod dispatch;
mod endpoint;
pub mod guard;
pub mod http;
mod intake;
mod lanes;
mod load;
mod plan;
mod program;
mod replay;
mod settle;
pub mod signature;
pub mod state;
mod store;
mod upkeep;
mod verdict;
mod wake;

use std::sync::Arc;
use std::time::Duration;

use crds::secret::PlatformKey;
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use self::client::Lookup;
use self::endpoint::Endpoints;
use self::guard::Guard;
use self::state::State;
use crate::bus::Reader;
use crate::bus::embedded::EmbeddedReader;
use crate::bus::retry::Retry;
use crate::bus::wake::{self as news, Wake};
use crate::database;
use crate::dead_letters;
use crate::lifecycle::{Lifecycle, Stage};
use crate::operate::Gate;
use crate::registry::{Acks, Catalog};

pub use self::lanes::Bounds;
pub use self::program::Program;

/// How deliveries are made.
#[derive(Clone)]
pub struct Settings {
    /// Which addresses may be dialled.
    pub guard: Guard,
    pub lookup: Lookup,
    /// Authorities that are trusted beside those of the system.
    pub roots: Vec<reqwest::Certificate>,
    /// Redirects (307 and 308) that are followed.
    pub redirects: u8,
    pub bounds: Bounds,
    /// How long deliveries that ended are kept.
    pub keep: Duration,
}

/// What delivering needs to run.
pub struct Actions {
    /// The database of the deliveries.
    pub pool: PgPool,
    /// The database of the event store, read only but for how far it was read.
    pub ingestion: PgPool,
    pub instance: Uuid,
    pub namespace: String,
    /// Opens values of Secrets.
    pub platform: Option<Arc<PlatformKey>>,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    pub acks: Acks,
    pub state: State,
    /// News of the event store: filled by the relay of this process, if it has one.
    pub event_store: Wake,
    /// How often everything is looked at, whatever was notified.
    pub poll: Duration,
    pub settings: Settings,
    /// Open while actions are loaded.
    pub loaded: Gate,
    /// Open while events become deliveries.
    pub intake: Gate,
    /// Open while deliveries are claimed.
    pub dispatch: Gate,
    /// Open while what came of attempts is kept.
    pub settle: Gate,
}

impl Actions {
    /// Starts the tasks. They stop with [`Stage::Handle`].
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn start(self, lifecycle: &Lifecycle) -> Result<http::Service, reqwest::Error> {
        let stop = || lifecycle.token(Stage::Handle);
        let guard = Arc::new(self.settings.guard);
        let client = client::client(guard.clone(), self.settings.lookup, self.settings.roots)?;
        let sender = attempt::Sender { client, guard, redirects: self.settings.redirects };
        let (publish, endpoints) = watch::channel(Arc::new(Endpoints::default()));
        let made = wake::Made::default();
        let loader = load::Loader {
            pool: self.pool.clone(),
            ingestion: self.ingestion.clone(),
            namespace: self.namespace.clone(),
            platform: self.platform,
            catalog: self.catalog,
            acks: self.acks,
            state: self.state.clone(),
            publish,
            gate: self.loaded,
        };
        lifecycle.spawn(Stage::Handle, "actions.load", loader.run(stop()));

        let (effects, reading) = (database::own(&self.pool, 2), database::own(&self.ingestion, 2));
        let reader = EmbeddedReader::new(intake::CURSORS, effects, reading, self.event_store.clone(), self.poll);
        let intake = intake::Intake {
            reader: Reader::Embedded(reader),
            endpoints: endpoints.clone(),
            state: self.state.clone(),
            made: made.clone(),
            gate: self.intake,
            retry: Retry::default(),
        };
        lifecycle.spawn(Stage::Handle, "actions.intake", intake.run(stop()));

        let replays = replay::Replays::new(endpoints.clone(), self.state.clone(), made.clone());
        let serial = dead_letters::replay::Serial::new(database::own(&self.pool, 1), replays);
        dead_letters::replay::start(lifecycle, Stage::Handle, &self.pool, serial);

        let under_way = self.settings.bounds.in_all;
        let (done, ended) = mpsc::channel(under_way);
        let (settled, freed) = mpsc::channel(under_way);
        let settler = settle::Settler {
            pool: database::own(&self.pool, 1),
            endpoints: endpoints.clone(),
            state: self.state.clone(),
            gate: self.settle,
            done: ended,
            settled,
        };
        lifecycle.spawn(Stage::Handle, "actions.settle", settler.run());
        let dispatcher = dispatch::Dispatcher {
            pool: database::own(&self.pool, 1),
            instance: self.instance,
            endpoints: endpoints.clone(),
            state: self.state.clone(),
            sender,
            made: made.clone(),
            done,
            settled: freed,
            gate: self.dispatch,
            bounds: self.settings.bounds,
        };
        lifecycle.spawn(Stage::Handle, "actions.dispatch", dispatcher.run(stop()));
        let upkeep = upkeep::Upkeep {
            pool: self.pool.clone(),
            ingestion: self.ingestion.clone(),
            endpoints: endpoints.clone(),
            namespace: self.namespace,
            instance: self.instance,
            keep: self.settings.keep,
            alone: matches!(self.state, State::Memory(_)),
        };
        lifecycle.spawn(Stage::Handle, "actions.upkeep", upkeep.run(stop()));
        let (wake, instance, ingestion, token) = (self.event_store, self.instance, self.ingestion, stop());
        lifecycle.spawn(Stage::Handle, "actions.listen", async move {
            news::listen(wake, news::EVENT_STORE, instance, ingestion, token).await;
            Ok::<(), std::convert::Infallible>(())
        });
        Ok(http::Service { pool: self.pool, endpoints, state: self.state, made })
    }
}
