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

/// Notes where an action delivers to. True where that is another endpoint than before: then nothing is known of it, and that
/// the one before was gone does not count.
pub async fn is_another(pool: &PgPool, action: &str, url: &str) -> Result<bool, sqlx::Error> {
    let changed = sqlx::query(
        "UPDATE action_config SET url = $2, healthy = NULL, message = NULL, health_at = NULL, gone = false,
                reason = CASE WHEN gone THEN NULL ELSE reason END, state = CASE WHEN gone THEN 'enabled' ELSE state END,
                changed_at = CASE WHEN gone THEN now() ELSE changed_at END
          WHERE action = $1 AND url IS DISTINCT FROM $2",
    )
    .bind(action)
    .bind(url)
    .execute(pool)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// Says that endpoints take deliveries; nothing is written of those of which that is known.
pub async fn tell_healthy(pool: &PgPool, actions: &[&str]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE action_config SET healthy = true, message = NULL, health_at = now()
          WHERE action = ANY($1) AND (healthy, message) IS DISTINCT FROM (true, NULL)",
    )
    .bind(actions)
    .execute(pool)
    .await?;
    Ok(())
}

/// Says why an endpoint takes no deliveries.
pub async fn tell_trouble(pool: &PgPool, action: &str, trouble: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE action_config SET healthy = false, message = $2, health_at = now() WHERE action = $1")
        .bind(action)
        .bind(trouble)
        .execute(pool)
        .await?;
    Ok(())
}

/// Says how attempts at an endpoint fail of which nothing else is known yet.
pub async fn tell_failing(pool: &PgPool, action: &str, why: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE action_config SET message = $2, health_at = now()
          WHERE action = $1 AND healthy IS NULL AND message IS DISTINCT FROM $2",
    )
    .bind(action)
    .bind(why)
    .execute(pool)
    .await?;
    Ok(())
}

/// Nothing is known of an endpoint: it is to be seen anew.
pub async fn forget_health(pool: &PgPool, action: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE action_config SET healthy = NULL, message = NULL, health_at = NULL WHERE action = $1")
        .bind(action)
        .execute(pool)
        .await?;
    Ok(())
}

/// Switches deliveries to an endpoint off or on; false where there is no such action.
pub async fn switch(pool: &PgPool, action: &str, off: Option<&str>) -> Result<bool, sqlx::Error> {
    let state = if off.is_some() { "disabled" } else { "enabled" };
    let switched = sqlx::query(
        "UPDATE action_config SET state = $2, reason = $3, gone = false, changed_at = CASE WHEN state = $2 THEN changed_at ELSE now() END
          WHERE action = $1",
    )
    .bind(action)
    .bind(state)
    .bind(off)
    .execute(pool)
    .await?;
    Ok(switched.rows_affected() > 0)
}
