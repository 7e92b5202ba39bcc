//! Ids of events: UUID v7, ascending within this process.

use std::sync::Mutex;

use chrono::{DateTime, Utc};
use uuid::{ContextV7, Timestamp, Uuid};

/// Gives ids. The writers of the outbox compare this machine's clock with the database's before anything is accepted.
pub struct EventIds {
    context: Mutex<ContextV7>,
}

impl Default for EventIds {
    fn default() -> Self {
        Self { context: Mutex::new(ContextV7::new()) }
    }
}

impl EventIds {
    /// An id above all before it, also where the clock went back.
    pub fn next(&self, now: DateTime<Utc>) -> Uuid {
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        Uuid::new_v7(Timestamp::from_unix(&self.context, seconds, now.timestamp_subsec_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn ids_ascend_even_when_the_clock_goes_back() {
        let ids = EventIds::default();
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let mut last = Uuid::nil();
        for i in 0..5_000 {
            let id = ids.next(now - TimeDelta::milliseconds(i % 7));
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        assert_eq!(last.get_version_num(), 7);
    }
}
