//! The bound of the queues: how many events, and how many bytes of them, may wait for the writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Gauge;

use super::{Entry, Settings};

/// Counts what waits. Reserving never blocks.
pub(super) struct Budget {
    max_events: usize,
    max_bytes: usize,
    events: AtomicUsize,
    bytes: AtomicUsize,
    events_gauge: Gauge,
    bytes_gauge: Gauge,
}

/// A part of the budget, given back when dropped.
pub(super) struct Reservation {
    budget: Arc<Budget>,
    events: usize,
    bytes: usize,
}

impl Budget {
    pub fn new(settings: &Settings, events_gauge: Gauge, bytes_gauge: Gauge) -> Self {
        Self {
            max_events: settings.queue_events,
            max_bytes: settings.queue_bytes,
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            events_gauge,
            bytes_gauge,
        }
    }

    /// Room for all of the entries, or nothing.
    pub fn reserve(self: &Arc<Self>, entries: &[Entry]) -> Option<Arc<Reservation>> {
        let events = entries.len();
        let bytes = entries.iter().map(|e| e.envelope.len()).sum();
        if !take(&self.events, events, self.max_events) {
            return None;
        }
        if !take(&self.bytes, bytes, self.max_bytes) {
            self.events.fetch_sub(events, Ordering::Relaxed);
            return None;
        }
        self.show();
        Some(Arc::new(Reservation { budget: Arc::clone(self), events, bytes }))
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge; the numbers are far below 2^52")]
    fn show(&self) {
        self.events_gauge.set(self.events.load(Ordering::Relaxed) as f64);
        self.bytes_gauge.set(self.bytes.load(Ordering::Relaxed) as f64);
    }
}

fn take(used: &AtomicUsize, amount: usize, max: usize) -> bool {
    let within = |now: usize| now.checked_add(amount).filter(|sum| *sum <= max);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.events.fetch_sub(self.events, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.show();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn entries(count: usize, bytes: usize) -> Vec<Entry> {
        (0..count)
            .map(|_| Entry { event_id: Uuid::nil(), shard: 0, envelope: "x".repeat(bytes), key: None, again: false })
            .collect()
    }

    #[test]
    fn is_bounded_by_events_and_by_bytes_and_given_back() {
        let settings = Settings { queue_events: 3, queue_bytes: 100, ..Settings::default() };
        let budget = Arc::new(Budget::new(&settings, Gauge::noop(), Gauge::noop()));
        let two = budget.reserve(&entries(2, 10)).expect("fits");
        assert!(budget.reserve(&entries(2, 10)).is_none(), "four events");
        assert!(budget.reserve(&entries(1, 90)).is_none(), "110 bytes");
        assert!(budget.reserve(&entries(1, 80)).is_some());
        drop(two);
        assert!(budget.reserve(&entries(3, 33)).is_some(), "all was given back");
    }
}
