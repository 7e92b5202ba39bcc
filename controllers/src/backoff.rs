//! How long controllers wait before something transient is tried again.

use std::time::Duration;

use crds::backoff::Backoff;

const BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_mins(1) };

/// The wait before try number `attempt` (0 for the first repetition); see [`Backoff::delay`].
pub fn delay(attempt: u32, random: f64) -> Duration {
    BACKOFF.delay(attempt, random)
}
