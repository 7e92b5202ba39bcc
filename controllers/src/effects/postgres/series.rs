//! Tables of time series as the controllers see them: what there is, how far the writer has come, and what is deleted.

use std::collections::BTreeMap;

use crds::registration::TimeSeries;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{DatabaseError, Deletion, Seat, catalog, failed};
use crate::crash;
use crate::projection::migration::series::{Found, Tables};
use crate::status::SeriesProgress;

impl Seat {
    /// What this database has of time series; `None` where it has no place for them yet.
    pub async fn series_tables(&mut self) -> Result<Option<Tables>, DatabaseError> {
        read(&mut self.connection).await
    }

    /// How far the writer has come with each time series. (The tables are there.)
    pub async fn series_progress(&mut self) -> Result<BTreeMap<String, SeriesProgress>, DatabaseError> {
        let rows = sqlx::query("SELECT projection_type, status, message, behind FROM series_progress")
            .fetch_all(&mut self.connection)
            .await
            .map_err(failed("read how far time series are"))?;
        rows.iter().map(read_progress).collect::<Result<_, _>>().map_err(failed("read how far time series are"))
    }

    /// Whether a live instance may still write time series or feed projections.
    pub async fn has_handler(&mut self) -> Result<bool, DatabaseError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM instance WHERE role = 'handle' AND heartbeat_at > now() - interval '15 seconds')",
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed("look for live handlers"))
    }

    /// Drops the table of a time series that is no longer registered, with all that is known of it.
    pub async fn delete_series(
        &mut self,
        projection_type: &str,
        table: &str,
        has_handler: bool,
    ) -> Result<Deletion, DatabaseError> {
        let doing = "drop the table of a time series";
        if read(&mut self.connection).await?.is_none_or(|there| {
            // It was never made, or is another's.
            there.tables.get(table).is_none_or(|found| found.projection_type != projection_type)
        }) {
            return Ok(Deletion::Done);
        }
        let (taken, written): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM registration WHERE kind = 'Projection' AND state = 'active' AND spec->>'type' = $1),
                    EXISTS (SELECT FROM series_progress WHERE projection_type = $1 AND status <> 'removed')",
        )
        .bind(projection_type)
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed(doing))?;
        if taken {
            return Ok(Deletion::Done);
        }
        if written && has_handler {
            return Ok(Deletion::Fed);
        }
        self.drop_series(projection_type, table).await.map_err(failed(doing))?;
        Ok(Deletion::Done)
    }

    async fn drop_series(&mut self, projection_type: &str, table: &str) -> Result<(), sqlx::Error> {
        let mut tx = self.connection.begin().await?;
        sqlx::query("SELECT set_config('lock_timeout', '5s', true)").execute(&mut *tx).await?;
        // Safe: the name is quoted.
        sqlx::query(AssertSqlSafe(format!("DROP TABLE IF EXISTS {}", TimeSeries::sql_table(table))))
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM series_table WHERE table_name = $1").bind(table).execute(&mut *tx).await?;
        sqlx::query("DELETE FROM series_progress WHERE projection_type = $1")
            .bind(projection_type)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM series_cursor WHERE consumer_group = 'tsdb-writer:' || $1")
            .bind(table)
            .execute(&mut *tx)
            .await?;
        crash::point("series deleted");
        tx.commit().await
    }
}

/// Tables, ledger, and whether TimescaleDB is installed.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Option<Tables>, DatabaseError> {
    let (present, timescale): (bool, bool) = sqlx::query_as(
        "SELECT to_regclass('series_table') IS NOT NULL AND to_regclass('series_ledger') IS NOT NULL,
                EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(failed("look for the tables of time series"))?;
    if !present {
        return Ok(None);
    }
    let tables = tables(connection).await.map_err(failed("read the tables of time series"))?;
    let ledger =
        catalog::ledger(connection, catalog::SERIES_LEDGER).await.map_err(failed("read the ledger of time series"))?;
    Ok(Some(Tables { tables, ledger, timescale }))
}

/// One that somebody dropped counts as not there, and is made anew.
async fn tables(connection: &mut PgConnection) -> Result<BTreeMap<String, Found>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT t.table_name, t.projection_type, t.layout = 'hypertable' AS hypertable, t.changes, t.columns AS ours,
                t.chunk_seconds, array_agg(a.attname::text) AS names,
                array_agg(format_type(a.atttypid, a.atttypmod)) AS types
           FROM series_table t
           JOIN pg_attribute a ON a.attrelid = to_regclass(format('timeseries.%I', t.table_name))
          WHERE a.attnum > 0 AND NOT a.attisdropped GROUP BY t.table_name",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(read_table).collect()
}

fn read_table(row: &PgRow) -> Result<(String, Found), sqlx::Error> {
    let (names, types): (Vec<String>, Vec<String>) = (row.try_get("names")?, row.try_get("types")?);
    let found = Found {
        projection_type: row.try_get("projection_type")?,
        hypertable: row.try_get("hypertable")?,
        chunk_seconds: row.try_get("chunk_seconds")?,
        changes: row.try_get("changes")?,
        ours: row.try_get::<Vec<String>, _>("ours")?.into_iter().collect(),
        columns: names.into_iter().zip(types).collect(),
    };
    Ok((row.try_get("table_name")?, found))
}

fn read_progress(row: &PgRow) -> Result<(String, SeriesProgress), sqlx::Error> {
    let progress = SeriesProgress {
        status: row.try_get("status")?,
        message: row.try_get("message")?,
        behind: row.try_get("behind")?,
    };
    Ok((row.try_get("projection_type")?, progress))
}
