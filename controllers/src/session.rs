//! What a process that is active holds: the lock of every database, and tasks that hear what happens there.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::cause::Chain;
use crds::secret::PlatformKey;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::effects::kafka::{BrokerError, Kafka};
use crate::effects::listen;
use crate::effects::postgres::guard::{Badge, Guard};
use crate::effects::postgres::{DatabaseError, Deletion, Identity, Seat, options, seat_options};
use crate::effects::rule::Rule;
use crate::look::{Look, Migrations};
use crate::migrations::{self, Going, Work};
use crate::resource::Resource;
use crate::run::State;
use crate::topic::status::Bus;
use crate::topic::wanted::Wanted;
use crate::topics::{self, Delete};

/// Between two tries to take over from an active process.
const STANDBY: Duration = Duration::from_millis(500);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest wait for something to be deleted; it is asked again.
const DELETE: Duration = Duration::from_secs(8);

/// The databases and the bus that are ruled.
pub struct Platform {
    /// The platform instance; `default` without a cluster.
    pub namespace: String,
    /// The handler's database, where the statuses of a directory are kept too.
    pub home: PgConnectOptions,
    /// The databases of the other services. One that is named twice counts once.
    pub others: Vec<PgConnectOptions>,
    /// The database of the time series.
    pub tsdb: PgConnectOptions,
    /// The database of who delivers webhooks; it holds sealed values of Secrets, and what is known of endpoints.
    pub actions: PgConnectOptions,
    /// librdkafka settings of the broker; `None` for the embedded bus.
    pub kafka: Option<BTreeMap<String, String>>,
    /// Between two looks at a broker that has everything as described: how soon what somebody else changed is put back.
    pub drift: Duration,
    /// Seals values of Secrets for the data plane.
    pub secrets_key: Option<Arc<PlatformKey>>,
    /// Label selector of the handler's pods; `None` where there are no pods.
    pub handler_selector: Option<String>,
}

impl Platform {
    /// The home first, and those of the time series and of the actions last.
    fn databases(&self) -> impl Iterator<Item = &PgConnectOptions> {
        std::iter::once(&self.home).chain(&self.others).chain([&self.tsdb, &self.actions])
    }
}

/// Default of [`Platform::drift`], in seconds.
pub const DRIFT_SECONDS: u64 = 60;

/// A session ended. All of it is transient.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Cluster(#[from] crate::effects::kubernetes::ClusterError),
    #[error("a task of the controllers ended")]
    TaskEnded,
}

/// Being active: dropping it gives the locks back and ends the tasks.
pub struct Session {
    pub look: Look,
    /// Told when something was acknowledged.
    pub heard: Arc<Notify>,
    /// What is known about the bus.
    pub bus: watch::Receiver<Bus>,
    /// How the migration of the tables of projections goes, and that of the tables of time series.
    pub migrations: watch::Receiver<Going>,
    pub series_migrations: watch::Receiver<Going>,
    /// They end with it; none ends before.
    pub tasks: JoinSet<()>,
    /// Told when somebody asks for a look at the broker now.
    pub asked: Arc<Notify>,
    /// Topics to be deleted; `None` where the bus has none.
    deletes: Option<mpsc::Sender<Delete>>,
}

impl Session {
    /// Waits for the locks, and starts listening.
    pub async fn begin(platform: &Platform, state: &watch::Sender<State>) -> Result<Self, SessionError> {
        let (mut home, mut others) = sit_down(platform, state).await?;
        let heard = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        for database in platform.databases() {
            tasks.spawn(listen::acknowledgements(options(database.clone()), heard.clone()));
        }
        let (wanted, wanted_topics) = watch::channel(Vec::<Wanted>::new());
        let (publish_bus, bus) = watch::channel(Bus::Embedded);
        let badge = within(CONNECT, home.badge()).await?;
        let (mut deletes, asked) = (None, Arc::new(Notify::new()));
        if let Some(settings) = &platform.kafka {
            publish_bus.send_replace(Bus::Unknown);
            let (sender, receiver) = mpsc::channel(1);
            deletes = Some(sender);
            let pace = topics::Pace { drift: platform.drift, asked: asked.clone() };
            let rule = Rule::new(Kafka::new(settings)?, Guard::new(platform.home.clone(), badge.clone()));
            tasks.spawn(topics::keep(rule, pace, wanted_topics, publish_bus, receiver));
        } else {
            // Nothing is ever said of a bus that is the event store; the sender lives as long as the session.
            tasks.spawn(async move { publish_bus.closed().await });
        }
        let series_seat = std::iter::once(&mut home).chain(&mut others).find(|seat| seat.keeps_series);
        let series_badge = within(CONNECT, series_seat.ok_or(DatabaseError::NoHome)?.badge()).await?;
        let (projections, going) = migrated(&mut tasks, &platform.home, badge);
        let (series, series_going) = migrated(&mut tasks, &platform.tsdb, series_badge);
        let seats = (home, others);
        let selector = platform.handler_selector.clone();
        let look = Look::new(platform.namespace.clone(), seats, wanted, (projections, series), selector);
        Ok(Self { look, heard, bus, migrations: going, series_migrations: series_going, tasks, asked, deletes })
    }

    /// Deletes what a resource describes, some of it at a time. The error says why something is left.
    pub async fn delete(&mut self, resource: &Resource) -> Result<(), String> {
        match resource {
            Resource::Topic(topic) => {
                let name = topic.metadata.name.as_deref().unwrap_or_default();
                match within(DELETE, self.look.home().claims_topic(name, topic.topic_name())).await {
                    Ok(true) => self.delete_topic(topic.topic_name()).await,
                    // It was there before the resource, which never took it over.
                    Ok(false) => Ok(()),
                    Err(error) => Err(Chain(&error).to_string()),
                }
            }
            Resource::Projection(projection) => match &projection.spec.time_series {
                Some(series) => self.delete_series(projection.projection_type(), &series.table).await,
                None => self.delete_projection(projection.projection_type()).await,
            },
            Resource::WebhookAction(action) => {
                self.delete_deliveries(action.metadata.name.as_deref().unwrap_or_default()).await
            }
            Resource::EventType(_) => Ok(()),
        }
    }

    async fn delete_projection(&mut self, projection_type: &str) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let step = within(DELETE, self.look.home().delete_projection(projection_type)).await;
            if let Some(end) = end_of(step, "the handler", begun) {
                return end;
            }
        }
    }

    async fn delete_deliveries(&mut self, action: &str) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let Some(seat) = self.look.of_actions() else { return Ok(()) };
            let step = within(DELETE, seat.delete_deliveries(action)).await;
            if let Some(end) = end_of(step, "who delivers", begun) {
                return end;
            }
        }
    }

    async fn delete_series(&mut self, projection_type: &str, table: &str) -> Result<(), String> {
        match within(DELETE, self.look.delete_series(projection_type, table)).await {
            Ok(Deletion::Done) => Ok(()),
            Ok(Deletion::Fed) => Err("its writer has not let go of it".to_owned()),
            Ok(Deletion::More) => Err("rows are left".to_owned()),
            Err(error) => Err(Chain(&error).to_string()),
        }
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), String> {
        let Some(deletes) = &self.deletes else { return Ok(()) };
        let (done, answer) = oneshot::channel();
        let asking = async {
            let sent = deletes.send(Delete { topic: topic.to_owned(), done }).await;
            match (sent, answer.await) {
                (Ok(()), Ok(result)) => result,
                _ => Err("the broker's connection was given up".to_owned()),
            }
        };
        timeout(DELETE, asking).await.unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
    }
}

/// Starts migrating the tables of one sort in a database, for the seat with this badge.
fn migrated<W: migrations::Wanted + 'static>(
    tasks: &mut JoinSet<()>,
    database: &PgConnectOptions,
    badge: Badge,
) -> (Migrations<W>, watch::Receiver<Going>) {
    let (work, wanted) = watch::channel(Work::default());
    let (publish, going) = watch::channel(Going::default());
    tasks.spawn(migrations::keep(database.clone(), badge, wanted, publish));
    (Migrations { work, going: going.clone() }, going)
}

/// What a step makes of a deletion that goes by steps; `None` where the next is to be taken.
fn end_of(step: Result<Deletion, SessionError>, owner: &str, begun: Instant) -> Option<Result<(), String>> {
    match step {
        Ok(Deletion::Done) => Some(Ok(())),
        Ok(Deletion::Fed) => Some(Err(format!("{owner} has not let go of it"))),
        Ok(Deletion::More) if begun.elapsed() < DELETE => None,
        Ok(Deletion::More) => Some(Err("rows are left".to_owned())),
        Err(error) => Some(Err(Chain(&error).to_string())),
    }
}

/// Runs a step with a deadline.
pub async fn within<T, E: Into<SessionError>>(
    limit: Duration,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, SessionError> {
    match timeout(limit, step).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(DatabaseError::Silent(limit).into()),
    }
}

/// Takes the lock of every database, in one order for all processes, and waits where another has it.
async fn sit_down(platform: &Platform, state: &watch::Sender<State>) -> Result<(Seat, Vec<Seat>), SessionError> {
    let mut seats: BTreeMap<Identity, Seat> = BTreeMap::new();
    let (mut home, mut tsdb, mut actions) = (None, None, None);
    for (index, database) in platform.databases().enumerate() {
        let database = seat_options(database.clone());
        let mut seat = within(CONNECT, Seat::connect(&database, &platform.namespace)).await?;
        let identity = within(CONNECT, seat.identity()).await?;
        home.get_or_insert_with(|| identity.clone());
        // They come last, in this order.
        tsdb = actions.replace(identity.clone());
        // A replica gets its rows from the primary.
        if index == 0 || !identity.replica {
            seats.entry(identity).or_insert(seat);
        }
    }
    if let Some(seat) = tsdb.and_then(|identity| seats.get_mut(&identity)) {
        seat.keeps_series = true;
    }
    if let Some(seat) = actions.and_then(|identity| seats.get_mut(&identity)) {
        seat.is_of_actions = true;
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

/// Another process is active.
pub fn stand_by(state: &watch::Sender<State>) {
    state.send_if_modified(|before| {
        let changed = *before != State::Standby;
        if changed {
            info!("another process is active: standing by");
        }
        *before = State::Standby;
        changed
    });
}
