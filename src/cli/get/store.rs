//! Reads statuses, registrations and the progress of projections.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use crds::registration::Kind;
use crds::role::Role;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Row};

use crate::dead_letters::EVENT_HANDLER;
use crate::time_series::TSDB_WRITER;

/// A resource as declared or registered.
pub struct Entry {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub generation: i64,
    pub origin: Option<String>,
    pub created_at: DateTime<Utc>,
    pub status: Value,
    /// What the data plane is to run; `None` where nothing is served.
    pub registered: Option<Registered>,
    /// What the handler does with a projection.
    pub progress: Option<Progress>,
    /// Events that a projection gave up on and that wait for a decision.
    pub dead_letters: Option<i64>,
}

pub struct Registered {
    pub generation: i64,
    pub hash: String,
    pub spec: Value,
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, FromRow)]
pub struct Progress {
    pub projection_type: String,
    /// live, catching_up or halted.
    pub status: String,
    /// Positions still to be read when it was last looked at.
    pub behind: i64,
    pub message: Option<String>,
    /// Events accepted before this were gone when the rows were made.
    pub history_from: Option<DateTime<Utc>>,
    pub updated_at: DateTime<Utc>,
}

/// The processes of the data plane, as far as this database shows them.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Each role that was ever here (and not swept since), with the seconds since its last heartbeat.
    pub heartbeats: Vec<(Role, i64)>,
    /// One of them is connected: a killed process loses its connections at once, and its heartbeats grow old.
    pub connected: bool,
}

/// Dead letters that wait for a decision, by consumer and part of it.
pub type Waiting = HashMap<(String, Option<String>), i64>;

/// Everything of a namespace, by kind and name; with who lives to run it, and which dead letters wait.
pub async fn read(pool: &PgPool, namespace: &str) -> Result<(Vec<Entry>, Life, Waiting), sqlx::Error> {
    let rows = sqlx::query(
        "SELECT kind, name, coalesce(s.generation, r.generation) AS generation, s.origin, s.status,
                coalesce(s.created_at, r.updated_at) AS created_at,
                r.generation AS served_generation, r.hash::text AS hash, r.spec, r.updated_at
         FROM (SELECT * FROM resource_status WHERE namespace = $1) AS s
         FULL JOIN (SELECT * FROM registration WHERE namespace = $1 AND state = 'active') AS r USING (kind, name)
         ORDER BY kind, name",
    )
    .bind(namespace)
    .fetch_all(pool)
    .await?;
    let (progress, waiting) = (progress(pool).await?, waiting(pool).await?);
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        entries.extend(entry(&row, namespace, &progress, &waiting)?);
    }
    entries.sort_by_key(|entry| Kind::ALL.iter().position(|kind| *kind == entry.kind));
    Ok((entries, life(pool).await?, waiting))
}

async fn waiting(pool: &PgPool) -> Result<Waiting, sqlx::Error> {
    let rows: Vec<(String, Option<String>, i64)> = sqlx::query_as(
        "SELECT consumer, subject, count(*) FROM dlq WHERE status = 'pending' GROUP BY consumer, subject",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(consumer, subject, letters)| ((consumer, subject), letters)).collect())
}

async fn life(pool: &PgPool) -> Result<Life, sqlx::Error> {
    let heartbeats: Vec<(String, i64)> = sqlx::query_as(
        "SELECT role, extract(epoch FROM now() - max(heartbeat_at))::bigint FROM instance GROUP BY role ORDER BY role",
    )
    .fetch_all(pool)
    .await?;
    // Of other users' sessions nothing but their being there can be seen: they may be ours.
    let connected = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND coalesce(backend_type, 'client backend') = 'client backend'
            AND (coalesce(application_name, '') = '' OR application_name LIKE 'cornjacket %')
            AND coalesce(application_name, '') NOT IN ('cornjacket get', 'cornjacket controllers', 'cornjacket migrate'))",
    )
    .fetch_one(pool)
    .await?;
    let heartbeats = heartbeats.iter().filter_map(|(role, age)| Some((Role::parse(role)?, *age))).collect();
    Ok(Life { heartbeats, connected })
}

async fn progress(pool: &PgPool) -> Result<HashMap<String, Progress>, sqlx::Error> {
    let there: bool =
        sqlx::query_scalar("SELECT to_regclass('projection_progress') IS NOT NULL").fetch_one(pool).await?;
    if !there {
        return Ok(HashMap::new());
    }
    let rows: Vec<Progress> = sqlx::query_as(
        "SELECT projection_type, status, behind, message, history_from, updated_at FROM projection_progress",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.projection_type.clone(), row)).collect())
}

fn entry(
    row: &PgRow,
    namespace: &str,
    progress: &HashMap<String, Progress>,
    waiting: &Waiting,
) -> Result<Option<Entry>, sqlx::Error> {
    let Ok(kind) = row.try_get::<&str, _>("kind")?.parse::<Kind>() else { return Ok(None) };
    let registered = match row.try_get::<Option<Value>, _>("spec")? {
        Some(spec) => Some(Registered {
            generation: row.try_get("served_generation")?,
            hash: row.try_get("hash")?,
            spec,
            updated_at: row.try_get("updated_at")?,
        }),
        None => None,
    };
    let projection_type =
        registered.as_ref().filter(|_| kind == Kind::Projection).and_then(|r| r.spec["type"].as_str());
    let progress = projection_type.and_then(|name| progress.get(name)).cloned();
    let letters = |name: &str| -> i64 {
        let of = |consumer: &str| waiting.get(&(consumer.to_owned(), Some(name.to_owned()))).copied().unwrap_or(0);
        of(EVENT_HANDLER) + of(TSDB_WRITER)
    };
    let dead_letters = projection_type.map(letters);
    Ok(Some(Entry {
        kind,
        namespace: namespace.to_owned(),
        name: row.try_get("name")?,
        generation: row.try_get("generation")?,
        origin: row.try_get("origin")?,
        created_at: row.try_get("created_at")?,
        status: row.try_get::<Option<Value>, _>("status")?.unwrap_or(Value::Null),
        registered,
        progress,
        dead_letters,
    }))
}
