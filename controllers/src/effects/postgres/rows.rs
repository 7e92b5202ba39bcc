//! Rows as the controllers' own types. A kind or role that this release does not know is left alone.

use crds::registration::{Kind, ResourceKey};
use crds::role::Role;
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::Identity;
use crate::plan::Registered;
use crate::projection::migration::rows::Rows;
use crate::status::{Ack, Instance, Progress, StatusRow};
use crate::webhook_action::status::Endpoint;

pub(super) fn read_identity(row: &PgRow) -> Result<Identity, sqlx::Error> {
    Ok(Identity { name: row.try_get("name")?, replica: row.try_get("replica")? })
}

/// A key of a kind that this release does not know is left alone.
fn read_key(row: &PgRow, namespace: &str) -> Result<Option<ResourceKey>, sqlx::Error> {
    let Ok(kind) = row.try_get::<&str, _>("kind")?.parse::<Kind>() else { return Ok(None) };
    Ok(Some(ResourceKey { namespace: namespace.to_owned(), kind, name: row.try_get("name")? }))
}

/// A row of `registration` without its spec.
pub(super) struct Head {
    pub key: ResourceKey,
    pub generation: i64,
    pub hash: String,
    pub active: bool,
}

pub(super) fn read_head(row: &PgRow, namespace: &str) -> Result<Option<Head>, sqlx::Error> {
    let Some(key) = read_key(row, namespace)? else { return Ok(None) };
    let (generation, hash) = (row.try_get("generation")?, row.try_get("hash")?);
    Ok(Some(Head { key, generation, hash, active: row.try_get("active")? }))
}

pub(super) fn read_spec(row: &PgRow, namespace: &str) -> Result<Option<(ResourceKey, Registered)>, sqlx::Error> {
    let Some(Head { key, generation, hash, active }) = read_head(row, namespace)? else { return Ok(None) };
    // A form that only another release reads is replaced by this one's.
    let spec = serde_json::from_value(row.try_get::<Value, _>("spec")?).ok();
    Ok(Some((key, Registered { generation, hash, spec, active })))
}

pub(super) fn read_instance(row: &PgRow) -> Result<Option<Instance>, sqlx::Error> {
    let Some(role) = Role::parse(row.try_get("role")?) else { return Ok(None) };
    Ok(Some(Instance { id: row.try_get("id")?, role, host: row.try_get("host")? }))
}

pub(super) fn read_ack(row: &PgRow, namespace: &str) -> Result<Option<Ack>, sqlx::Error> {
    let (Some(key), Some(role)) = (read_key(row, namespace)?, Role::parse(row.try_get("role")?)) else {
        return Ok(None);
    };
    let (instance, hash, error) = (row.try_get("id")?, row.try_get("hash")?, row.try_get("error")?);
    Ok(Some(Ack { instance, role, key, hash, error }))
}

pub(super) fn read_progress(row: &PgRow) -> Result<(String, Progress), sqlx::Error> {
    let progress = Progress {
        status: row.try_get("status")?,
        message: row.try_get("message")?,
        history_from: row.try_get("history_from")?,
        rows: Rows {
            live_hash: row.try_get("live_hash")?,
            target_hash: row.try_get("target_hash")?,
            live_history_from: row.try_get("live_history_from")?,
        },
        beside: row.try_get("beside")?,
        read: row.try_get("read")?,
        behind: row.try_get("behind")?,
    };
    Ok((row.try_get("projection_type")?, progress))
}

pub(super) fn read_endpoint(row: &PgRow) -> Result<(String, Endpoint), sqlx::Error> {
    let endpoint = Endpoint {
        disabled: row.try_get("disabled")?,
        gone: row.try_get("gone")?,
        healthy: row.try_get("healthy")?,
        message: row.try_get("message")?,
    };
    Ok((row.try_get("action")?, endpoint))
}

pub(super) fn read_status(row: &PgRow, namespace: &str) -> Result<Option<(ResourceKey, StatusRow)>, sqlx::Error> {
    let Some(key) = read_key(row, namespace)? else { return Ok(None) };
    let status = StatusRow {
        status: row.try_get("status")?,
        origin: row.try_get("origin")?,
        generation: row.try_get("generation")?,
        spec_hash: row.try_get("spec_hash")?,
    };
    Ok(Some((key, status)))
}
