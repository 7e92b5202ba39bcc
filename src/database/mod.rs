//! PostgreSQL: pools with the limits that every connection of ours has, and the embedded migrations.

pub mod channel;
mod migrations;
mod text;

use std::collections::BTreeSet;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};
use tokio::time::timeout;

pub use migrations::{MigrationError, Service, Status, migrate, status};
pub use text::{find_nul, storable};

/// A session that holds a transaction open and says nothing for this long is ended by the server, and its locks go to
/// whoever waits: a frozen process cannot hold a shard for longer.
pub const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);
/// No statement of ours runs longer, but for migrations and swaps.
const STATEMENT: Duration = Duration::from_secs(30);
/// A connection that comes back to its pool and does not answer for this long is closed: its server went away without a
/// word, and whoever used it has given it up.
const RETURN: Duration = Duration::from_secs(5);
/// A connection that was idle for this long is asked before it is used, and has this long to answer.
const RESTED: Duration = Duration::from_millis(200);
const AWAKE: Duration = Duration::from_secs(2);
/// How long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);

/// Parses a URL of a database.
///
/// # Errors
/// Says what is wrong with it, without the URL, which may hold a password.
pub fn options(url: &SecretString, role: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let millis = |d: Duration| d.as_millis().to_string();
    Ok(PgConnectOptions::from_str(url.expose_secret())?.application_name(&format!("cornjacket {role}")).options([
        ("idle_in_transaction_session_timeout", millis(IDLE_IN_TRANSACTION)),
        ("statement_timeout", millis(STATEMENT)),
        // Our statements look rows up by index. The outbox is empty at one moment and full at the next: a plan made of
        // what the statistics say of an empty table, and kept by a prepared statement, would read the whole table.
        ("enable_seqscan", "off".to_owned()),
        // Where a scan cannot be avoided, its price then looks as if compiling it would pay.
        ("jit", "off".to_owned()),
        ("tcp_keepalives_idle", "10".to_owned()),
        ("tcp_keepalives_interval", "3".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
    ]))
}

/// A pool that connects when it is first used.
///
/// # Errors
/// The URL cannot be parsed.
pub fn pool(url: &SecretString, role: &str, max_connections: u32) -> Result<PgPool, sqlx::Error> {
    Ok(lazy(options(url, role)?, max_connections))
}

/// A pool for the tables of projections. Its statements are planned each time: a plan made while a table was small would
/// be kept, and may look rows up by their type alone, which is then nearly all of them.
///
/// # Errors
/// The URL cannot be parsed.
pub fn pool_of_projections(url: &SecretString, role: &str, max_connections: u32) -> Result<PgPool, sqlx::Error> {
    let options = options(url, role)?.options([("plan_cache_mode", "force_custom_plan")]);
    Ok(lazy(options, max_connections))
}

fn lazy(options: PgConnectOptions, max_connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .min_connections(0)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(Duration::from_mins(10))
        // A broken connection shows at its first use, and every user of a pool tries again. One that is silent does not.
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move {
                if state.idle_for < RESTED {
                    return Ok(true);
                }
                within(AWAKE, connection.ping()).await.map(|()| true)
            })
        })
        .after_release(|connection, _| Box::pin(async { within(RETURN, connection.ping()).await.map(|()| true) }))
        .connect_lazy_with(options)
}

/// A pool of its own to the same database, as small as this. For a loop that is busy all the time: a pool hands its
/// connections out in turn, and each has its own plans and caches, which the loop is to find warm. For a listener: what
/// becomes of its connection is nobody else's.
pub fn own(pool: &PgPool, max_connections: u32) -> PgPool {
    lazy((*pool.connect_options()).clone(), max_connections)
}

/// The work, if it is done in time; an error that says how long was waited otherwise.
///
/// # Errors
/// Those of the work, and that the time is up.
pub fn within<T, E: From<sqlx::Error>>(
    time: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    // Large ones need not be moved about.
    let work = Box::pin(work);
    let late = move || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", time.as_secs()));
    async move { timeout(time, work).await.unwrap_or_else(|_| Err(sqlx::Error::Io(late()).into())) }
}

/// The databases of the platform, by service. Equal URLs are one database.
#[derive(Clone)]
pub struct Urls {
    pub ingestion: SecretString,
    pub eventhandler: SecretString,
    /// The handler's database or a replica of it, which nothing is written to: the query service owns no tables.
    pub query: SecretString,
    pub tsdb: SecretString,
    pub actions: SecretString,
}

impl Urls {
    /// All services in one database.
    pub fn one(url: &SecretString) -> Self {
        Self::new(url.clone(), url.clone())
    }

    /// All but the ingestion service in the handler's database.
    pub fn new(ingestion: SecretString, eventhandler: SecretString) -> Self {
        let (query, tsdb, actions) = (eventhandler.clone(), eventhandler.clone(), eventhandler.clone());
        Self { ingestion, eventhandler, query, tsdb, actions }
    }

    /// Each database of these services once, with those whose tables it holds.
    pub fn of(&self, services: &[Service]) -> Vec<(SecretString, BTreeSet<Service>)> {
        let mut databases: Vec<(SecretString, BTreeSet<Service>)> = Vec::new();
        for service in services {
            let url = match service {
                Service::Ingestion => &self.ingestion,
                Service::EventHandler => &self.eventhandler,
                Service::Tsdb => &self.tsdb,
                Service::Actions => &self.actions,
            };
            match databases.iter_mut().find(|(known, _)| known.expose_secret() == url.expose_secret()) {
                Some((_, services)) => {
                    services.insert(*service);
                }
                None => databases.push((url.clone(), BTreeSet::from([*service]))),
            }
        }
        databases
    }

    /// Each database once, with the services whose tables it holds.
    pub fn distinct(&self) -> Vec<(SecretString, BTreeSet<Service>)> {
        self.of(&[Service::Ingestion, Service::EventHandler, Service::Tsdb, Service::Actions])
    }
}

/// Whether an error means that the database is away or busy, so that the same call may succeed later.
pub fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) => e.code().is_some_and(|code| {
            // Connection, resources, operator intervention, system, serialisation, lock not available, idle timeout.
            ["08", "53", "57", "58", "40", "55"].iter().any(|class| code.starts_with(class)) || code == "25P03"
        }),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => false,
        _ => true,
    }
}

/// Whether an error is about the values of the rows given: another try with the same rows fails again.
pub fn is_bad_data(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e)
        if e.code().is_some_and(|code| ["21", "22", "23"].iter().any(|class| code.starts_with(class)) || code == "54000"))
}
