//! What the handler's database has of the tables of projections: read by a look, and by who migrates them.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::{DatabaseError, failed};
use crate::projection::migration::indexes::{Existing, Found, PREFIX};
use crate::projection::migration::{Catalog, Entry, Ledger, State};

/// Indexes and ledger. `None` where the database has no tables of projections yet.
pub async fn read(connection: &mut PgConnection) -> Result<Option<Catalog>, DatabaseError> {
    let present: bool = sqlx::query_scalar(
        "SELECT to_regclass('projections') IS NOT NULL AND to_regclass('migration_ledger') IS NOT NULL",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(failed("look for the tables of projections"))?;
    if !present {
        return Ok(None);
    }
    let indexes = indexes(connection).await.map_err(failed("read the indexes of projections"))?;
    let ledger = ledger(connection, LEDGER).await.map_err(failed("read the ledger of migrations"))?;
    Ok(Some(Catalog { indexes, ledger }))
}

/// Which rows an index holds is told by its predicate.
async fn indexes(connection: &mut PgConnection) -> Result<Existing, sqlx::Error> {
    let rows = sqlx::query(
        r"SELECT c.relname::text AS name, i.indisvalid AS valid,
                 replace(substring(pg_get_expr(i.indpred, i.indrelid)
                         FROM '^\(\(projection_type\)::text = ''(.*)''::text\)$'), '''''', '''') AS projection_type
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
           WHERE i.indrelid = 'projections'::regclass AND starts_with(c.relname::text, $1)",
    )
    .bind(PREFIX)
    .fetch_all(connection)
    .await?;
    let read = |row: &PgRow| -> Result<(String, Found), sqlx::Error> {
        let found = Found { valid: row.try_get("valid")?, projection_type: row.try_get("projection_type")? };
        Ok((row.try_get("name")?, found))
    };
    rows.iter().map(read).collect()
}

const LEDGER: &str = "SELECT DISTINCT ON (step) step, id, state, error FROM migration_ledger ORDER BY step, id DESC";
/// The newest row about each step at the tables of time series.
pub(super) const SERIES_LEDGER: &str =
    "SELECT DISTINCT ON (step) step, id, state, error FROM series_ledger ORDER BY step, id DESC";

pub(super) async fn ledger(connection: &mut PgConnection, newest: &'static str) -> Result<Ledger, sqlx::Error> {
    let rows = sqlx::query(newest).fetch_all(connection).await?;
    let mut ledger = BTreeMap::new();
    for row in &rows {
        let state = match row.try_get("state")? {
            "done" => State::Done,
            "failed" => State::Failed(row.try_get::<Option<String>, _>("error")?.unwrap_or_default()),
            _ => State::Started,
        };
        ledger.insert(row.try_get("step")?, Entry { id: row.try_get("id")?, state });
    }
    Ok(ledger)
}
