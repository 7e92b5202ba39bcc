//! The SQL of the outbox writers, and what an error of the database means for what was written.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::{PgBindIterExt, PgConnectOptions, PgConnection};
use sqlx::{Connection, Row as _};
use uuid::Uuid;

use super::flush::{Row, committed, key_reused};
use super::{Accepted, Entry, IdempotencyKey, Outcome, RefusedBy, Settings};

/// How long a key is remembered, in hours.
const KEY_HOURS: i32 = 24;

/// The usual statement: rows get their `seq` in the order given.
const INSERT: &str = "INSERT INTO outbox (outbox_id, event_payload, shard)
    SELECT t.id, t.envelope::jsonb, t.shard
    FROM unnest($1::uuid[], $2::text[], $3::smallint[]) WITH ORDINALITY AS t(id, envelope, shard, n)
    ORDER BY t.n";

/// The same, where an earlier attempt may have been committed.
const INSERT_AGAIN: &str = "INSERT INTO outbox (outbox_id, event_payload, shard)
    SELECT t.id, t.envelope::jsonb, t.shard
    FROM unnest($1::uuid[], $2::text[], $3::smallint[]) WITH ORDINALITY AS t(id, envelope, shard, n)
    ORDER BY t.n
    ON CONFLICT (outbox_id) DO NOTHING";

/// Keys first, in key order (so that concurrent flushes cannot deadlock), then the rows whose key was won. An expired
/// key is taken over. Answers the events whose key was won.
const INSERT_KEYED: &str = "WITH item AS MATERIALIZED (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::text[], $5::bytea[])
        WITH ORDINALITY AS t(id, envelope, shard, key, request, n)
    ), won AS (
        INSERT INTO idempotency AS i (key, request_hash, event_id, expires_at)
        SELECT key, request, id, now() + make_interval(hours => $6) FROM item WHERE key IS NOT NULL ORDER BY key
        ON CONFLICT (key) DO UPDATE
        SET request_hash = excluded.request_hash, event_id = excluded.event_id, expires_at = excluded.expires_at
        WHERE i.expires_at <= now()
        RETURNING i.event_id
    ), stored AS (
        INSERT INTO outbox (outbox_id, event_payload, shard)
        SELECT id, envelope::jsonb, shard FROM item
        WHERE key IS NULL OR id IN (SELECT event_id FROM won)
        ORDER BY n
        ON CONFLICT (outbox_id) DO NOTHING
    )
    SELECT event_id FROM won";

const KNOWN_KEYS: &str = "SELECT key, request_hash, event_id FROM idempotency WHERE key = ANY($1)";

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The database refuses what was written, whoever asks again. The connection is good.
    #[error("{0}")]
    Data(String),
    /// The database could not do it now; nothing was written. The connection is good.
    #[error("{0}")]
    NotNow(String),
    /// The connection is lost: it may have been committed.
    #[error("{0}")]
    Lost(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(said) = &error else { return Self::Lost(error.to_string()) };
        let code = said.code().unwrap_or_default();
        let text = said.message().to_owned();
        match code.as_bytes() {
            // data exception, integrity constraint violation, program limit exceeded
            [b'2', b'2' | b'3', ..] | [b'5', b'4', ..] => Self::Data(text),
            // connection exception, operator intervention (but a cancelled statement), read-only transaction
            [b'0', b'8', ..] | b"25006" => Self::Lost(text),
            [b'5', b'7', ..] if code != "57014" => Self::Lost(text),
            _ => Self::NotNow(text),
        }
    }
}

/// Opens connections.
pub(super) struct Connector {
    options: PgConnectOptions,
    connect_deadline: Duration,
    statement_deadline: Duration,
    max_clock_skew: Duration,
}

impl Connector {
    pub fn new(options: PgConnectOptions, settings: &Settings) -> Self {
        // The server ends a statement before this side stops waiting for it.
        let server_side = settings.statement_deadline.mul_f32(0.9).as_millis().to_string();
        Self {
            options: options.application_name("cornjacket outbox writer").options([("statement_timeout", server_side)]),
            connect_deadline: settings.connect_deadline,
            statement_deadline: settings.statement_deadline,
            max_clock_skew: settings.max_clock_skew,
        }
    }

    /// A connection to a database that can be written to and whose clock agrees with this machine's.
    pub async fn connect(&self) -> Result<Store, StoreError> {
        let connecting = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            let before = Utc::now();
            let row = sqlx::query("SELECT clock_timestamp() AS now, pg_is_in_recovery() AS standby")
                .fetch_one(&mut connection)
                .await?;
            Ok::<_, sqlx::Error>((connection, before, row.try_get("now")?, row.try_get("standby")?))
        };
        let (connection, before, theirs, standby): (_, _, DateTime<Utc>, bool) =
            match tokio::time::timeout(self.connect_deadline, connecting).await {
                Ok(connected) => connected.map_err(|e| StoreError::Lost(e.to_string()))?,
                Err(_) => return Err(StoreError::Lost(format!("no connection within {:?}", self.connect_deadline))),
            };
        if standby {
            return Err(StoreError::Lost("the database is a standby and takes no writes".to_owned()));
        }
        let skew = clock_skew(before, Utc::now(), theirs);
        if skew.abs().to_std().unwrap_or(Duration::MAX) > self.max_clock_skew {
            return Err(StoreError::Lost(format!(
                "this machine's clock differs from the database's by {} ms (limit {} ms): set the clocks",
                skew.num_milliseconds(),
                self.max_clock_skew.as_millis()
            )));
        }
        Ok(Store { connection, deadline: self.statement_deadline })
    }
}

/// How far the database's clock is ahead, at least: the time within `before..=after` that is nearest to `theirs`.
fn clock_skew(before: DateTime<Utc>, after: DateTime<Utc>, theirs: DateTime<Utc>) -> TimeDelta {
    theirs - theirs.clamp(before, after.max(before))
}

/// A connection that writes.
pub(super) struct Store {
    connection: PgConnection,
    deadline: Duration,
}

impl Store {
    /// Writes rows in one statement. `again`: an earlier attempt may have been committed.
    pub async fn insert(&mut self, rows: &[&Entry], again: bool, transaction: bool) -> Result<Vec<Row>, StoreError> {
        let deadline = self.deadline;
        let work = async {
            if rows.iter().all(|e| e.key.is_none()) {
                self.insert_plain(rows, again).await
            } else if transaction {
                self.insert_in_transaction(rows).await
            } else {
                insert_keyed(&mut self.connection, rows).await
            }
        };
        match tokio::time::timeout(deadline, work).await {
            Ok(done) => done.map_err(StoreError::from),
            Err(_) => Err(StoreError::Lost(format!("no answer within {deadline:?}"))),
        }
    }

    async fn insert_plain(&mut self, rows: &[&Entry], again: bool) -> Result<Vec<Row>, sqlx::Error> {
        sqlx::query(if again || rows.iter().any(|e| e.again) { INSERT_AGAIN } else { INSERT })
            .bind(rows.iter().map(|e| e.event_id).bind_iter())
            .bind(rows.iter().map(|e| e.envelope.as_str()).bind_iter())
            .bind(rows.iter().map(|e| e.shard).bind_iter())
            .execute(&mut self.connection)
            .await?;
        Ok(vec![Row::Stored; rows.len()])
    }

    async fn insert_in_transaction(&mut self, rows: &[&Entry]) -> Result<Vec<Row>, sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        let answers = insert_keyed(&mut transaction, rows).await?;
        if committed(&answers) {
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        Ok(answers)
    }

    /// Whether the connection still lives.
    pub async fn ping(&mut self) -> Result<(), StoreError> {
        match tokio::time::timeout(self.deadline, self.connection.ping()).await {
            Ok(done) => done.map_err(|e| StoreError::Lost(e.to_string())),
            Err(_) => Err(StoreError::Lost(format!("no answer within {:?}", self.deadline))),
        }
    }

    pub async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.connection.close()).await;
    }
}

/// Writes one row in the transaction of the caller.
///
/// # Errors
/// The database's; those about the data as well.
pub async fn write_one(connection: &mut PgConnection, entry: &Entry) -> Result<Outcome, sqlx::Error> {
    if entry.key.is_none() {
        sqlx::query(INSERT)
            .bind([entry.event_id])
            .bind([entry.envelope.as_str()])
            .bind([entry.shard])
            .execute(connection)
            .await?;
        return Ok(Ok(Accepted { event_id: entry.event_id, repeated: false }));
    }
    let answers = insert_keyed(connection, &[entry]).await?;
    Ok(match answers.first() {
        Some(Row::Before(event_id)) => Ok(Accepted { event_id: *event_id, repeated: true }),
        Some(Row::OtherRequest) => Err(key_reused(entry)),
        Some(Row::Gone) => Err(RefusedBy::Unavailable("its idempotency key was just forgotten".to_owned())),
        Some(Row::Stored) | None => Ok(Accepted { event_id: entry.event_id, repeated: false }),
    })
}

async fn insert_keyed(connection: &mut PgConnection, rows: &[&Entry]) -> Result<Vec<Row>, sqlx::Error> {
    let won: Vec<Uuid> = sqlx::query_scalar(INSERT_KEYED)
        .bind(rows.iter().map(|e| e.event_id).bind_iter())
        .bind(rows.iter().map(|e| e.envelope.as_str()).bind_iter())
        .bind(rows.iter().map(|e| e.shard).bind_iter())
        .bind(rows.iter().map(|e| e.key.as_ref().map(IdempotencyKey::as_str)).bind_iter())
        .bind(rows.iter().map(|e| e.key.as_ref().map(|k| k.request.as_slice())).bind_iter())
        .bind(KEY_HOURS)
        .fetch_all(&mut *connection)
        .await?;
    let lost = |e: &&&Entry| e.key.is_some() && !won.contains(&e.event_id);
    let lost: Vec<&str> = rows.iter().filter(lost).filter_map(|e| e.key.as_ref()).map(IdempotencyKey::as_str).collect();
    if lost.is_empty() {
        return Ok(vec![Row::Stored; rows.len()]);
    }
    let known: Vec<(String, Vec<u8>, Uuid)> =
        sqlx::query_as(KNOWN_KEYS).bind(lost.into_iter().bind_iter()).fetch_all(connection).await?;
    Ok(rows.iter().map(|e| answer(e, &won, &known)).collect())
}

fn answer(entry: &Entry, won: &[Uuid], known: &[(String, Vec<u8>, Uuid)]) -> Row {
    let Some(key) = &entry.key else { return Row::Stored };
    if won.contains(&entry.event_id) {
        return Row::Stored;
    }
    match known.iter().find(|(stored, _, _)| stored == key.as_str()) {
        None => Row::Gone,
        Some((_, request, event_id)) if *request == key.request => Row::Before(*event_id),
        Some(_) => Row::OtherRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_skew() {
        let at = |ms: i64| DateTime::from_timestamp_millis(1_700_000_000_000 + ms).expect("in range");
        assert_eq!(clock_skew(at(0), at(900), at(450)), TimeDelta::zero());
        assert_eq!(clock_skew(at(0), at(10), at(60)), TimeDelta::milliseconds(50));
        assert_eq!(clock_skew(at(0), at(10), at(-60)), TimeDelta::milliseconds(-60));
    }
}
