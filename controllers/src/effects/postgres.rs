//! A service's database as the controllers see it: registrations and statuses are written, acknowledgements read.
//!
//! Everything goes through one connection, a [`Seat`], that holds an advisory lock for as long as it lives. Whoever
//! loses the connection loses the lock and can write no more: two controllers never write to one database.

pub mod catalog;
mod deliveries;
pub mod guard;
pub mod migrations;
mod projections;
mod registrations;
mod rows;
mod secrets;
pub(crate) mod series;
mod statuses;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::registration::SecretVersion;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, PgConnection};

pub use self::projections::Deletion;
use self::rows::{read_ack, read_identity, read_instance};
use crate::plan::Registrations;
use crate::status::{Ack, Instance};

/// Told by the data plane when something was acknowledged, or an instance left.
pub const ACK_CHANNEL: &str = "cornjacket_ack";
/// First half of the advisory lock's key; the second is the namespace's hash.
const LOCK: i32 = 0x636a_6374;

/// A step at the database failed. Transient: sit down again with backoff.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// `at` says which one: a platform may have several.
    #[error("cannot connect to the database {at}")]
    Connect { at: String, source: sqlx::Error },
    #[error("cannot {doing}")]
    Statement { doing: &'static str, source: sqlx::Error },
    #[error("the database does not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the lock at the database was lost: another process may be active")]
    SeatLost,
    #[error("the handler's database was not among those connected to")]
    NoHome,
}

fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> DatabaseError {
    move |source| DatabaseError::Statement { doing, source }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, DatabaseError> {
    let failed = |source| DatabaseError::Connect { at: place(options), source };
    PgConnection::connect_with(options).await.map_err(failed)
}

/// `cornjacket at host:5432`, without who connects.
fn place(options: &PgConnectOptions) -> String {
    let name = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{name} at {}", socket.display()),
        None => format!("{name} at {}:{}", options.get_host(), options.get_port()),
    }
}

/// Adds to connection options what a controller wants: no statement waits for long, a dead peer is noticed.
pub fn options(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("cornjacket controllers").options([
        ("statement_timeout", "10s"),
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "3"),
    ])
}

/// The same for a seat. Its owner looks every few seconds: one that says nothing for 9 s is frozen, and the server
/// ends its session, so that another can take over and the first finds itself without a seat when it wakes up.
pub fn seat_options(database: PgConnectOptions) -> PgConnectOptions {
    // A statement at one database is no silence at the others.
    options(database).options([("idle_session_timeout", "9s"), ("statement_timeout", "7s")])
}

/// Who a database is, however its URL is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub name: String,
    /// A replica gets what it needs from its primary.
    pub replica: bool,
}

/// The connection from which one process rules one database.
pub struct Seat {
    connection: PgConnection,
    namespace: String,
    holds_lock: bool,
    /// Whether this is the database of who delivers webhooks: the sealed values of Secrets are kept here for it, and it keeps
    /// here what it knows of endpoints.
    pub is_of_actions: bool,
    /// Whether time series are kept here.
    pub keeps_series: bool,
    /// What is registered, as it was read last.
    known: Arc<Registrations>,
}

impl Seat {
    /// Connects, without taking the lock yet.
    pub async fn connect(options: &PgConnectOptions, namespace: &str) -> Result<Self, DatabaseError> {
        let connection = connect(options).await?;
        let namespace = namespace.to_owned();
        Ok(Self {
            connection,
            namespace,
            holds_lock: false,
            is_of_actions: false,
            keeps_series: false,
            known: Arc::default(),
        })
    }

    /// The platform instance whose rows are read and written.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Tells two URLs of one database from two databases.
    pub async fn identity(&mut self) -> Result<Identity, DatabaseError> {
        let row = sqlx::query(
            "SELECT pg_is_in_recovery() AS replica, pg_postmaster_start_time()::text || '/' || oid AS name
             FROM pg_database WHERE datname = current_database()",
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed("ask which database this is"))?;
        read_identity(&row).map_err(failed("ask which database this is"))
    }

    /// Takes the lock; false where another process has it. Asking again once it is held keeps the session alive.
    pub async fn take(&mut self) -> Result<bool, DatabaseError> {
        self.holds_lock = sqlx::query_scalar("SELECT $3 OR pg_try_advisory_lock($1, hashtext($2))")
            .bind(LOCK)
            .bind(&self.namespace)
            .bind(self.holds_lock)
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed("take the controllers' lock"))?;
        Ok(self.holds_lock)
    }

    /// The values of Secrets that are there, sealed.
    pub async fn stored_secrets(&mut self) -> Result<BTreeSet<SecretVersion>, DatabaseError> {
        secrets::stored(&mut self.connection, &self.namespace).await
    }

    /// The Topics, by name of the resource, whose topic the platform made or took over.
    pub async fn topic_claims(&mut self) -> Result<BTreeSet<String>, DatabaseError> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM registration
             WHERE namespace = $1 AND kind = 'Topic' AND state = 'active' AND topic_claimed",
        )
        .bind(&self.namespace)
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read the claims of topics"))?;
        Ok(names.into_iter().collect())
    }

    /// Records that the topics of these resources are the platform's from now on.
    pub async fn claim_topics(&mut self, names: &[String]) -> Result<(), DatabaseError> {
        sqlx::query(
            "UPDATE registration SET topic_claimed = true
             WHERE namespace = $1 AND kind = 'Topic' AND state = 'active' AND name = ANY($2)",
        )
        .bind(&self.namespace)
        .bind(names)
        .execute(&mut self.connection)
        .await
        .map_err(failed("claim topics"))?;
        Ok(())
    }

    /// Whether a topic is the platform's by this resource, which may be gone, and nobody else's.
    pub async fn claims_topic(&mut self, name: &str, topic: &str) -> Result<bool, DatabaseError> {
        let claimed: Option<bool> = sqlx::query_scalar(
            "SELECT topic_claimed AND spec->>'topicName' = $3 AND NOT EXISTS (
                 SELECT FROM registration other WHERE other.kind = 'Topic' AND other.state = 'active'
                 AND other.spec->>'topicName' = $3 AND (other.namespace, other.name) <> ($1, $2))
             FROM registration WHERE namespace = $1 AND kind = 'Topic' AND name = $2",
        )
        .bind(&self.namespace)
        .bind(name)
        .bind(topic)
        .fetch_optional(&mut self.connection)
        .await
        .map_err(failed("read the claim of a topic"))?;
        Ok(claimed.unwrap_or(false))
    }

    /// The instances that are live by this database's clock.
    pub async fn instances(&mut self) -> Result<Vec<Instance>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT instance::text AS id, role, host FROM instance
             WHERE heartbeat_at > now() - interval '15 seconds' ORDER BY instance, role",
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read instances"))?;
        rows.iter()
            .filter_map(|r| read_instance(r).transpose())
            .collect::<Result<_, _>>()
            .map_err(failed("read instances"))
    }

    /// What instances said about registrations.
    pub async fn acks(&mut self) -> Result<Vec<Ack>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT instance::text AS id, role, kind, name, hash::text AS hash, error
             FROM registration_ack WHERE namespace = $1",
        )
        .bind(&self.namespace)
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read acknowledgements"))?;
        let read = |row: &PgRow| read_ack(row, &self.namespace);
        rows.iter()
            .filter_map(|r| read(r).transpose())
            .collect::<Result<_, _>>()
            .map_err(failed("read acknowledgements"))
    }
}
