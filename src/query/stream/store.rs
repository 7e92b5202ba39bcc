//! Reads what is new for a stream. Nothing here writes.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder, Row};

use super::snapshot::{Scan, Seen, Snapshot, Xid};
use crate::query::store::{self, Projection, Selection, push_conditions, push_scope, push_selection};

/// Bytes of states in a page, about; one row may have more.
pub const BYTES: i64 = 8 * 1024 * 1024;
/// Transactions of the log in a page, at most.
const TRANSACTIONS: i64 = 50;

/// A page of a stream, and what it was read under.
#[derive(Debug)]
pub struct Page<T> {
    /// Of which database the transactions' numbers are, and since which crash. `None`: nothing was written since the last.
    pub identity: Option<String>,
    pub now: Snapshot,
    /// Rows read, and bytes of their states. The database knows compressed sizes only, so a page may be more than asked for.
    pub weight: (usize, usize),
    pub rows: T,
}

/// What the log says is due.
#[derive(Debug)]
pub struct Changes {
    /// The log no longer tells of transactions up to this one.
    pub forgotten: Option<Xid>,
    /// Where the page ends before the log does: its last transaction.
    pub to: Option<Xid>,
    /// Ordered by (transaction, aggregate id).
    pub due: Vec<(Xid, Projection)>,
    /// The page is full before the end of its last transaction.
    pub cut: bool,
}

/// What a scan finds.
#[derive(Debug)]
pub struct Scanned {
    /// Every key looked at, and what it holds where that is due.
    pub rows: Vec<(String, Option<Projection>)>,
    /// There are no more.
    pub end: bool,
}

/// The snapshot of the statement and the database's identity.
const NOW: &str = "WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot,
       (SELECT system_identifier::text FROM pg_control_system()) || '/' ||
       (SELECT oid::text FROM pg_database WHERE datname = current_database()) || '/' ||
       (SELECT epoch::text FROM projection_epoch) AS identity)";

const ROW: &str =
    "p.projection_id, p.projection_type, p.aggregate_id, p.state, p.last_event_id, p.last_event_timestamp,
       p.updated_at, p.changed_by";

/// What is not in `seen` by the log: of as many transactions as wrote about `limit` rows.
pub async fn changes(pool: &PgPool, selection: &Selection, seen: &Seen, limit: i64) -> sqlx::Result<Page<Changes>> {
    let mut query = QueryBuilder::new(NOW);
    push_candidates(&mut query, selection, seen);
    query.push(
        " SELECT now.snapshot::text AS snapshot, now.identity,
                 (SELECT f.changed_by::text FROM projection_changes f WHERE f.keys IS NULL AND f.projection_type = ",
    );
    query.push_bind(selection.projection_type.clone());
    query.push(" ORDER BY f.changed_by DESC LIMIT 1) AS forgotten, (SELECT CASE WHEN count(*) = ");
    query.push_bind(TRANSACTIONS).push(" OR bool_or(c.before >= ").push_bind(limit);
    query.push(") THEN max(c.number) FILTER (WHERE c.before < ").push_bind(limit);
    query.push(
        ") END::text FROM candidates c) AS last, due.changed_by::text AS writer, due.* FROM now LEFT JOIN LATERAL (",
    );
    push_page(&mut query, "d.changed_by, d.aggregate_id");
    query.push("SELECT ").push(ROW).push(" FROM candidates c CROSS JOIN LATERAL (SELECT p.* FROM projections p WHERE ");
    push_selection(&mut query, selection);
    query
        .push(" AND p.aggregate_id = ANY(c.keys) AND p.changed_by = c.changed_by) p WHERE c.before < ")
        .push_bind(limit);
    let (xids, keys) = partial(seen);
    query.push(" AND NOT EXISTS (SELECT FROM unnest(").push_bind(xids).push("::text[], ").push_bind(keys);
    query.push("::text[]) AS had (xid, key) WHERE had.xid::xid8 = c.changed_by AND p.aggregate_id <= had.key)");
    query.push(" ORDER BY p.changed_by, p.aggregate_id LIMIT ").push_bind(limit);
    push_page_end(&mut query);
    query.push(") due ON true ORDER BY due.changed_by, due.aggregate_id");
    let found = query.build().fetch_all(pool).await?;
    let (identity, now, first) = read_head(&found)?;
    let mut rows = Changes {
        forgotten: read_xid(first, "forgotten")?,
        to: read_xid(first, "last")?,
        due: Vec::new(),
        cut: is_cut(&found, limit)?,
    };
    for row in &found {
        if let Some(changed_by) = read_xid(row, "writer")? {
            rows.due.push((changed_by, Projection::from_row(row)?));
        }
    }
    Ok(Page { identity, now, weight: weigh(&found)?, rows })
}

fn weigh(rows: &[PgRow]) -> sqlx::Result<(usize, usize)> {
    let mut bytes = 0;
    for row in rows {
        bytes += row.try_get_raw("state")?.as_bytes().map_or(0, <[u8]>::len);
    }
    Ok((rows.len(), bytes))
}

/// Before a page's rows, which are in this order: of as many as its limit takes, those that are not too many bytes.
/// `found`: how many the limit took.
fn push_page(query: &mut QueryBuilder<Postgres>, order: &str) {
    query.push("SELECT * FROM (SELECT d.*, count(*) OVER () AS found, sum(pg_column_size(d.state)) OVER (ORDER BY ");
    query.push(order).push(") - pg_column_size(d.state) AS bytes_before FROM (");
}

/// Behind a page's rows.
fn push_page_end(query: &mut QueryBuilder<Postgres>) {
    query.push(") d) d WHERE d.bytes_before < ").push_bind(BYTES);
}

/// Whether there may be more rows than are in a page.
fn is_cut(rows: &[PgRow], limit: i64) -> sqlx::Result<bool> {
    let found: Option<i64> = rows.first().map(|row| row.try_get("found")).transpose()?.flatten();
    Ok(found.is_some_and(|found| found >= limit || usize::try_from(found).is_ok_and(|found| found > rows.len())))
}

/// Entries of the log that are not in `seen`, each with the number of rows written before it.
fn push_candidates(query: &mut QueryBuilder<Postgres>, selection: &Selection, seen: &Seen) {
    let again: Vec<Xid> = seen.open.iter().chain(seen.partial.iter().map(|(xid, _)| xid)).copied().collect();
    let lowest = again.iter().fold(seen.through, |lowest, xid| lowest.min(*xid));
    query.push(
        ", candidates AS MATERIALIZED (
           SELECT c.changed_by, c.changed_by::text::numeric AS number, c.keys,
                  sum(cardinality(c.keys)) OVER (ORDER BY c.changed_by) - cardinality(c.keys) AS before
             FROM (SELECT l.changed_by, l.keys FROM projection_changes l, now WHERE l.projection_type = ",
    );
    query.push_bind(selection.projection_type.clone());
    query.push(" AND l.changed_by >= ").push_bind(lowest.to_string()).push("::text::xid8");
    query.push(" AND l.changed_by < pg_snapshot_xmax(now.snapshot) AND (l.changed_by >= ");
    query.push_bind(seen.through.to_string()).push("::text::xid8 OR l.changed_by = ANY(");
    query.push_bind(texts(&again)).push("::text[]::xid8[])) ORDER BY l.changed_by LIMIT ").push_bind(TRANSACTIONS);
    query.push(") c)");
}

/// The next rows of a scan by their keys, at most `limit`, each with what it holds where it is due: written by a
/// transaction that is in `scan.until`, and not in `seen`. With `within`, only rows that match the selection's filters are
/// looked at, and the server ends that after this time where there are filters; without, rows are looked at whether they
/// match or not, so that the pages of rare ones end too.
pub async fn scan(
    pool: &PgPool,
    selection: &Selection,
    seen: &Seen,
    scan: &Scan,
    limit: i64,
    within: Option<Duration>,
) -> sqlx::Result<Page<Scanned>> {
    let mut query = QueryBuilder::new(NOW);
    query.push(" SELECT now.snapshot::text AS snapshot, now.identity, p.* FROM now LEFT JOIN LATERAL (");
    push_page(&mut query, "d.aggregate_id");
    query
        .push("SELECT ")
        .push(ROW)
        .push(", (p.changed_by >= ")
        .push_bind(seen.through.to_string())
        .push("::text::xid8 OR p.changed_by = ANY(");
    query.push_bind(texts(&seen.open)).push("::text[]::xid8[]) OR EXISTS (SELECT FROM unnest(");
    let (xids, keys) = partial(seen);
    query.push_bind(xids).push("::text[], ").push_bind(keys);
    query.push("::text[]) AS had (xid, key) WHERE had.xid::xid8 = p.changed_by AND p.aggregate_id > had.key)) AND p.changed_by < ");
    query.push_bind(scan.until.through.to_string()).push("::text::xid8 AND p.changed_by <> ALL(");
    query.push_bind(texts(&scan.until.open)).push("::text[]::xid8[])");
    if within.is_none() {
        query.push(" AND coalesce(true");
        push_conditions(&mut query, selection);
        query.push(", false)");
    }
    query.push(" AS due FROM projections p WHERE ");
    push_scope(&mut query, selection);
    if within.is_some() {
        push_conditions(&mut query, selection);
    }
    query.push(" AND p.aggregate_id > ").push_bind(scan.after.clone());
    query.push(" ORDER BY p.aggregate_id LIMIT ").push_bind(limit);
    push_page_end(&mut query);
    query.push(") p ON true ORDER BY p.aggregate_id");
    let found = match within.filter(|_| !selection.conditions.is_empty()) {
        None => query.build().fetch_all(pool).await?,
        Some(time) => {
            let mut transaction = store::within(pool, time).await?;
            let found = query.build().persistent(false).fetch_all(&mut *transaction).await?;
            transaction.commit().await?;
            found
        }
    };
    let (identity, now, _) = read_head(&found)?;
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        if let Some(key) = row.try_get::<Option<String>, _>("aggregate_id")? {
            rows.push((key, if row.try_get("due")? { Some(Projection::from_row(row)?) } else { None }));
        }
    }
    Ok(Page { identity, now, weight: weigh(&found)?, rows: Scanned { rows, end: !is_cut(&found, limit)? } })
}

fn texts(xids: &[Xid]) -> Vec<String> {
    xids.iter().map(Xid::to_string).collect()
}

fn partial(seen: &Seen) -> (Vec<String>, Vec<String>) {
    seen.partial.iter().map(|(xid, key)| (xid.to_string(), key.clone())).unzip()
}

fn read_head(rows: &[PgRow]) -> sqlx::Result<(Option<String>, Snapshot, &PgRow)> {
    let unreadable = |text: String| sqlx::Error::Decode(format!("'{text}' is no snapshot").into());
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let text: String = first.try_get("snapshot")?;
    let now = Snapshot::parse(&text).ok_or_else(|| unreadable(text))?;
    Ok((first.try_get("identity")?, now, first))
}

fn read_xid(row: &PgRow, column: &str) -> sqlx::Result<Option<Xid>> {
    let text = row.try_get::<Option<String>, _>(column)?;
    text.map(|text| text.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))).transpose()
}

/// Whether the database is a standby, where transactions have no numbers of their own.
pub async fn is_standby(pool: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(pool).await
}
