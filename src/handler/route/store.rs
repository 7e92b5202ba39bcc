//! SQL of the routes: what is registered about them, and what was seen.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use crds::registration::Topic;
use sqlx::PgConnection;
use sqlx::types::Json;

/// A topic that is registered, or was until some time.
pub struct Registered {
    pub topic: Topic,
    pub removed_at: Option<DateTime<Utc>>,
}

/// All topics that are or were registered, in order of their resources' names.
pub async fn topics(connection: &mut PgConnection) -> Result<Vec<Registered>, sqlx::Error> {
    let rows: Vec<(Json<Topic>, Option<DateTime<Utc>>)> = sqlx::query_as(
        "SELECT spec, CASE WHEN state = 'removed' THEN updated_at END FROM registration WHERE kind = 'Topic'
          ORDER BY namespace, name",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(topic, removed_at)| Registered { topic: topic.0, removed_at }).collect())
}

/// Event types that are registered, and their topics.
pub async fn event_types(connection: &mut PgConnection) -> Result<Vec<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT spec->>'type', spec->>'topic' FROM registration WHERE kind = 'EventType' AND state = 'active'
            AND spec->>'topic' IS NOT NULL ORDER BY namespace, name",
    )
    .fetch_all(connection)
    .await
}

/// Topics that may hold events which the group has not read: those of old and present resources, and those read before.
pub async fn readable(connection: &mut PgConnection, group: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT topic FROM bus_offset WHERE consumer_group = $1
         UNION SELECT spec->>'topicName' FROM registration WHERE kind = 'Topic'
         UNION SELECT spec->>'topic' FROM registration WHERE kind = 'EventType' AND spec->>'topic' IS NOT NULL",
    )
    .bind(group)
    .fetch_all(connection)
    .await
}

/// What the group saw registered last, by event type.
pub async fn registered(connection: &mut PgConnection, group: &str) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT event_type, registered FROM bus_route WHERE consumer_group = $1 AND registered IS NOT NULL",
    )
    .bind(group)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Records what is registered.
pub async fn keep_registered(
    connection: &mut PgConnection,
    group: &str,
    registered: &BTreeMap<String, String>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO bus_route (consumer_group, event_type, registered)
         SELECT $1, * FROM unnest($2::text[], $3::text[])
         ON CONFLICT (consumer_group, event_type) DO UPDATE SET registered = EXCLUDED.registered",
    )
    .bind(group)
    .bind(registered.keys().collect::<Vec<_>>())
    .bind(registered.values().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// The topics by which event types came last, of those named.
pub async fn last_topics(
    connection: &mut PgConnection,
    group: &str,
    event_types: &[&str],
) -> Result<HashMap<String, String>, sqlx::Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT event_type, topic FROM bus_route
          WHERE consumer_group = $1 AND event_type = ANY($2) AND topic IS NOT NULL",
    )
    .bind(group)
    .bind(event_types)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Records by which topic event types came last.
pub async fn keep_last_topics(
    connection: &mut PgConnection,
    group: &str,
    topics: &BTreeMap<&str, &str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO bus_route (consumer_group, event_type, topic)
         SELECT $1, * FROM unnest($2::text[], $3::text[])
         ON CONFLICT (consumer_group, event_type) DO UPDATE SET topic = EXCLUDED.topic",
    )
    .bind(group)
    .bind(topics.keys().copied().collect::<Vec<_>>())
    .bind(topics.values().copied().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
