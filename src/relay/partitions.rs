//! Partitions of the event store: one a day, on the UUID v7 key, made ahead and dropped after retention.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::store;

/// How many days ahead partitions are made.
pub const AHEAD: u64 = 2;

/// The smallest UUID v7 of a day (UTC): its first 48 bits are milliseconds since 1970, the rest is zero.
pub fn first_id(day: NaiveDate) -> Uuid {
    let millis = day.and_time(NaiveTime::MIN).and_utc().timestamp_millis();
    Uuid::from_u128(u128::from(u64::try_from(millis).unwrap_or(0)) << 80)
}

/// Name of a day's partition.
pub fn name(day: NaiveDate) -> String {
    format!("event_store_{}", day.format("%Y%m%d"))
}

/// The day of a partition's name; `None` for other tables.
pub fn day(name: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(name.strip_prefix("event_store_")?, "%Y%m%d").ok()
}

/// Makes the partitions of days that are missing. Several processes may do so at the same time.
pub async fn make(connection: &mut PgConnection, days: &[NaiveDate]) -> Result<usize, sqlx::Error> {
    let mut made = 0;
    for day in days {
        let Some(next) = day.checked_add_days(Days::new(1)) else { continue };
        let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(name(*day))
            .fetch_one(&mut *connection)
            .await?;
        if exists {
            continue;
        }
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {} PARTITION OF event_store FOR VALUES FROM ('{}') TO ('{}')",
            name(*day),
            first_id(*day),
            first_id(next)
        );
        let mut tx = connection.begin().await?;
        // Whoever comes after it would wait too.
        sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *tx).await?;
        // Safe: made of a date only.
        match sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await {
            Ok(_) => {
                tx.commit().await?;
                made += 1;
            }
            // Another process was faster.
            Err(sqlx::Error::Database(e)) if matches!(e.code().as_deref(), Some("42P07" | "23505" | "42710")) => {
                tx.rollback().await?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(made)
}

/// Makes the partitions of today and the days ahead.
pub async fn make_ahead(connection: &mut PgConnection, now: DateTime<Utc>) -> Result<usize, sqlx::Error> {
    let today = now.date_naive();
    // Yesterday too: an event accepted before midnight may be stored after it.
    let first = today.checked_sub_days(Days::new(1)).unwrap_or(today);
    let days: Vec<_> = (0..=AHEAD + 1).filter_map(|n| first.checked_add_days(Days::new(n))).collect();
    make(connection, &days).await
}

/// Makes the partitions that rows waiting in the outbox need. An id whose time is far from now is nobody's event: it
/// gets no partition, and its row goes to the dead letters.
pub async fn make_missing(pool: &PgPool, now: DateTime<Utc>) -> Result<usize, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut days = store::days_waiting(&mut connection).await?;
    days.retain(|day| believable(*day, now.date_naive()));
    make(&mut connection, &days).await
}

/// Makes the partition that an event of this id needs, as [`make_missing`] does.
pub async fn make_for(pool: &PgPool, event_id: Uuid, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let millis = i64::try_from(event_id.as_u128() >> 80).unwrap_or(i64::MAX);
    let day = DateTime::from_timestamp_millis(millis).map(|at| at.date_naive());
    let Some(day) = day.filter(|day| believable(*day, now.date_naive())) else { return Ok(()) };
    make(&mut *pool.acquire().await?, &[day]).await.map(drop)
}

fn believable(day: NaiveDate, today: NaiveDate) -> bool {
    let days_off = (day - today).num_days();
    (-90..=2).contains(&days_off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_days_ids_lie_between_its_bounds() {
        let day = NaiveDate::from_ymd_opt(2026, 3, 1).expect("a date");
        let noon = day.and_hms_opt(12, 0, 0).expect("a time").and_utc();
        let stamp =
            uuid::Timestamp::from_unix(uuid::NoContext, u64::try_from(noon.timestamp()).expect("after 1970"), 0);
        let id = Uuid::new_v7(stamp);
        assert!(first_id(day) <= id && id < first_id(day.succ_opt().expect("a day")));
    }

    #[test]
    fn ids_of_another_age_get_no_partition() {
        let today = NaiveDate::from_ymd_opt(2026, 3, 1).expect("a date");
        assert!(believable(today, today));
        assert!(believable(today - Days::new(30), today));
        assert!(!believable(today + Days::new(3), today));
        assert!(!believable(NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date"), today));
    }

    #[test]
    fn names_and_days_agree() {
        let day_ = NaiveDate::from_ymd_opt(2026, 12, 31).expect("a date");
        assert_eq!(name(day_), "event_store_20261231");
        assert_eq!(day("event_store_20261231"), Some(day_));
        assert_eq!(day("event_store_reader"), None);
    }
}
