//! Reads what is new for a stream. Nothing here writes.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder, Row};

use super::snapshot::{Seen, Snapshot, Xid};
use crate::query::store::{Projection, Selection, push_selection};

/// What a statement found due for a stream.
#[derive(Debug)]
pub struct Due {
    pub now: Snapshot,
    /// The highest transaction that wrote a visible row of the projection.
    pub highest: Option<Xid>,
    /// Ordered by (transaction, aggregate id).
    pub rows: Vec<(Xid, Projection)>,
}

/// Up to `limit` rows that are not in `seen`, with the snapshot they were read under.
pub async fn due(pool: &PgPool, selection: &Selection, seen: &Seen, limit: i64) -> sqlx::Result<Due> {
    let mut query = QueryBuilder::new(
        "WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot)
         SELECT now.snapshot::text AS snapshot,
                (SELECT m.changed_by::text FROM projections m, now WHERE m.projection_type = ",
    );
    query.push_bind(selection.projection_type.clone());
    query.push(
        " AND m.changed_by < pg_snapshot_xmax(now.snapshot)
            ORDER BY m.changed_by DESC LIMIT 1) AS highest,
          due.changed_by::text AS changed_by, due.projection_id, due.projection_type, due.aggregate_id, due.state,
          due.last_event_id, due.last_event_timestamp, due.updated_at
          FROM now LEFT JOIN LATERAL (SELECT * FROM (",
    );
    push_branches(&mut query, selection, seen, limit);
    query.push(") branches ORDER BY changed_by, aggregate_id LIMIT ").push_bind(limit);
    query.push(") due ON true ORDER BY due.changed_by, due.aggregate_id");
    read_due(&query.build().fetch_all(pool).await?)
}

/// What is not in `seen`: everything from `through` on, the open transactions, and the rest of those had in part.
fn push_branches(query: &mut QueryBuilder<Postgres>, selection: &Selection, seen: &Seen, limit: i64) {
    push_branch(query, selection, limit, |query| {
        query.push(" AND p.changed_by >= ").push_bind(seen.through.to_string()).push("::text::xid8");
        query.push(" AND p.changed_by < pg_snapshot_xmax(now.snapshot)");
    });
    let open: Vec<String> = seen.open.iter().map(Xid::to_string).collect();
    // Ranges rather than equality: only they keep a plan on the index whose order is asked for.
    if !open.is_empty() {
        query.push(" UNION ALL (SELECT p.* FROM unnest(").push_bind(open);
        query.push("::text[]) AS o (xid) CROSS JOIN LATERAL ");
        push_branch(query, selection, limit, |query| {
            query.push(" AND p.changed_by >= o.xid::xid8 AND p.changed_by <= o.xid::xid8");
        });
        query.push(" p)");
    }
    for (xid, key) in &seen.partial {
        query.push(" UNION ALL ");
        push_branch(query, selection, limit, |query| {
            query.push(" AND (p.changed_by, p.aggregate_id) > (").push_bind(xid.to_string()).push("::text::xid8, ");
            query.push_bind(key.clone()).push(") AND p.changed_by <= ").push_bind(xid.to_string()).push("::text::xid8");
        });
    }
}

/// One source of due rows; each follows the index on (projection_type, changed_by, aggregate_id).
fn push_branch(
    query: &mut QueryBuilder<Postgres>,
    selection: &Selection,
    limit: i64,
    which: impl FnOnce(&mut QueryBuilder<Postgres>),
) {
    query.push("(SELECT p.* FROM projections p WHERE ");
    push_selection(query, selection);
    which(query);
    query.push(" ORDER BY p.changed_by, p.aggregate_id LIMIT ").push_bind(limit).push(")");
}

fn read_due(rows: &[PgRow]) -> sqlx::Result<Due> {
    let unreadable = |text: String| sqlx::Error::Decode(format!("'{text}' is no snapshot").into());
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let text: String = first.try_get("snapshot")?;
    let now = Snapshot::parse(&text).ok_or_else(|| unreadable(text))?;
    let highest = first.try_get::<Option<String>, _>("highest")?.map(|t| xid(&t)).transpose()?;
    let mut due = Due { now, highest, rows: Vec::with_capacity(rows.len()) };
    for row in rows {
        if let Some(changed_by) = row.try_get::<Option<String>, _>("changed_by")? {
            due.rows.push((xid(&changed_by)?, Projection::from_row(row)?));
        }
    }
    Ok(due)
}

fn xid(text: &str) -> sqlx::Result<Xid> {
    text.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// Which PostgreSQL a stream's ids are of, and whether it is a standby.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Server {
    /// The cluster's identifier and the database within it.
    pub identity: String,
    pub standby: bool,
}

pub async fn server(pool: &PgPool) -> sqlx::Result<Server> {
    sqlx::query_as(
        "SELECT (SELECT system_identifier::text FROM pg_control_system()) || '/' ||
                (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS identity,
                pg_is_in_recovery() AS standby",
    )
    .fetch_one(pool)
    .await
}
