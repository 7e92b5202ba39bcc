//! What is known of endpoints, and the sealed values that they need.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use crds::registration::SecretVersion;
use sqlx::PgPool;

use crate::actions::endpoint::Sealed;

/// Makes a row for each action that has none, and returns since when the events of each are delivered.
pub async fn since(pool: &PgPool, actions: &[&str]) -> Result<BTreeMap<String, DateTime<Utc>>, sqlx::Error> {
    sqlx::query("INSERT INTO action_config (action) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING")
        .bind(actions)
        .execute(pool)
        .await?;
    let rows: Vec<(String, DateTime<Utc>)> =
        sqlx::query_as("SELECT action, since FROM action_config WHERE action = ANY($1)")
            .bind(actions)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().collect())
}

/// The sealed values of a namespace.
pub async fn secrets(pool: &PgPool, namespace: &str) -> Result<BTreeMap<SecretVersion, Sealed>, sqlx::Error> {
    let rows: Vec<(String, String, String, Vec<u8>, String)> = sqlx::query_as(
        "SELECT name, key, digest::text, sealed, key_id::text FROM registration_secret WHERE namespace = $1",
    )
    .bind(namespace)
    .fetch_all(pool)
    .await?;
    let entry = |(name, key, digest, sealed, key_id)| (SecretVersion { name, key, digest }, Sealed { sealed, key_id });
    Ok(rows.into_iter().map(entry).collect())
}

/// Says whether an endpoint takes deliveries, and why not.
pub async fn tell_health(pool: &PgPool, action: &str, trouble: Option<&str>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE action_config SET healthy = $2, message = $3, health_at = now()
          WHERE action = $1 AND (healthy, message) IS DISTINCT FROM ($2, $3)",
    )
    .bind(action)
    .bind(trouble.is_none())
    .bind(trouble)
    .execute(pool)
    .await?;
    Ok(())
}

/// Switches deliveries to an endpoint off or on; false where there is no such action.
pub async fn switch(pool: &PgPool, action: &str, off: Option<&str>) -> Result<bool, sqlx::Error> {
    let state = if off.is_some() { "disabled" } else { "enabled" };
    let switched = sqlx::query(
        "UPDATE action_config SET state = $2, reason = $3, changed_at = CASE WHEN state = $2 THEN changed_at ELSE now() END
          WHERE action = $1",
    )
    .bind(action)
    .bind(state)
    .bind(off)
    .execute(pool)
    .await?;
    Ok(switched.rows_affected() > 0)
}
