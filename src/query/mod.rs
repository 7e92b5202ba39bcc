//! The read path: projections, time series and events by HTTP, as answers and as streams.
//!
//! In: the tables of the handler (by `QUERY_DATABASE_URL`: the handler's database or a replica of it) and the event
//! store (by `INGESTION_DATABASE_URL`), and the catalogue of what is registered. Out: the state that the handler has
//! folded, never a part of a batch; with `after_event`, state that includes the caller's own write. It writes nothing
//! and holds no state that a restart would lose: cursors and event ids carry all that a client needs to go on.

pub mod events;
pub mod filter;
mod health;
pub mod http;
pub mod news;
mod pages;
pub mod series;
pub mod store;
pub mod stream;
mod wait;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use http::{openapi, routes};

use crate::bus::wake;
use crate::lifecycle::{Lifecycle, Stage};
use crate::operate::Gate;
use crate::registry::Catalog;
use news::News;

/// What the service reads from.
#[derive(Clone)]
pub struct Sources {
    /// The handler's database, or a replica of it.
    pub projections: PgPool,
    /// The time-series database, or a replica of it.
    pub series: PgPool,
    /// The database of outbox and event store.
    pub events: PgPool,
    pub catalog: watch::Receiver<Arc<Catalog>>,
}

/// How much it takes on at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open streams.
    pub streams: usize,
    /// Requests that wait for an event to be projected.
    pub waiters: usize,
    /// How long rows that match a filter are asked for as they are. A page that takes longer is made by looking at one row
    /// after the other, for as long again, and then holds what was found.
    pub filtered_page: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams: 256, waiters: 256, filtered_page: Duration::from_secs(3) }
    }
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Query {
    inner: Arc<Inner>,
}

struct Inner {
    sources: Sources,
    projection_news: News,
    event_news: News,
    streams: Arc<Semaphore>,
    waiters: Arc<Semaphore>,
    limits: Limits,
    stop: CancellationToken,
}

/// The only subject of news of the event store.
const EVENTS: &str = "events";

/// Makes the service and starts its tasks; they and all streams end with [`Stage::Serve`]. The gate is open while both
/// databases answer and have their tables.
pub fn start(sources: Sources, limits: Limits, lifecycle: &Lifecycle, gate: Gate) -> Query {
    let stop = lifecycle.token(Stage::Serve);
    let query = Query::new(sources, limits, stop.clone());
    lifecycle.spawn(Stage::Serve, "query.watch", health::watch(query.clone(), gate));
    let Inner { sources, projection_news, event_news, .. } = &*query.inner;
    let projections =
        projection_news.clone().listen(sources.projections.clone(), news::PROJECTION, |payload| payload, stop.clone());
    lifecycle.spawn(Stage::Serve, "query.listen.projections", projections);
    let events = event_news.clone().listen(sources.events.clone(), wake::EVENT_STORE, |_| EVENTS, stop);
    lifecycle.spawn(Stage::Serve, "query.listen.events", events);
    query
}

impl Query {
    fn new(sources: Sources, limits: Limits, stop: CancellationToken) -> Self {
        let Sources { projections, series, events, catalog } = sources;
        let (projections, series, events) = (tested(&projections), tested(&series), tested(&events));
        let sources = Sources { projections, series, events, catalog };
        let inner = Inner {
            sources,
            projection_news: News::default(),
            event_news: News::default(),
            streams: Arc::new(Semaphore::new(limits.streams)),
            waiters: Arc::new(Semaphore::new(limits.waiters)),
            limits,
            stop,
        };
        Self { inner: Arc::new(inner) }
    }

    fn projections(&self) -> &PgPool {
        &self.inner.sources.projections
    }

    fn series(&self) -> &PgPool {
        &self.inner.sources.series
    }

    fn events(&self) -> &PgPool {
        &self.inner.sources.events
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.inner.sources.catalog.borrow().clone()
    }

    fn stop(&self) -> &CancellationToken {
        &self.inner.stop
    }

    fn projection_news(&self, projection_type: &str) -> watch::Receiver<()> {
        self.inner.projection_news.subscribe(projection_type)
    }

    fn event_news(&self) -> watch::Receiver<()> {
        self.inner.event_news.subscribe(EVENTS)
    }

    fn filtered_page(&self) -> Duration {
        self.inner.limits.filtered_page
    }

    fn stream_permit(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        let busy = QueryError::Busy { what: "streams", limit: self.inner.limits.streams };
        self.inner.streams.clone().try_acquire_owned().map_err(|_| busy)
    }

    fn waiter_permit(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        let busy = QueryError::Busy { what: "waiting requests", limit: self.inner.limits.waiters };
        self.inner.waiters.clone().try_acquire_owned().map_err(|_| busy)
    }
}

/// The same pool, but a connection that broke is noticed before it is used: a reader asks once and wants an answer.
fn tested(pool: &PgPool) -> PgPool {
    let options = pool.options().clone().test_before_acquire(true);
    options.connect_lazy_with(PgConnectOptions::clone(&pool.connect_options()))
}

/// Why a request is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Nothing has this key. Not worth a retry without a new event.
    #[error("projection not found")]
    NoRow { projection_type: String, aggregate_id: String },
    /// Nothing has this key, and nothing can have: no such projection is declared. `meant`: one with a similar name.
    #[error("projection not found")]
    NoProjection { projection_type: String, meant: Option<String> },
    /// What is asked for as a projection is a time series.
    #[error("projection not found")]
    IsSeries { name: String },
    /// No such time series is declared. `meant`: one with a similar name.
    #[error("time series not found")]
    NoSeries { name: String, meant: Option<String> },
    /// It is declared, and the controllers have not made its table, or a new column, yet.
    #[error("the table of the time series is not as declared yet: ask again in a moment")]
    SeriesPending,
    /// An `Accept` header that names no format that there is.
    #[error("Accept: '{}' names no format of exports: use text/csv or application/x-ndjson", cut(.0))]
    NotAcceptable(String),
    /// A stream that had not come to its end.
    #[error("the service stops: ask again")]
    Stopping,
    /// No event has this id, or retention has dropped it.
    #[error("event not found")]
    EventNotFound,
    /// The event is in the outbox: a retry soon finds it.
    #[error("event {0} is accepted and not in the event store yet: ask again")]
    EventNotStored(Uuid),
    /// `after_event` names an event that was never accepted here.
    #[error("after_event: no event {0} is known")]
    UnknownEvent(Uuid),
    /// The projection did not pass the event in time. Worth a retry.
    #[error(
        "projection {projection_type} has not passed event {event_id} within {} ms ({state}): ask again, or with a \
         longer timeout", .waited.as_millis()
    )]
    NotPassed { projection_type: String, event_id: Uuid, waited: Duration, state: String },
    /// A parameter is not as it must be.
    #[error("{name}: '{value}' {rule}")]
    Parameter { name: String, value: String, rule: String },
    /// An event id that this stream did not give out.
    #[error("Last-Event-ID: '{}' was not given out by this stream: connect without it", cut(.0))]
    BadEventId(String),
    /// Worth a retry in a few seconds.
    #[error("all {limit} {what} are taken: try again in a few seconds")]
    Busy { what: &'static str, limit: usize },
    /// A standby does not know which transactions are running on its primary.
    #[error("streams of projections need the primary: QUERY_DATABASE_URL names a standby")]
    Standby,
    /// Reading failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl QueryError {
    /// A parameter, its value (cut short) and what it must be.
    pub fn parameter(name: &str, value: &str, rule: impl Into<String>) -> Self {
        Self::Parameter { name: name.to_owned(), value: cut(value), rule: rule.into() }
    }
}

/// At most 120 characters, for messages.
fn cut(value: &str) -> String {
    let mut short: String = value.chars().take(120).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    short
}

/// Why a read did not come to its end, for logs.
fn failure<T>(outcome: Result<sqlx::Result<T>, tokio::time::error::Elapsed>) -> String {
    match outcome {
        Ok(Ok(_)) => String::new(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    }
}
