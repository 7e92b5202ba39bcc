//! SQL of the indexes on fields of the state.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::plan::{Declared, PREFIX};

/// What is known of an index; a row of `projection_index`.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub(super) struct Known {
    pub projection_type: String,
    pub field: String,
    /// building, built or failed.
    pub status: String,
}

/// Our indexes on `projections`, by name; false: left half-built.
pub(super) async fn existing(pool: &PgPool) -> Result<BTreeMap<String, bool>, sqlx::Error> {
    let rows: Vec<(String, bool)> = sqlx::query_as(
        "SELECT c.relname::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
          WHERE i.indrelid = 'projections'::regclass AND starts_with(c.relname::text, $1)",
    )
    .bind(PREFIX)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().collect())
}

pub(super) async fn known(pool: &PgPool) -> Result<Vec<Known>, sqlx::Error> {
    sqlx::query_as("SELECT projection_type, field, status FROM projection_index").fetch_all(pool).await
}

/// Lets one process at a time build, for as long as its connection lives; false where another does.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended('cornjacket indexes', 0))")
        .fetch_one(connection)
        .await
}

/// Builds an index while the table is written to. It waits for older transactions; not for long for a lock.
pub(super) async fn build(connection: &mut PgConnection, index: &Declared) -> Result<(), sqlx::Error> {
    run(
        connection,
        "SELECT format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON projections (state_index_key(state -> %L))
                        WHERE projection_type = %L', $1, $2, $3)",
        &[&index.name(), &index.field, &index.projection_type],
    )
    .await
}

pub(super) async fn drop(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    run(connection, "SELECT format('DROP INDEX CONCURRENTLY IF EXISTS %I', $1)", &[name]).await
}

/// Statements that take no parameters are written by the server, which quotes names and values.
async fn run(connection: &mut PgConnection, format: &'static str, values: &[&str]) -> Result<(), sqlx::Error> {
    let statement = values.iter().fold(sqlx::query_scalar(format), |query, value| query.bind((*value).to_owned()));
    let sql: String = statement.fetch_one(&mut *connection).await?;
    // Safe: quoted by the server's own format().
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Notes what became of an index.
pub(super) async fn note(
    pool: &PgPool,
    index: &Declared,
    status: &str,
    message: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO projection_index (projection_type, field, name, status, message) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (projection_type, field) DO UPDATE SET name = EXCLUDED.name, status = EXCLUDED.status,
                message = EXCLUDED.message, updated_at = now()",
    )
    .bind(&index.projection_type)
    .bind(&index.field)
    .bind(index.name())
    .bind(status)
    .bind(message)
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets an index that is no longer declared.
pub(super) async fn forget(pool: &PgPool, index: &Declared) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM projection_index WHERE projection_type = $1 AND field = $2")
        .bind(&index.projection_type)
        .bind(&index.field)
        .execute(pool)
        .await?;
    Ok(())
}
