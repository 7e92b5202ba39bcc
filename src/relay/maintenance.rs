//! Upkeep of the ingestion database: partitions ahead, partitions past their retention, expired idempotency keys.
//! Every relay tries; an advisory lock lets one do it at a time.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, Utc};
use metrics::{counter, gauge};
use rand::RngExt;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::partitions;
use crate::database::within;
use crate::event::SHARDS;

/// How often; each relay waits up to a quarter longer, by chance.
const EVERY: Duration = Duration::from_mins(1);
/// Of one round.
const DEADLINE: Duration = Duration::from_mins(10);
/// Expired idempotency keys deleted in one round.
const SWEEP: i64 = 50_000;
/// Most such statements in one round: more than can be accepted in the time between two.
const SWEEPS: usize = 100;

/// Keeps the ingestion database in order until stopped.
pub struct Maintenance {
    pub pool: PgPool,
    pub retention: Duration,
    pub drop_unread: bool,
}

impl Maintenance {
    pub async fn run(self, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        loop {
            if let Err(error) = within(DEADLINE, self.round(Utc::now())).await {
                warn!(%error, "maintenance of the event store failed: trying again in a minute");
            }
            let pause = EVERY + Duration::from_millis(rand::rng().random_range(0..15_000));
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// One round, if no other relay is at it. The lock is a session's own; each part commits by itself, and waits only
    /// briefly for tables that others use, since whoever comes after it would wait too.
    pub async fn round(&self, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
        let mut lock = self.pool.begin().await?;
        let mine: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended('cornjacket maintenance', 0))")
                .fetch_one(&mut *lock)
                .await?;
        if mine {
            let longer = (DEADLINE + EVERY).as_millis().to_string();
            sqlx::query("SELECT set_config('idle_in_transaction_session_timeout', $1, true)")
                .bind(longer)
                .execute(&mut *lock)
                .await?;
            let mut connection = self.pool.acquire().await?;
            let made = partitions::make_ahead(&mut connection, now).await?;
            if made > 0 {
                info!(made, "made {made} partition(s) of the event store ahead");
            }
            for _ in 0..SWEEPS {
                if sweep_idempotency(&mut connection).await? < SWEEP {
                    break;
                }
            }
            measure(&mut connection).await?;
            drop(connection);
            let mut tx = self.brief().await?;
            self.drop_old(&mut tx, now).await?;
            tx.commit().await?;
        }
        lock.commit().await
    }

    async fn brief(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.pool.begin_with("BEGIN; SET LOCAL lock_timeout = '2s'").await
    }

    async fn drop_old(&self, connection: &mut PgConnection, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
              WHERE i.inhparent = 'event_store'::regclass ORDER BY 1",
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut kept = 0_u32;
        for name in past_retention(&names, self.retention, now) {
            if !self.drop_unread && !is_read(connection, &name).await? {
                kept += 1;
                warn!(partition = %name, "a partition past its retention is kept: a reader has not read all of it");
                continue;
            }
            // Safe: the name was parsed as a date and comes from the catalogue.
            sqlx::query(AssertSqlSafe(format!("DROP TABLE {name}"))).execute(&mut *connection).await?;
            counter!("cornjacket_event_store_partitions_dropped_total").increment(1);
            info!(partition = %name, "dropped a partition past its retention");
        }
        gauge!("cornjacket_event_store_partitions_kept_unread").set(f64::from(kept));
        Ok(())
    }
}

/// The partitions all of whose events are older than the retention.
fn past_retention(names: &[String], retention: Duration, now: DateTime<Utc>) -> Vec<String> {
    let over = |day: NaiveDate| {
        day.checked_add_days(Days::new(1))
            .and_then(|end| end.and_hms_opt(0, 0, 0))
            .is_some_and(|end| (now - end.and_utc()).to_std().is_ok_and(|age| age > retention))
    };
    names.iter().filter(|name| partitions::day(name).is_some_and(over)).cloned().collect()
}

/// Whether every registered reader is past the last position of each shard in the partition.
async fn is_read(connection: &mut PgConnection, partition: &str) -> Result<bool, sqlx::Error> {
    // Safe: the name was parsed as a date and comes from the catalogue.
    let sql = format!(
        "SELECT NOT EXISTS (SELECT FROM event_store_reader r
           CROSS JOIN LATERAL (SELECT s.shard, (SELECT e.position FROM {partition} e WHERE e.shard = s.shard
                                                ORDER BY e.position DESC LIMIT 1) AS last
                                 FROM generate_series(0, {SHARDS} - 1) AS s (shard)) p
          WHERE r.positions[p.shard + 1] < p.last)"
    );
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await
}

async fn sweep_idempotency(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM idempotency WHERE key IN (
           SELECT key FROM idempotency WHERE expires_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED)",
    )
    .bind(SWEEP)
    .execute(connection)
    .await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(SWEEP))
}

/// Backlog of the outbox; rows beyond 100 000 are not counted.
async fn measure(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (rows, oldest): (i64, Option<f64>) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) o),
                (SELECT extract(epoch FROM now() - created_at)::float8 FROM outbox ORDER BY created_at LIMIT 1)",
    )
    .fetch_one(connection)
    .await?;
    #[expect(clippy::cast_precision_loss, reason = "at most 100 000")]
    gauge!("cornjacket_outbox_rows").set(rows as f64);
    gauge!("cornjacket_outbox_oldest_seconds").set(oldest.unwrap_or(0.0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_past_retention_when_its_youngest_event_is() {
        let now = NaiveDate::from_ymd_opt(2026, 3, 10).and_then(|d| d.and_hms_opt(12, 0, 0)).expect("a time").and_utc();
        let names = ["event_store_20260301", "event_store_20260302", "event_store_20260303", "event_store_reader"]
            .map(str::to_owned);
        let week = Duration::from_hours(7 * 24);
        assert_eq!(past_retention(&names, week, now), ["event_store_20260301", "event_store_20260302"]);
    }
}
