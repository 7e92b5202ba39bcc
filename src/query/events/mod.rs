//! Events as they stand in the event store: one, those of an aggregate, and all of them as a stream.
//!
//! In: ids, positions, filters. Out: events in the order of their positions. A stream's cursor is one position a
//! shard; positions have no gaps and appear in order, so nothing is missed and nothing comes twice.

mod merge;
mod positions;
pub mod store;
pub mod stream;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

pub use positions::Positions;

use crate::event::Shard;

/// An event as clients get it.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct Event {
    /// UUID v7, given at acceptance.
    pub event_id: Uuid,
    pub event_type: String,
    pub aggregate_id: String,
    /// When it occurred.
    pub timestamp: DateTime<Utc>,
    #[sqlx(json)]
    #[schema(value_type = Object)]
    pub payload: Box<RawValue>,
    /// Trace ids, source, schema version.
    #[sqlx(json)]
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    /// When it was accepted.
    pub ingested_at: DateTime<Utc>,
    /// 0 to 63. All events of an aggregate are in one shard.
    #[schema(value_type = i32, minimum = 0, maximum = 63)]
    pub shard: Shard,
    /// Order within the shard: 1, 2, 3, … without a gap.
    pub position: i64,
}

/// Which events a stream is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub event_type: Option<String>,
    pub aggregate_id: Option<String>,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// At the oldest event that is still stored.
    Earliest,
    /// Behind the newest.
    Now,
    /// At what was accepted at this time or later.
    Time(DateTime<Utc>),
    /// At this event.
    Event(Uuid),
}

impl std::str::FromStr for Beginning {
    type Err = BadBeginning;

    fn from_str(text: &str) -> Result<Self, BadBeginning> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "now" => Ok(Self::Now),
            _ => text
                .parse()
                .map(Self::Event)
                .or_else(|_| DateTime::parse_from_rfc3339(text).map(|t| Self::Time(t.to_utc())))
                .map_err(|_| BadBeginning),
        }
    }
}

/// It is none of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be earliest, now, a time such as 2026-01-31T12:00:00Z, or an event id")]
pub struct BadBeginning;

/// The lowest UUID v7 of a time: its first 48 bits are the milliseconds since 1970.
fn first_id_at(time: DateTime<Utc>) -> Uuid {
    let millis = u128::try_from(time.timestamp_millis()).unwrap_or(0) & ((1 << 48) - 1);
    Uuid::from_u128(millis << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_a_word_a_time_or_an_event() {
        let id = Uuid::from_u128(7);
        assert_eq!("earliest".parse(), Ok(Beginning::Earliest));
        assert_eq!("now".parse(), Ok(Beginning::Now));
        assert_eq!(id.to_string().parse(), Ok(Beginning::Event(id)));
        let time = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
        assert_eq!("2023-11-14T22:13:20.123Z".parse(), Ok(Beginning::Time(time)));
        assert_eq!("yesterday".parse::<Beginning>(), Err(BadBeginning));
        assert_eq!(first_id_at(time).as_u128() >> 80, 1_700_000_000_123);
        assert_eq!(first_id_at(DateTime::from_timestamp(-5, 0).unwrap()), Uuid::nil());
    }
}
