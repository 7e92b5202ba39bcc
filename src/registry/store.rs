//! The registry's SQL: registrations are read; instances and acknowledgements are written.

use crds::registration::{Kind, ResourceKey};
use crds::role::Role;
use serde_json::Value;
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use super::acks::Ack;
use super::load::Row;

/// Told by the controllers when registrations changed.
pub const REGISTRATION_CHANNEL: &str = "cornjacket_registration";

/// Specs that are read at a time.
const SPECS: usize = 500;

/// True where the database is a replica: it can be read, but not written or listened to.
pub async fn is_replica(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(pool).await
}

/// The active registrations without their specs. Kinds that this release does not know are left out.
pub async fn heads(pool: &PgPool, namespace: &str) -> Result<Vec<Row>, sqlx::Error> {
    let rows: Vec<(String, String, i64, String)> = sqlx::query_as(
        "SELECT kind, name, generation, hash::text FROM registration
         WHERE namespace = $1 AND state = 'active' ORDER BY kind, name",
    )
    .bind(namespace)
    .fetch_all(pool)
    .await?;
    let row = |(kind, name, generation, hash): (String, String, i64, String)| {
        let key = ResourceKey { namespace: namespace.to_owned(), kind: kind.parse().ok()?, name };
        Some(Row { key, generation, hash, spec: None })
    };
    Ok(rows.into_iter().filter_map(row).collect())
}

/// Some of the active registrations, with their specs.
pub async fn registrations(pool: &PgPool, namespace: &str, of: &[&ResourceKey]) -> Result<Vec<Row>, sqlx::Error> {
    let mut registrations = Vec::with_capacity(of.len());
    for some in of.chunks(SPECS) {
        let rows = sqlx::query(
            "SELECT kind, name, generation, hash::text AS hash, spec FROM registration
             WHERE namespace = $1 AND state = 'active'
             AND (kind, name) IN (SELECT * FROM unnest($2::text[], $3::text[]))",
        )
        .bind(namespace)
        .bind(some.iter().map(|key| key.kind.as_str()).collect::<Vec<_>>())
        .bind(some.iter().map(|key| key.name.as_str()).collect::<Vec<_>>())
        .fetch_all(pool)
        .await?;
        for row in rows {
            let Ok(kind) = row.try_get::<&str, _>("kind")?.parse::<Kind>() else { continue };
            registrations.push(Row {
                key: ResourceKey { namespace: namespace.to_owned(), kind, name: row.try_get("name")? },
                generation: row.try_get("generation")?,
                hash: row.try_get("hash")?,
                spec: Some(row.try_get::<Value, _>("spec")?),
            });
        }
    }
    Ok(registrations)
}

/// Renews the heartbeat. True where a row had to be made: acknowledgements written before it are gone.
pub async fn heartbeat(pool: &PgPool, instance: Uuid, roles: &[Role], host: &str) -> Result<bool, sqlx::Error> {
    let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let made: Option<bool> = sqlx::query_scalar(
        "WITH beat AS (
             INSERT INTO instance (instance, role, host, version) SELECT $1, role, $3, $4 FROM unnest($2::text[]) AS role
             ON CONFLICT (instance, role) DO UPDATE SET heartbeat_at = now()
             RETURNING xmax = 0 AS made)
         SELECT bool_or(made) FROM beat",
    )
    .bind(instance)
    .bind(&roles)
    .bind(host)
    .bind(env!("CARGO_PKG_VERSION"))
    .fetch_one(pool)
    .await?;
    Ok(made.unwrap_or(false))
}

/// Removes instances that have been silent for ten minutes, with their acknowledgements.
pub async fn sweep(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let swept = sqlx::query(
        "DELETE FROM instance WHERE (instance, role) IN (
             SELECT instance, role FROM instance WHERE heartbeat_at < now() - interval '10 minutes'
             FOR UPDATE SKIP LOCKED)",
    )
    .execute(pool)
    .await?;
    Ok(swept.rows_affected())
}

/// Writes acknowledgements and wakes the controllers.
pub async fn acknowledge(pool: &PgPool, instance: Uuid, namespace: &str, acks: &[Ack]) -> Result<(), sqlx::Error> {
    let column = |of: fn(&Ack) -> String| -> Vec<String> { acks.iter().map(of).collect() };
    let errors: Vec<Option<String>> = acks.iter().map(|ack| ack.error.clone()).collect();
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "INSERT INTO registration_ack (instance, role, namespace, kind, name, hash, error)
         SELECT $1, role, $2, kind, name, hash, error
         FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS ack (role, kind, name, hash, error)
         ON CONFLICT (instance, role, namespace, kind, name)
         DO UPDATE SET hash = excluded.hash, error = excluded.error, acked_at = now()",
    )
    .bind(instance)
    .bind(namespace)
    .bind(column(|ack| ack.role.as_str().to_owned()))
    .bind(column(|ack| ack.key.kind.as_str().to_owned()))
    .bind(column(|ack| ack.key.name.clone()))
    .bind(column(|ack| ack.hash.clone()))
    .bind(errors)
    .execute(&mut *transaction)
    .await?;
    sqlx::query("SELECT pg_notify('cornjacket_ack', '')").execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Forgets what this instance said about registrations that are no longer active.
pub async fn forget_removed(pool: &PgPool, instance: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM registration_ack AS ack WHERE ack.instance = $1 AND NOT EXISTS (
             SELECT FROM registration AS r WHERE r.state = 'active'
             AND (r.namespace, r.kind, r.name) = (ack.namespace, ack.kind, ack.name))",
    )
    .bind(instance)
    .execute(pool)
    .await?;
    Ok(())
}

/// Says goodbye: this instance no longer counts, at once.
pub async fn leave(pool: &PgPool, instance: Uuid, roles: &[Role]) -> Result<(), sqlx::Error> {
    let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let mut transaction = pool.begin().await?;
    sqlx::query("DELETE FROM instance WHERE instance = $1 AND role = ANY ($2)")
        .bind(instance)
        .bind(&roles)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT pg_notify('cornjacket_ack', '')").execute(&mut *transaction).await?;
    transaction.commit().await
}
