//! The statuses of a directory's resources, which are kept in the home database.

use std::collections::BTreeMap;

use crds::registration::ResourceKey;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use super::rows::read_status;
use super::{DatabaseError, Seat, failed};
use crate::status::StatusRow;

/// Rows of one statement.
const ROWS: usize = 500;

impl Seat {
    /// The statuses as they stand.
    pub async fn statuses(&mut self) -> Result<BTreeMap<ResourceKey, StatusRow>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT kind, name, status, origin, generation, spec_hash::text AS spec_hash
             FROM resource_status WHERE namespace = $1",
        )
        .bind(&self.namespace)
        .fetch_all(&mut self.connection)
        .await
        .map_err(failed("read statuses"))?;
        let read = |row: &PgRow| read_status(row, &self.namespace);
        rows.iter().filter_map(|r| read(r).transpose()).collect::<Result<_, _>>().map_err(failed("read statuses"))
    }

    /// Writes statuses, some at a time.
    pub async fn write_statuses(&mut self, rows: &[(&ResourceKey, &StatusRow)]) -> Result<(), DatabaseError> {
        for some in rows.chunks(ROWS) {
            sqlx::query(
                "INSERT INTO resource_status (namespace, kind, name, status, origin, generation, spec_hash)
                 SELECT $1, kind, name, status, origin, generation, spec_hash
                 FROM unnest($2::text[], $3::text[], $4::jsonb[], $5::text[], $6::bigint[], $7::text[])
                      AS new (kind, name, status, origin, generation, spec_hash)
                 ON CONFLICT (namespace, kind, name) DO UPDATE SET status = excluded.status, origin = excluded.origin,
                 generation = excluded.generation, spec_hash = excluded.spec_hash, updated_at = now()",
            )
            .bind(&self.namespace)
            .bind(some.iter().map(|(key, _)| key.kind.as_str()).collect::<Vec<_>>())
            .bind(some.iter().map(|(key, _)| key.name.as_str()).collect::<Vec<_>>())
            .bind(some.iter().map(|(_, row)| Json(&row.status)).collect::<Vec<_>>())
            .bind(some.iter().map(|(_, row)| row.origin.as_str()).collect::<Vec<_>>())
            .bind(some.iter().map(|(_, row)| row.generation).collect::<Vec<_>>())
            .bind(some.iter().map(|(_, row)| row.spec_hash.as_str()).collect::<Vec<_>>())
            .execute(&mut self.connection)
            .await
            .map_err(failed("write statuses"))?;
        }
        Ok(())
    }

    /// Removes the statuses of resources that are gone.
    pub async fn remove_statuses(&mut self, keys: &[&ResourceKey]) -> Result<(), DatabaseError> {
        for some in keys.chunks(ROWS) {
            sqlx::query(
                "DELETE FROM resource_status
                 WHERE namespace = $1 AND (kind, name) IN (SELECT * FROM unnest($2::text[], $3::text[]))",
            )
            .bind(&self.namespace)
            .bind(some.iter().map(|key| key.kind.as_str()).collect::<Vec<_>>())
            .bind(some.iter().map(|key| key.name.as_str()).collect::<Vec<_>>())
            .execute(&mut self.connection)
            .await
            .map_err(failed("remove statuses"))?;
        }
        Ok(())
    }
}
