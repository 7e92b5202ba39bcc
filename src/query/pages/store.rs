//! Reads rows behind a key. Nothing here writes.

use std::time::Duration;

use sqlx::{FromRow, PgPool, QueryBuilder, Row};

use crate::query::store::{COLUMNS, Projection, Selection, push_conditions, push_scope, push_selection, within};

/// Rows that match in a stretch of keys.
pub struct Looked {
    pub rows: Vec<Projection>,
    /// The last key of the stretch; `None`: there are no rows behind it.
    pub last: Option<String>,
}

/// The first rows that match. With filters the server ends the statement after `time`.
pub async fn direct(
    pool: &PgPool,
    selection: &Selection,
    limit: i64,
    key: Option<&str>,
    time: Duration,
) -> sqlx::Result<Vec<Projection>> {
    let mut page = QueryBuilder::new(format!("SELECT {COLUMNS} FROM projections p WHERE "));
    push_selection(&mut page, selection);
    if let Some(key) = key {
        page.push(" AND p.aggregate_id > ").push_bind(key);
    }
    page.push(" ORDER BY p.aggregate_id LIMIT ").push_bind(limit);
    if selection.conditions.is_empty() {
        return page.build_query_as().fetch_all(pool).await;
    }
    let mut transaction = within(pool, time).await?;
    let rows = page.build_query_as().persistent(false).fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// Those of the next `stretch` rows that match, at most `limit`.
pub async fn look(pool: &PgPool, selection: &Selection, limit: i64, after: &str, stretch: i64) -> sqlx::Result<Looked> {
    let mut query = QueryBuilder::new("WITH looked AS MATERIALIZED (SELECT * FROM projections p WHERE ");
    push_scope(&mut query, selection);
    query.push(" AND p.aggregate_id > ").push_bind(after.to_owned());
    query.push(" ORDER BY p.aggregate_id LIMIT ").push_bind(stretch);
    query.push(
        ") SELECT ends.last, ends.number, p.*
             FROM (SELECT max(l.aggregate_id) AS last, count(*) AS number FROM looked l) ends
             LEFT JOIN LATERAL (SELECT ",
    );
    query.push(COLUMNS).push(" FROM looked p WHERE true");
    push_conditions(&mut query, selection);
    query.push(" ORDER BY p.aggregate_id LIMIT ").push_bind(limit);
    query.push(") p ON true ORDER BY p.aggregate_id");
    let found = query.build().persistent(false).fetch_all(pool).await?;
    let (mut rows, mut last) = (Vec::new(), None);
    for row in &found {
        last = if row.try_get::<i64, _>("number")? < stretch { None } else { row.try_get("last")? };
        if row.try_get::<Option<String>, _>("aggregate_id")?.is_some() {
            rows.push(Projection::from_row(row)?);
        }
    }
    Ok(Looked { rows, last })
}
