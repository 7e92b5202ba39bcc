//! The event: what is accepted, stored, published and folded. Knows no database, bus or HTTP.

mod clock;
mod envelope;
mod shard;

pub use clock::{Clock, SystemClock};
pub use envelope::{Envelope, Metadata, MqttOrigin, StoredEvent};
pub use shard::{SHARDS, Shard, ShardSet, shard_of};

/// Longest `event_type` and `aggregate_id`, in characters: the width of their columns.
pub const MAX_NAME_CHARS: usize = 255;
