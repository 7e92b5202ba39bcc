//! What deliveries share: the keys of the deduplication, the rate limit and the breaker of each endpoint. In memory for one
//! instance, in Redis for several; both behave alike, given the same times.

pub mod breaker;
mod memory;
mod redis;
pub mod window;

use futures::future::try_join_all;
use uuid::Uuid;

use self::breaker::{Change, Report, Threshold};
use self::window::Limit;
pub use memory::Memory;
pub use redis::Redis;

/// An event as the deduplication sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub key: String,
    pub event_id: Uuid,
    /// When it was accepted, in milliseconds since the epoch: a backlog that is read at once was not sent at once.
    pub at: i64,
}

/// A question whether attempts may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub action: String,
    pub wanted: i64,
    pub limit: Limit,
    /// How long a probe may take.
    pub probe_ms: i64,
}

/// The answer: how many may start, and when to ask again where that is not all that was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub count: i64,
    /// The one granted is a probe.
    pub probe: bool,
    /// In milliseconds since the epoch.
    pub again_at: Option<i64>,
}

/// The shared state cannot be reached. The same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the Redis server of the actions cannot be used")]
    Redis(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where the state is. Cheap to clone.
#[derive(Clone)]
pub enum State {
    Memory(Memory),
    Redis(Redis),
}

impl State {
    /// Which of these events, in their order, are duplicates: an earlier one of the same key was accepted within the window.
    /// An event is no duplicate of itself, so the same question may be asked again.
    pub async fn duplicates(&self, action: &str, window_ms: i64, events: &[Seen]) -> Result<Vec<bool>, StateError> {
        match self {
            Self::Memory(memory) => Ok(memory.duplicates(action, window_ms, events)),
            Self::Redis(redis) => redis.duplicates(action, window_ms, events).await,
        }
    }

    /// Takes permits for attempts.
    pub async fn admit(&self, asks: &[Ask], now: i64) -> Result<Vec<Grant>, StateError> {
        match self {
            Self::Memory(memory) => Ok(asks.iter().map(|ask| memory.admit(ask, now)).collect()),
            Self::Redis(redis) => try_join_all(asks.iter().map(|ask| redis.admit(ask, now))).await,
        }
    }

    /// Permits that were not used.
    pub async fn give_back(&self, action: &str, unused: i64, probe: bool) -> Result<(), StateError> {
        match self {
            Self::Memory(memory) => memory.give_back(action, unused, probe),
            Self::Redis(redis) => redis.give_back(action, unused, probe).await?,
        }
        Ok(())
    }

    /// How attempts at one endpoint ended, in their order; returns the last change of its breaker.
    pub async fn report(
        &self,
        action: &str,
        threshold: Threshold,
        reports: &[Report],
        now: i64,
    ) -> Result<Change, StateError> {
        match self {
            Self::Memory(memory) => Ok(memory.report(action, threshold, reports, now)),
            Self::Redis(redis) => redis.report(action, threshold, reports, now).await,
        }
    }

    /// The breaker starts anew: its endpoint was enabled, or is another.
    pub async fn reset(&self, action: &str) -> Result<(), StateError> {
        match self {
            Self::Memory(memory) => memory.reset(action),
            Self::Redis(redis) => redis.reset(action).await?,
        }
        Ok(())
    }
}
