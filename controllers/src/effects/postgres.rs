//! A service's database as the controllers see it: registrations and statuses are written, acknowledgements read.
//!
//! Everything goes through one connection, a [`Seat`], that holds an advisory lock for as long as it lives. Whoever
//! loses the connection loses the lock and can write no more: two controllers never write to one database.

mod rows;

use std::collections::BTreeMap;
use std::time::Duration;

use crds::registration::{Compiled, ResourceKey};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, PgConnection};

use self::rows::{read_ack, read_identity, read_index, read_instance, read_progress, read_registered, read_status};
use crate::plan::{Registered, Step};
use crate::status::{Ack, Instance, Progress, StatusRow};

/// Told by the data plane when something was acknowledged, or an instance left.
pub const ACK_CHANNEL: &str = "cornjacket_ack";
/// First half of the advisory lock's key; the second is the namespace's hash.
const LOCK: i32 = 0x636a_6374;

/// A step at the database failed. Transient: sit down again with backoff.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("cannot connect to the database")]
    Connect(#[source] sqlx::Error),
    #[error("cannot {doing}")]
    Statement { doing: &'static str, source: sqlx::Error },
    #[error("the database does not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the handler's database was not among those connected to")]
    NoHome,
}

fn failed(doing: &'static str) -> impl Fn(sqlx::Error) -> DatabaseError {
    move |source| DatabaseError::Statement { doing, source }
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

/// The same for a seat. Its owner looks every few seconds: one that says nothing for 15 s is frozen, and the server
/// ends its session, so that another can take over and the first finds itself without a seat when it wakes up.
pub fn seat_options(database: PgConnectOptions) -> PgConnectOptions {
    options(database).options([("idle_session_timeout", "15s")])
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
}

impl Seat {
    /// Connects, without taking the lock yet.
    pub async fn connect(options: &PgConnectOptions, namespace: &str) -> Result<Self, DatabaseError> {
        let connection = PgConnection::connect_with(options).await.map_err(DatabaseError::Connect)?;
        Ok(Self { connection, namespace: namespace.to_owned(), holds_lock: false })
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

    /// Everything registered, with the tombstones: their generations go on.
    pub async fn registered(&mut self) -> Result<BTreeMap<ResourceKey, Registered>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT kind, name, generation, hash::text AS hash, spec, state = 'active' AS active
             FROM registration WHERE namespace = $1",
        )
        .bind(&self.namespace)
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read registrations"))?;
        let read = |row: &PgRow| read_registered(row, &self.namespace);
        rows.iter()
            .filter_map(|row| read(row).transpose())
            .collect::<Result<_, _>>()
            .map_err(failed("read registrations"))
    }

    /// Carries steps out in one transaction, and wakes the data plane.
    pub async fn apply(&mut self, steps: &[Step]) -> Result<(), DatabaseError> {
        if steps.iter().all(|step| matches!(step, Step::Keep { .. })) {
            return Ok(());
        }
        let namespace = self.namespace.clone();
        let mut transaction = self.connection.begin().await.map_err(failed("begin a transaction"))?;
        for step in steps {
            match step {
                Step::Keep { .. } => {}
                Step::Register { key, generation, hash, spec } => {
                    register(&mut transaction, &namespace, key, *generation, hash, spec).await?;
                }
                Step::Remove { key } => remove(&mut transaction, &namespace, key).await?,
            }
        }
        sqlx::query("SELECT pg_notify('cornjacket_registration', '')")
            .execute(&mut *transaction)
            .await
            .map_err(failed("wake the data plane"))?;
        transaction.commit().await.map_err(failed("commit registrations"))
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

    /// How far the handler has come with each projection, where this is its database.
    pub async fn progress(&mut self) -> Result<BTreeMap<String, Progress>, DatabaseError> {
        let present: bool = sqlx::query_scalar("SELECT to_regclass('projection_progress') IS NOT NULL")
            .fetch_one(&mut self.connection)
            .await
            .map_err(failed("look for projection progress"))?;
        if !present {
            return Ok(BTreeMap::new());
        }
        let rows = sqlx::query("SELECT projection_type, status, message, history_from FROM projection_progress")
            .fetch_all(&mut self.connection)
            .await
            .map_err(failed("read projection progress"))?;
        let mut progress: BTreeMap<String, Progress> =
            rows.iter().map(read_progress).collect::<Result<_, _>>().map_err(failed("read projection progress"))?;
        let rows = sqlx::query("SELECT projection_type, field, status, message FROM projection_index")
            .fetch_all(&mut self.connection)
            .await
            .map_err(failed("read the indexes of projections"))?;
        for row in &rows {
            let (name, field, index) = read_index(row).map_err(failed("read the indexes of projections"))?;
            if let Some(progress) = progress.get_mut(&name) {
                progress.indexes.insert(field, index);
            }
        }
        Ok(progress)
    }

    /// The statuses as they stand.
    pub async fn statuses(&mut self) -> Result<BTreeMap<ResourceKey, StatusRow>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT kind, name, status, origin, generation, spec_hash::text AS spec_hash
             FROM resource_status WHERE namespace = $1",
        )
        .bind(&self.namespace)
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read statuses"))?;
        let read = |row: &PgRow| read_status(row, &self.namespace);
        rows.iter().filter_map(|r| read(r).transpose()).collect::<Result<_, _>>().map_err(failed("read statuses"))
    }

    /// Writes one status.
    pub async fn write_status(&mut self, key: &ResourceKey, row: &StatusRow) -> Result<(), DatabaseError> {
        sqlx::query(
            "INSERT INTO resource_status (namespace, kind, name, status, origin, generation, spec_hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (namespace, kind, name) DO UPDATE SET status = excluded.status, origin = excluded.origin,
             generation = excluded.generation, spec_hash = excluded.spec_hash, updated_at = now()",
        )
        .bind(&self.namespace)
        .bind(key.kind.as_str())
        .bind(&key.name)
        .bind(&row.status)
        .bind(&row.origin)
        .bind(row.generation)
        .bind(&row.spec_hash)
        .execute(&mut self.connection)
        .await
        .map_err(failed("write a status"))?;
        Ok(())
    }

    /// Removes the status of a resource that is gone.
    pub async fn remove_status(&mut self, key: &ResourceKey) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM resource_status WHERE namespace = $1 AND kind = $2 AND name = $3")
            .bind(&self.namespace)
            .bind(key.kind.as_str())
            .bind(&key.name)
            .execute(&mut self.connection)
            .await
            .map_err(failed("remove a status"))?;
        Ok(())
    }
}

async fn register(
    connection: &mut PgConnection,
    namespace: &str,
    key: &ResourceKey,
    generation: i64,
    hash: &str,
    spec: &Compiled,
) -> Result<(), DatabaseError> {
    sqlx::query(
        "INSERT INTO registration (namespace, kind, name, generation, hash, spec, state)
         VALUES ($1, $2, $3, $4, $5, $6, 'active')
         ON CONFLICT (namespace, kind, name) DO UPDATE SET generation = excluded.generation, hash = excluded.hash,
         spec = excluded.spec, state = 'active', updated_at = now()",
    )
    .bind(namespace)
    .bind(key.kind.as_str())
    .bind(&key.name)
    .bind(generation)
    .bind(hash)
    .bind(sqlx::types::Json(spec))
    .execute(connection)
    .await
    .map_err(failed("write a registration"))?;
    Ok(())
}

async fn remove(connection: &mut PgConnection, namespace: &str, key: &ResourceKey) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE registration SET state = 'removed', updated_at = now()
         WHERE namespace = $1 AND kind = $2 AND name = $3 AND state = 'active'",
    )
    .bind(namespace)
    .bind(key.kind.as_str())
    .bind(&key.name)
    .execute(connection)
    .await
    .map_err(failed("remove a registration"))?;
    Ok(())
}
