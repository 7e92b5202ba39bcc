//! Tells those who work for a seat elsewhere, on connections of their own or at the broker, whether it is still theirs: a
//! process that was frozen, and replaced meanwhile, is to change nothing when it wakes up.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use super::{DatabaseError, LOCK, Seat, connect, failed, options};

/// Longest wait for an answer that is due at once.
const ANSWER: Duration = Duration::from_secs(10);

/// Tells the session of one seat from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Badge {
    namespace: String,
    pid: i32,
    /// When the session began.
    since: String,
}

impl Seat {
    /// For those who work for this seat.
    pub async fn badge(&mut self) -> Result<Badge, DatabaseError> {
        let (pid, since): (i32, String) = sqlx::query_as(
            "SELECT pid, extract(epoch FROM backend_start)::text FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed("ask which session this is"))?;
        Ok(Badge { namespace: self.namespace.clone(), pid, since })
    }
}

/// Asks from a connection of its own.
pub struct Guard {
    database: PgConnectOptions,
    badge: Badge,
    /// Made when it is first asked, and anew after a failure.
    connection: Option<PgConnection>,
}

impl Guard {
    /// `database` is that of the seat.
    pub fn new(database: PgConnectOptions, badge: Badge) -> Self {
        let database = options(database).application_name("cornjacket controllers, guard");
        Self { database, badge, connection: None }
    }

    /// # Errors
    /// The seat is lost, or it cannot be told: change nothing.
    pub async fn still_seated(&mut self) -> Result<(), DatabaseError> {
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            soon(connect(&self.database)).await?
        };
        soon(still_seated(&mut connection, &self.badge)).await?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// The lock that the seat holds, held by that very session: who lost it is not to go on.
pub(super) async fn still_seated(connection: &mut PgConnection, badge: &Badge) -> Result<(), DatabaseError> {
    let seated: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
          WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1::bigint::oid
            AND l.objid = (hashtext($2)::bigint & 4294967295)::oid
            AND l.pid = $3 AND extract(epoch FROM a.backend_start)::text = $4)",
    )
    .bind(i64::from(LOCK))
    .bind(&badge.namespace)
    .bind(badge.pid)
    .bind(&badge.since)
    .fetch_one(connection)
    .await
    .map_err(failed("ask whether the lock is still held"))?;
    if seated { Ok(()) } else { Err(DatabaseError::SeatLost) }
}

/// An answer that is due at once.
pub(super) async fn soon<T>(step: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, DatabaseError> {
    timeout(ANSWER, step).await.unwrap_or(Err(DatabaseError::Silent(ANSWER)))
}
