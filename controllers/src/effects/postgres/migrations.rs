//! Takes the steps of migration plans, on a connection of its own: building an index takes long, and nothing else waits
//! for it.
//!
//! One process migrates a database at a time, by an advisory lock. It takes no step unless the controllers' seat that it
//! works for still holds its own lock. A transactional step commits together with its row of the ledger; one that runs in no
//! transaction has a row `started` before. Who dies in between leaves what the next one goes on from.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::guard::{self, Badge, soon};
use super::{DatabaseError, catalog, connect, failed, options, series};
use crate::crash;
use crate::projection::migration::series::Tables;
use crate::projection::migration::{Catalog, Plan, Step, Way};

/// Longest wait for a lock that others wait behind.
const BRIEF: &str = "5s";
/// Longest wait of a step that nobody waits behind: an index is valid only when older transactions have ended.
const PATIENT: &str = "30min";

/// What is migrated: whose lock is taken, and which ledger is written.
#[derive(Clone, Copy, Debug)]
pub struct Books {
    lock: &'static str,
    note: &'static str,
    done: &'static str,
}

/// The ledger's statements, about one table.
macro_rules! books {
    ($lock:literal, $ledger:literal) => {
        Books {
            lock: concat!("SELECT pg_try_advisory_lock(hashtextextended('", $lock, "', 0))"),
            note: concat!(
                "INSERT INTO ",
                $ledger,
                " (projection_type, plan_hash, step, statement, class, state, error, finished_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $6 <> 'started' THEN now() END)
                 ON CONFLICT (step) WHERE state <> 'done' DO UPDATE SET plan_hash = EXCLUDED.plan_hash,
                        statement = EXCLUDED.statement, class = EXCLUDED.class, state = EXCLUDED.state,
                        error = EXCLUDED.error, finished_at = EXCLUDED.finished_at,
                        started_at = CASE WHEN EXCLUDED.state = 'failed' THEN ",
                $ledger,
                ".started_at ELSE now() END"
            ),
            done: concat!(
                "UPDATE ",
                $ledger,
                " SET state = 'done', finished_at = now(), error = NULL
                 WHERE step = $1 AND state <> 'done'"
            ),
        }
    };
}

/// The tables of projections. (The handlers of earlier releases, which built indexes themselves, take the same lock.)
pub const PROJECTIONS: Books = books!("cornjacket indexes", "migration_ledger");
/// The tables of time series.
pub const SERIES: Books = books!("cornjacket series tables", "series_ledger");

/// A connection that migrates.
pub struct Migrator {
    connection: PgConnection,
    badge: Badge,
    books: Books,
}

/// What became of a step; the error is the database's.
pub type Taken = Result<(), String>;

impl Migrator {
    /// Connects. `badge` is that of the seat that it works for.
    pub async fn connect(database: PgConnectOptions, badge: Badge, books: Books) -> Result<Self, DatabaseError> {
        let database = options(database)
            .application_name("cornjacket migrations")
            .options([("statement_timeout", "0"), ("idle_session_timeout", "15s")]);
        let mut connection = soon(connect(&database)).await?;
        // A server that looks after its client gives up a build nobody waits for any more; one that cannot ends it later.
        let _ = sqlx::query("SET client_connection_check_interval = '2s'").execute(&mut connection).await;
        Ok(Self { connection, badge, books })
    }

    /// Lets one process at a time migrate, for as long as its connection lives; false where another does.
    pub async fn lock(&mut self) -> Result<bool, DatabaseError> {
        let taking = sqlx::query_scalar(self.books.lock).fetch_one(&mut self.connection);
        soon(async { taking.await.map_err(failed("take the lock of migrations")) }).await
    }

    /// What there is of time series.
    pub async fn series(&mut self) -> Result<Tables, DatabaseError> {
        soon(series::read(&mut self.connection)).await.map(Option::unwrap_or_default)
    }

    /// What there is of projections.
    pub async fn catalog(&mut self) -> Result<Catalog, DatabaseError> {
        soon(catalog::read(&mut self.connection)).await.map(Option::unwrap_or_default)
    }

    /// Says of a step that it is done: a process did it and died.
    pub async fn finish(&mut self, step: &str) -> Result<(), DatabaseError> {
        soon(guard::still_seated(&mut self.connection, &self.badge)).await?;
        self.mark_done(step).await
    }

    /// Takes one step. The outer error: it is not known what became of it.
    pub async fn take(&mut self, plan: &Plan, step: &Step) -> Result<Taken, DatabaseError> {
        soon(guard::still_seated(&mut self.connection, &self.badge)).await?;
        match step.way {
            Way::Transaction => self.in_transaction(plan, step).await,
            Way::Concurrently => self.concurrently(plan, step).await,
            // It is taken by registering what it is for.
            Way::Registration => Ok(Ok(())),
        }
    }

    async fn in_transaction(&mut self, plan: &Plan, step: &Step) -> Result<Taken, DatabaseError> {
        let done = async {
            let mut transaction = self.connection.begin().await?;
            set_lock_timeout(&mut transaction, BRIEF).await?;
            run(&mut transaction, &step.statement).await?;
            crash::point("migration.transaction");
            note(&mut transaction, self.books, plan, step, ("done", None)).await?;
            transaction.commit().await
        };
        let ended = done.await;
        self.settle(plan, step, ended).await
    }

    async fn concurrently(&mut self, plan: &Plan, step: &Step) -> Result<Taken, DatabaseError> {
        let started = async {
            set_lock_timeout(&mut self.connection, PATIENT).await?;
            note(&mut self.connection, self.books, plan, step, ("started", None)).await
        };
        soon(async { started.await.map_err(failed("note that a step of a migration is begun")) }).await?;
        crash::point("migration.started");
        let ended = run(&mut self.connection, &step.statement).await;
        if ended.is_ok() {
            crash::point("migration.concurrently");
            // It may have taken long. Who is seated now finds what was done.
            soon(guard::still_seated(&mut self.connection, &self.badge)).await?;
            self.mark_done(&step.name).await?;
        }
        self.settle(plan, step, ended).await
    }

    /// What the database refused is noted with its words. Of anything else the connection may be gone.
    async fn settle(
        &mut self,
        plan: &Plan,
        step: &Step,
        ended: Result<(), sqlx::Error>,
    ) -> Result<Taken, DatabaseError> {
        let words = match ended {
            Ok(()) => return Ok(Ok(())),
            Err(sqlx::Error::Database(refused)) => refused.message().to_owned(),
            Err(error) => return Err(failed("take a step of a migration")(error)),
        };
        let noting = note(&mut self.connection, self.books, plan, step, ("failed", Some(&words)));
        soon(async { noting.await.map_err(failed("note that a step of a migration failed")) }).await?;
        Ok(Err(words))
    }

    async fn mark_done(&mut self, step: &str) -> Result<(), DatabaseError> {
        let marking = sqlx::query(self.books.done).bind(step).execute(&mut self.connection);
        soon(async { marking.await.map_err(failed("note that a step of a migration is done")) }).await?;
        Ok(())
    }
}

async fn set_lock_timeout(connection: &mut PgConnection, wait: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('lock_timeout', $1, false)").bind(wait).execute(connection).await?;
    Ok(())
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    // Safe: what people wrote is in it as quoted literals.
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await?;
    Ok(())
}

/// Writes the row of a step: a new one, or that of the try before.
pub(super) async fn note(
    connection: &mut PgConnection,
    books: Books,
    plan: &Plan,
    step: &Step,
    (state, error): (&str, Option<&str>),
) -> Result<(), sqlx::Error> {
    sqlx::query(books.note)
        .bind(&plan.projection_type)
        .bind(plan.hash())
        .bind(&step.name)
        .bind(&step.statement)
        .bind(step.class.as_str())
        .bind(state)
        .bind(error)
        .execute(connection)
        .await?;
    Ok(())
}
