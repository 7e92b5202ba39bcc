//! The embedded migrations: one set shared by every database and one a service, each with a ledger table of its own.
//! Forward only. They are applied under an advisory lock, so that processes may start at the same time. They only add, so that
//! processes of the release before run on beside them (`tests` has the rule).

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use sqlx::ConnectOptions;
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tracing::info;

/// A database that takes a connection and says nothing is away.
const CONNECT: Duration = Duration::from_secs(10);

/// A service that owns tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Ingestion,
    EventHandler,
    Tsdb,
    Actions,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingestion => "ingestion",
            Self::EventHandler => "eventhandler",
            Self::Tsdb => "tsdb",
            Self::Actions => "actions",
        })
    }
}

/// Why the migrations of a database were not applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error("cannot connect to the database of {services}{at}")]
    Connect {
        services: String,
        /// ` at host:port`, where it is known.
        at: String,
        source: sqlx::Error,
    },
    #[error(
        "the database is newer than this binary: it has {set} migration {version}, which this release does not know; use the release that applied it, or a newer one"
    )]
    Newer { set: &'static str, version: i64 },
    #[error("{set} migration {version} was changed after it was applied: this binary does not fit the database")]
    Changed { set: &'static str, version: i64 },
    #[error("{set} migrations failed, nothing of the failed one was kept")]
    Failed { set: &'static str, source: MigrateError },
}

/// How far a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub set: &'static str,
    /// Versions known to this binary and not applied yet.
    pub pending: Vec<i64>,
}

struct Set {
    name: &'static str,
    migrator: Migrator,
}

fn sets(services: &BTreeSet<Service>) -> Vec<Set> {
    let mut sets = vec![set("shared", "cornjacket_migrations_shared", sqlx::migrate!("migrations/shared"))];
    sets.extend(services.iter().map(|service| match service {
        Service::Ingestion => {
            set("ingestion", "cornjacket_migrations_ingestion", sqlx::migrate!("migrations/ingestion"))
        }
        Service::EventHandler => {
            set("eventhandler", "cornjacket_migrations_eventhandler", sqlx::migrate!("migrations/eventhandler"))
        }
        Service::Tsdb => set("tsdb", "cornjacket_migrations_tsdb", sqlx::migrate!("migrations/tsdb")),
        Service::Actions => set("actions", "cornjacket_migrations_actions", sqlx::migrate!("migrations/actions")),
    }));
    sets
}

fn set(name: &'static str, ledger: &'static str, mut migrator: Migrator) -> Set {
    migrator.dangerous_set_table_name(ledger);
    Set { name, migrator }
}

/// Applies what is pending in one database. Returns how many migrations that were.
///
/// # Errors
/// The database is away or newer than this binary, or a migration failed; the process must not start.
pub async fn migrate(url: &SecretString, services: &BTreeSet<Service>) -> Result<usize, MigrationError> {
    let mut connection = connect(url, services).await?;
    let applied = apply(&mut connection, services).await;
    // Closing also frees the lock, which a failed migration keeps.
    let _ = connection.close().await;
    applied
}

async fn apply(connection: &mut PgConnection, services: &BTreeSet<Service>) -> Result<usize, MigrationError> {
    let mut applied = 0;
    for set in sets(services) {
        // Counted under the lock, which the run below takes a second time: what another process has just applied is not ours.
        connection.lock().await.map_err(|e| explain(set.name, e))?;
        let before = pending(connection, &set).await?.len();
        if before > 0 {
            info!(set = set.name, pending = before, "applying {before} {} migration(s)", set.name);
        }
        set.migrator.run_direct(None, connection, false).await.map_err(|e| explain(set.name, e))?;
        connection.unlock().await.map_err(|e| explain(set.name, e))?;
        applied += before;
    }
    Ok(applied)
}

/// What is pending in one database, without changing it.
///
/// # Errors
/// As [`migrate`].
pub async fn status(url: &SecretString, services: &BTreeSet<Service>) -> Result<Vec<Status>, MigrationError> {
    let mut connection = connect(url, services).await?;
    let mut all = Vec::new();
    for set in sets(services) {
        all.push(Status { set: set.name, pending: pending(&mut connection, &set).await? });
    }
    let _ = connection.close().await;
    Ok(all)
}

async fn pending(connection: &mut PgConnection, set: &Set) -> Result<Vec<i64>, MigrationError> {
    let table = &set.migrator.table_name;
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(table.as_ref())
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| explain(set.name, MigrateError::Execute(e)))?;
    let applied = if exists {
        connection.list_applied_migrations(table).await.map_err(|e| explain(set.name, e))?
    } else {
        Vec::new()
    };
    if let Some(newer) = applied.iter().find(|m| !set.migrator.version_exists(m.version)) {
        return Err(MigrationError::Newer { set: set.name, version: newer.version });
    }
    let done: BTreeSet<i64> = applied.iter().map(|m| m.version).collect();
    Ok(set.migrator.iter().map(|m| m.version).filter(|v| !done.contains(v)).collect())
}

async fn connect(url: &SecretString, services: &BTreeSet<Service>) -> Result<PgConnection, MigrationError> {
    let named = || services.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let unread = |source| MigrationError::Connect { services: named(), at: String::new(), source };
    let options = super::options(url, "migrate").map_err(unread)?;
    let at = options.get_socket().map_or_else(
        || format!(" at {}:{}", options.get_host(), options.get_port()),
        |socket| format!(" at {}", socket.display()),
    );
    let failed = |source| MigrationError::Connect { services: named(), at: at.clone(), source };
    let mut connection = super::within(CONNECT, options.connect()).await.map_err(failed)?;
    connection.execute("SET statement_timeout = 0").await.map_err(failed)?;
    Ok(connection)
}

fn explain(set: &'static str, error: MigrateError) -> MigrationError {
    match error {
        MigrateError::VersionMissing(version) => MigrationError::Newer { set, version },
        MigrateError::VersionMismatch(version) => MigrationError::Changed { set, version },
        source => MigrationError::Failed { set, source },
    }
}

#[cfg(test)]
mod tests;
