//! The letter, as it is written and as it is shown.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::event::Shard;

/// A letter to be written.
#[derive(Clone, Debug)]
pub struct NewLetter<'a> {
    pub consumer: &'a str,
    /// Which part of the consumer failed: a projection, an action; none where it has one part.
    pub subject: Option<&'a str>,
    pub event_id: Option<Uuid>,
    /// The event as an envelope, or what there was instead of one.
    pub event_payload: Value,
    pub cause: String,
    /// How often it was tried again before.
    pub retries: i32,
    /// Shard and position of the event in the event store, where it is there.
    pub place: Option<(Shard, i64)>,
    /// Hash of the definition that failed.
    pub definition: Option<&'a str>,
}

/// What becomes of a letter that is there already for this event and part of the consumer. A discarded one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// One that is pending stays as it is; one that was replayed is pending again.
    Stays,
    /// It is pending, with the new cause.
    Renewed,
}

/// A letter without what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, FromRow)]
pub struct Letter {
    /// UUID v7: in the order in which letters were written.
    pub dlq_id: Uuid,
    /// Who failed: event-handler, relay, mqtt-ingress, actions, tsdb-writer, ai-inference.
    pub consumer: String,
    /// Which part of it: event-handler: the projection; actions: the action.
    pub subject: Option<String>,
    /// pending, replayed or discarded.
    pub status: String,
    pub event_id: Option<Uuid>,
    pub event_type: Option<String>,
    pub aggregate_id: Option<String>,
    /// Why it failed last.
    pub error_message: String,
    /// When it failed last.
    pub failed_at: DateTime<Utc>,
    /// How often it was tried again, replays included.
    pub retry_count: i32,
    /// When a replay was asked for; null where none is waited for.
    pub replay_requested_at: Option<DateTime<Utc>>,
    /// Whether the event may be applied last where it can no longer be put in its place.
    pub replay_append: bool,
    /// When it was replayed or discarded.
    pub resolved_at: Option<DateTime<Utc>>,
    /// Why it was discarded; of a pending letter, why a replay that was asked for was not tried; of a replayed one, what
    /// there is to say about how.
    pub reason: Option<String>,
    /// The event's place in the event store, where it is known.
    pub shard: Option<i16>,
    pub position: Option<i64>,
}

/// A letter with the event, or with the message that became none.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema, FromRow)]
pub struct WholeLetter {
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub letter: Letter,
    #[schema(value_type = Object)]
    pub event_payload: Value,
}

/// How many letters a part of a consumer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, FromRow)]
pub struct Summary {
    pub consumer: String,
    pub subject: Option<String>,
    /// Those that wait for a decision, or for the replay that was asked for.
    pub pending: i64,
    /// Of these, those of which a replay was asked for.
    pub requested: i64,
    pub replayed: i64,
    pub discarded: i64,
}
