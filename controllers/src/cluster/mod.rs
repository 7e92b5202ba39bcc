//! The controllers in a cluster: the objects of one namespace are the resources, and their status is kept with them.
//!
//! ```text
//! watches ──▶ the whole set ──▶ look (resolve, plan, apply) ──▶ reports ──▶ one controller a kind: status, events, finalizers
//! ```
//!
//! Of several processes the holder of a Lease is active. What it writes is fenced besides: registrations by the lock that
//! its session at each database holds, statuses by the resourceVersion that they were computed from.

pub mod decide;
mod engine;
mod farewell;
pub mod kinds;
mod lease;
mod reconcile;
pub mod scale;
mod secrets;
mod watch;

use std::collections::HashMap;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crds::cause::Chain;
use crds::registration::Kind;
use crds::{EventType, Projection, Topic, WebhookAction};
use kube::{Client, Config};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::engine::{Engine, Touch, answer};
use self::lease::{GivenBack, Lease};
use self::reconcile::{Reports, Shared, lock, tell};
use self::scale::HandlerDeployment;
use self::watch::Watch;
use crate::effects::kubernetes::{ClusterError, Scaler, Turns, Writer, connect};
use crate::effects::postgres::DatabaseError;
use crate::run::{LOOK, POLL, Sessions, State, again_and_again};
use crate::session::{Platform, Session, SessionError, stand_by};
use crate::source::cluster::Stores;

/// The kinds that are watched.
const KINDS: u32 = 4;
/// Deletions that wait for their turn.
const CLEAN_UPS: usize = 16;
/// Transitions that people are still to be told about; who has news of more waits.
const TOLD: usize = 1024;
/// Longest wait for the lease to be given back.
const GIVE_BACK: Duration = Duration::from_secs(3);
/// A database that is away for no longer is restarted, and no news.
const RESTART: Duration = Duration::from_secs(5);
/// Between two looks, so that many changes at once are one.
const TOGETHER: Duration = Duration::from_millis(50);

/// How to reach the cluster, and who asks.
#[derive(Clone)]
pub struct Settings {
    /// Reaches the API server.
    pub client: Client,
    /// Names this process in the Lease and in events, for example its pod.
    pub identity: String,
    /// Where the Lease is, for example the namespace of the pod; `None`: in the namespace that is watched.
    pub lease_namespace: Option<String>,
    /// Between two readings of the Secrets that actions refer to.
    pub secrets: Duration,
    /// How long a stop may take.
    pub stop: Duration,
    /// Whose turn it is to write to the API server.
    pub turns: Arc<Turns>,
    /// The Deployment that gets as many pods as projections ask for; `None`: somebody else sees to that.
    pub handler: Option<HandlerDeployment>,
}

/// Default of the writes to the API server a second.
pub const WRITES_PER_SECOND: NonZeroU32 = NonZeroU32::new(50).expect("not zero");

impl Settings {
    /// The cluster that this pod is in, else the one that the kubeconfig names.
    ///
    /// # Errors
    /// There is none, or its settings cannot be read. The API server need not answer.
    pub async fn infer(
        identity: String,
        lease_namespace: Option<String>,
        secrets: Duration,
        stop: Duration,
        writes_per_second: NonZeroU32,
    ) -> Result<Self, ClusterError> {
        let refused = |error: Box<dyn std::error::Error + Send + Sync>| ClusterError::Settings(error);
        let config = Config::infer().await.map_err(|error| refused(Box::new(error)))?;
        let client = connect(config).map_err(|error| refused(Box::new(error)))?;
        let turns = Arc::new(Turns::new(writes_per_second));
        Ok(Self { client, identity, lease_namespace, secrets, stop, turns, handler: None })
    }
}

/// Runs until stopped. The lease is given back at the end, so that another takes over at once.
pub(crate) async fn run(
    platform: Platform,
    settings: Settings,
    state: channel::Sender<State>,
    stop: &CancellationToken,
) {
    let controllers = InCluster { platform, settings, state, given_back: Mutex::default() };
    again_and_again(&controllers, stop).await;
    let InCluster { platform, settings, state, .. } = &controllers;
    let stands_by = *state.borrow() == State::Standby;
    if !stands_by {
        farewell::farewell(platform, settings, state).await;
    }
    given_back_by(&controllers.given_back).await;
}

/// Waits until the lease that was held or waited for is left to others. Without an answer it expires by itself.
async fn given_back_by(task: &Mutex<Option<GivenBack>>) {
    let task = lock(task).take();
    if let Some(task) = task {
        let _ = timeout(GIVE_BACK, task).await;
    }
}

/// The controllers of a namespace.
struct InCluster {
    platform: Platform,
    settings: Settings,
    state: channel::Sender<State>,
    /// Ends when the lease that was held last has been given back.
    given_back: Mutex<Option<GivenBack>>,
}

impl Sessions for InCluster {
    fn state(&self) -> &channel::Sender<State> {
        &self.state
    }

    async fn session(&self, failures: &mut u32) -> Result<Infallible, SessionError> {
        let Self { platform, settings, state, given_back } = self;
        let place = lease::place(&platform.namespace, settings.lease_namespace.as_deref());
        let mut lease = loop {
            let (mut lease, task) = Lease::compete(settings.client.clone(), place.clone(), &settings.identity).await?;
            *lock(given_back) = Some(task);
            stand_by(state);
            if lease.held().await? {
                break lease;
            }
            drop(lease);
            given_back_by(given_back).await;
        };
        tokio::select! {
            ended = Box::pin(lead(platform, settings, state, failures)) => ended,
            lost = lease.lost() => lost.map_err(SessionError::from),
        }
    }
}

/// Everything that the active process does. Objects are watched, and let go, also while a database is away.
async fn lead(
    platform: &Platform,
    settings: &Settings,
    state: &channel::Sender<State>,
    failures: &mut u32,
) -> Result<Infallible, SessionError> {
    let (client, namespace) = (&settings.client, platform.namespace.as_str());
    let (publish, reports) = channel::channel(Arc::new(Reports::default()));
    let (clean_up, clean_ups) = mpsc::channel(CLEAN_UPS);
    let writer = Writer::new(client.clone(), settings.turns.clone(), namespace.to_owned(), settings.identity.clone());
    let (told, to_tell) = mpsc::channel(TOLD);
    let shared = Arc::new(Shared {
        writer: writer.clone(),
        reports,
        clean_up,
        told,
        deleting: Mutex::default(),
        failures: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(tell(to_tell, writer));
    let (changed, listed) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (stores, touch) = start(client, namespace, &mut tasks, (&changed, &listed), &shared);
    match timeout(LOOK, listed.acquire_many(KINDS)).await {
        Ok(Ok(_)) => {}
        _ => return Err(ClusterError::Silent { doing: "list the resources" }.into()),
    }
    *failures = 0;
    let (secrets, reader) = secrets::channel(client.clone(), namespace, settings.secrets, changed.clone());
    tasks.spawn(reader.run());
    let (ask, asks) = channel::channel(None);
    if let Some(handler) = &settings.handler {
        tasks.spawn(scale::keep(Scaler::new(client.clone(), handler), handler.replicas, asks));
    }
    let installed = settings.handler.as_ref().map(|handler| handler.replicas);
    let engine = AsyncMutex::new(Engine::new((publish, touch), clean_ups, secrets, (ask, installed)));
    let leader = Leader { platform, state, stores, changed, engine, away_since: Mutex::default() };
    let never = CancellationToken::new();
    tokio::select! {
        // Goes on until this is dropped.
        () = again_and_again(&leader, &never) => Err(ClusterError::WatchEnded.into()),
        _ = tasks.join_next() => Err(ClusterError::WatchEnded.into()),
    }
}

/// What the holder of the lease does at the databases.
struct Leader<'a> {
    platform: &'a Platform,
    state: &'a channel::Sender<State>,
    stores: Stores,
    /// Told of every change of an object.
    changed: Arc<Notify>,
    engine: AsyncMutex<Engine>,
    /// When a database was first found to be away.
    away_since: Mutex<Option<Instant>>,
}

impl Sessions for Leader<'_> {
    fn state(&self) -> &channel::Sender<State> {
        self.state
    }

    async fn session(&self, failures: &mut u32) -> Result<Infallible, SessionError> {
        let ended = self.rule(failures).await;
        if let Err(SessionError::Database(error)) = &ended {
            self.without_databases(error).await?;
        }
        ended
    }
}

impl Leader<'_> {
    async fn rule(&self, failures: &mut u32) -> Result<Infallible, SessionError> {
        let mut session = Session::begin(self.platform, self.state).await?;
        *failures = 0;
        self.state.send_replace(State::Active);
        info!(namespace = self.platform.namespace, "controllers active");
        let mut engine = self.engine.lock().await;
        loop {
            engine.look(self.platform, &mut session, &self.stores).await?;
            *lock(&self.away_since) = None;
            tokio::select! {
                () = self.changed.notified() => sleep(TOGETHER).await,
                () = session.heard.notified() => sleep(TOGETHER).await,
                // The sender lives as long as this session.
                _ = session.bus.changed() => {}
                _ = session.migrations.changed() => {}
                _ = session.series_migrations.changed() => {}
                _ = session.tasks.join_next() => return Err(SessionError::TaskEnded),
                Some(request) = engine.clean_ups.recv() => {
                    // Others that wait come before everything is looked at again, but a silent seat is lost.
                    let begun = Instant::now();
                    answer(&mut session, request).await;
                    while begun.elapsed() < POLL && let Ok(request) = engine.clean_ups.try_recv() {
                        answer(&mut session, request).await;
                    }
                }
                () = sleep(POLL) => {}
            }
        }
    }

    /// Says so, once they have been away for longer than a restart takes.
    async fn without_databases(&self, error: &DatabaseError) -> Result<(), ClusterError> {
        let since = *lock(&self.away_since).get_or_insert_with(Instant::now);
        if since.elapsed() < RESTART {
            return Ok(());
        }
        let error = Chain(error).to_string();
        self.engine.lock().await.say_away(&self.stores, &error).await
    }
}

fn start(
    client: &Client,
    namespace: &str,
    tasks: &mut JoinSet<()>,
    (changed, listed): (&Arc<Notify>, &Arc<Semaphore>),
    shared: &Arc<Shared>,
) -> (Stores, Touch) {
    let topics = Watch::<Topic>::new(client.clone(), namespace);
    let event_types = Watch::<EventType>::new(client.clone(), namespace);
    let projections = Watch::<Projection>::new(client.clone(), namespace);
    let webhook_actions = Watch::<WebhookAction>::new(client.clone(), namespace);
    let stores = Stores {
        topics: topics.store(),
        event_types: event_types.store(),
        projections: projections.store(),
        webhook_actions: webhook_actions.store(),
    };
    let touch = HashMap::from([
        (Kind::Topic, topics.touch()),
        (Kind::EventType, event_types.touch()),
        (Kind::Projection, projections.touch()),
        (Kind::WebhookAction, webhook_actions.touch()),
    ]);
    topics.start(tasks, changed, listed, shared);
    event_types.start(tasks, changed, listed, shared);
    projections.start(tasks, changed, listed, shared);
    webhook_actions.start(tasks, changed, listed, shared);
    (stores, touch)
}
