//! The loop of the controllers: one process is active per database, others wait and take over.
//!
//! Survives outages of databases and broker: whatever is transient is begun anew with backoff, and meanwhile the data
//! plane runs what it has.

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use std::collections::BTreeMap;

use crds::cause::Chain;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cycle::{Cycle, CycleError};
use crate::effects::kafka::Kafka;
use crate::effects::listen;
use crate::effects::postgres::{DatabaseError, Identity, Seat, options, seat_options};
use crate::source::directory::Directory;
use crate::topic::status::Bus;
use crate::{backoff, topics};

/// Between two looks where nothing was heard: repairs what notifications missed.
const POLL: Duration = Duration::from_secs(3);
/// Between two tries to take over from an active process.
const STANDBY: Duration = Duration::from_millis(500);
/// Longest wait for one look, databases included.
const LOOK: Duration = Duration::from_secs(30);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// What to reconcile, and where to.
pub struct Config {
    /// Manifests below it are the resources.
    pub directory: PathBuf,
    /// The platform instance; `default` without a cluster.
    pub namespace: String,
    /// The handler's database, where statuses are kept too.
    pub home: PgConnectOptions,
    /// The databases of the other services. One that is named twice counts once.
    pub others: Vec<PgConnectOptions>,
    /// librdkafka settings of the broker; `None` for the embedded bus.
    pub kafka: Option<BTreeMap<String, String>>,
}

/// What the loop is doing, for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    /// Another process is active.
    Standby,
    Active,
    /// Something transient failed.
    Retrying(String),
}

/// A session ended. All of it is transient.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Cycle(#[from] CycleError),
    #[error(transparent)]
    Broker(#[from] crate::effects::kafka::BrokerError),
}

/// Runs until stopped.
pub async fn run(config: Config, state: watch::Sender<State>, stop: CancellationToken) -> Result<(), Infallible> {
    let directory = Directory::new(config.directory.clone());
    let mut failures = 0;
    while let Some(Err(error)) = stop.run_until_cancelled(session(&config, &directory, &state, &mut failures)).await {
        let wait = backoff::delay(failures, rand::random()).min(Duration::from_secs(10));
        failures += 1;
        let error = Chain(&error).to_string();
        warn!(error, retry_in_ms = wait.as_millis(), "controllers: what is registered goes on");
        metrics::counter!("cornjacket_controllers_failures_total").increment(1);
        state.send_replace(State::Retrying(error));
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            break;
        }
    }
    Ok(())
}

async fn session(
    config: &Config,
    directory: &Directory,
    state: &watch::Sender<State>,
    failures: &mut u32,
) -> Result<Infallible, SessionError> {
    let (home, others) = sit_down(config, state).await?;
    *failures = 0;
    state.send_replace(State::Active);
    info!(databases = others.len() + 1, directory = %config.directory.display(), "controllers active");

    let heard = Arc::new(Notify::new());
    let mut helpers = JoinSet::new();
    for database in std::iter::once(&config.home).chain(&config.others) {
        helpers.spawn(listen::acknowledgements(options(database.clone()), heard.clone()));
    }
    let (wanted, wanted_topics) = watch::channel(Vec::new());
    let (publish_bus, mut bus) = watch::channel(Bus::Embedded);
    if let Some(settings) = &config.kafka {
        publish_bus.send_replace(Bus::Unknown);
        helpers.spawn(topics::keep(Kafka::new(settings)?, wanted_topics, publish_bus.clone()));
    }
    let mut cycle = Cycle::new(config.namespace.clone(), home, others, wanted);
    loop {
        let files = directory.files().await;
        let seen_bus = bus.borrow_and_update().clone();
        within(LOOK, cycle.run(files, &seen_bus)).await?;
        tokio::select! {
            () = directory.changed() => {}
            () = heard.notified() => {}
            // The sender lives as long as this session.
            _ = bus.changed() => {}
            () = sleep(POLL) => {}
        }
    }
}

async fn within<T, E: Into<SessionError>>(
    limit: Duration,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, SessionError> {
    match timeout(limit, step).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(DatabaseError::Silent(limit).into()),
    }
}

/// Takes the lock of every database, in one order for all processes, and waits where another has it.
async fn sit_down(config: &Config, state: &watch::Sender<State>) -> Result<(Seat, Vec<Seat>), SessionError> {
    let mut seats: BTreeMap<Identity, Seat> = BTreeMap::new();
    let mut home = None;
    for (index, database) in std::iter::once(&config.home).chain(&config.others).enumerate() {
        let database = seat_options(database.clone());
        let mut seat = within(CONNECT, Seat::connect(&database, &config.namespace)).await?;
        let identity = within(CONNECT, seat.identity()).await?;
        if index == 0 {
            home = Some(identity.clone());
        }
        // A replica gets its rows from the primary.
        if index == 0 || !identity.replica {
            seats.entry(identity).or_insert(seat);
        }
    }
    while !take_all(&mut seats).await? {
        stand_by(state);
        sleep(STANDBY).await;
    }
    let home = home.and_then(|identity| seats.remove(&identity)).ok_or(DatabaseError::NoHome)?;
    Ok((home, seats.into_values().collect()))
}

/// One after the other: who waits for a database holds those before it, and all processes wait in one order.
async fn take_all(seats: &mut BTreeMap<Identity, Seat>) -> Result<bool, SessionError> {
    let mut all = true;
    for seat in seats.values_mut() {
        if all {
            all = within(CONNECT, seat.take()).await?;
        } else {
            // Its session must not seem frozen meanwhile.
            within(CONNECT, seat.identity()).await?;
        }
    }
    Ok(all)
}

fn stand_by(state: &watch::Sender<State>) {
    state.send_if_modified(|before| {
        let changed = *before != State::Standby;
        if changed {
            info!("another process is active: standing by");
        }
        *before = State::Standby;
        changed
    });
}
