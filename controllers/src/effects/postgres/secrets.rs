//! Sealed values of Secrets: written and deleted beside the registrations that need them.

use std::collections::BTreeSet;

use crds::registration::SecretVersion;
use sqlx::PgConnection;

use super::{DatabaseError, failed};
use crate::webhook_action::vault::Change;

/// Which values are there.
pub(super) async fn stored(
    connection: &mut PgConnection,
    namespace: &str,
) -> Result<BTreeSet<SecretVersion>, DatabaseError> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT name, key, digest::text FROM registration_secret WHERE namespace = $1")
            .bind(namespace)
            .fetch_all(connection)
            .await
            .map_err(failed("read which secrets are stored"))?;
    Ok(rows.into_iter().map(|(name, key, digest)| SecretVersion { name, key, digest }).collect())
}

/// Writes or deletes one.
pub(super) async fn change(
    connection: &mut PgConnection,
    namespace: &str,
    change: &Change,
) -> Result<(), DatabaseError> {
    match change {
        Change::Keep { version, sealed, key_id } => {
            sqlx::query(
                "INSERT INTO registration_secret (namespace, name, key, digest, sealed, key_id)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (namespace, name, key, digest)
                 DO UPDATE SET sealed = excluded.sealed, key_id = excluded.key_id, updated_at = now()",
            )
            .bind(namespace)
            .bind(&version.name)
            .bind(&version.key)
            .bind(&version.digest)
            .bind(sealed)
            .bind(key_id)
            .execute(connection)
            .await
            .map_err(failed("write a sealed secret"))?;
        }
        Change::Delete { version } => {
            sqlx::query(
                "DELETE FROM registration_secret WHERE namespace = $1 AND name = $2 AND key = $3 AND digest = $4",
            )
            .bind(namespace)
            .bind(&version.name)
            .bind(&version.key)
            .bind(&version.digest)
            .execute(connection)
            .await
            .map_err(failed("delete a sealed secret"))?;
        }
    }
    Ok(())
}
