//! Reads what is new for a stream. Nothing here writes.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder, Row};

use super::snapshot::{Scan, Seen, Snapshot, Xid};
use crate::query::store::{Projection, Selection, push_selection};

/// Transactions of the log in a page, at most.
const TRANSACTIONS: i64 = 50;

/// A page of a stream, and what it was read under.
#[derive(Debug)]
pub struct Page<T> {
    /// Of which database the transactions' numbers are, and since which crash. `None`: nothing was written since the last.
    pub identity: Option<String>,
    pub now: Snapshot,
    pub rows: T,
}

/// What the log says is due.
#[derive(Debug)]
pub struct Changes {
    /// The log no longer tells of transactions up to this one.
    pub forgotten: Option<Xid>,
    /// Where the page ends before the log does: its last transaction.
    pub to: Option<Xid>,
    /// Ordered by (transaction, aggregate id); all that is due of each transaction.
    pub due: Vec<(Xid, Projection)>,
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
    query.push(") END::text FROM candidates c) AS last, due.changed_by::text AS writer, due.* FROM now LEFT JOIN LATERAL (SELECT ");
    query.push(ROW).push(" FROM candidates c CROSS JOIN LATERAL (SELECT p.* FROM projections p WHERE ");
    push_selection(&mut query, selection);
    query
        .push(" AND p.aggregate_id = ANY(c.keys) AND p.changed_by = c.changed_by) p WHERE c.before < ")
        .push_bind(limit);
    let (xids, keys) = partial(seen);
    query.push(" AND NOT EXISTS (SELECT FROM unnest(").push_bind(xids).push("::text[], ").push_bind(keys);
    query.push("::text[]) AS had (xid, key) WHERE had.xid::xid8 = c.changed_by AND p.aggregate_id <= had.key)");
    query.push(") due ON true ORDER BY due.changed_by, due.aggregate_id");
    let found = query.build().fetch_all(pool).await?;
    let (identity, now, first) = read_head(&found)?;
    let mut rows = Changes { forgotten: read_xid(first, "forgotten")?, to: read_xid(first, "last")?, due: Vec::new() };
    for row in &found {
        if let Some(changed_by) = read_xid(row, "writer")? {
            rows.due.push((changed_by, Projection::from_row(row)?));
        }
    }
    Ok(Page { identity, now, rows })
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

/// The next `limit` rows of a scan by their keys, each with what it holds where it is due: written by a transaction
/// that is in `scan.until`, and not in `seen`.
pub async fn scan(
    pool: &PgPool,
    selection: &Selection,
    seen: &Seen,
    scan: &Scan,
    limit: i64,
) -> sqlx::Result<Page<Vec<(String, Option<Projection>)>>> {
    let mut query = QueryBuilder::new(NOW);
    query.push(" SELECT now.snapshot::text AS snapshot, now.identity, p.* FROM now LEFT JOIN LATERAL (SELECT ");
    query
        .push(ROW)
        .push(", (p.changed_by >= ")
        .push_bind(seen.through.to_string())
        .push("::text::xid8 OR p.changed_by = ANY(");
    query.push_bind(texts(&seen.open)).push("::text[]::xid8[]) OR EXISTS (SELECT FROM unnest(");
    let (xids, keys) = partial(seen);
    query.push_bind(xids).push("::text[], ").push_bind(keys);
    query.push("::text[]) AS had (xid, key) WHERE had.xid::xid8 = p.changed_by AND p.aggregate_id > had.key)) AND p.changed_by < ");
    query.push_bind(scan.until.through.to_string()).push("::text::xid8 AND p.changed_by <> ALL(");
    query.push_bind(texts(&scan.until.open)).push("::text[]::xid8[]) AS due FROM projections p WHERE ");
    push_selection(&mut query, selection);
    query.push(" AND p.aggregate_id > ").push_bind(scan.after.clone());
    query.push(" ORDER BY p.aggregate_id LIMIT ").push_bind(limit).push(") p ON true ORDER BY p.aggregate_id");
    let found = query.build().fetch_all(pool).await?;
    let (identity, now, _) = read_head(&found)?;
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        if let Some(key) = row.try_get::<Option<String>, _>("aggregate_id")? {
            rows.push((key, if row.try_get("due")? { Some(Projection::from_row(row)?) } else { None }));
        }
    }
    Ok(Page { identity, now, rows })
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
