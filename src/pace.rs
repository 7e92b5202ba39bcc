//! How large the next batch may be: pure.

/// Most bytes of events (as JSON text) in one batch; a single event may be larger. What is in memory is a few times that.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Most bytes of states (as JSON) that a batch should read.
pub const MAX_STATE_BYTES: usize = 64 * 1024 * 1024;
/// Events of the first batch: what states weigh is not known yet.
const FIRST: i64 = 1_000;

/// The number of events to ask for: less after a failure, so that a batch that takes longer than its deadline gets
/// through in parts, and more again after each success.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    most: i64,
    now: i64,
}

impl Pace {
    /// Never exceeds `most` events.
    pub fn new(most: i64) -> Self {
        let most = most.max(1);
        Self { most, now: most.min(FIRST) }
    }

    /// Begins with `first`, since what is asked for may be heavy.
    pub fn careful(most: i64, first: i64) -> Self {
        Self { most: most.max(1), now: first.clamp(1, most.max(1)) }
    }

    /// Events to ask for, at least one.
    pub fn events(&self) -> i64 {
        self.now
    }

    /// The batch failed or took too long.
    pub fn failed(&mut self) {
        self.now = (self.now / 2).max(1);
    }

    /// The batch is done.
    pub fn done(&mut self) {
        self.now = self.now.saturating_mul(2).min(self.most);
    }

    /// A batch of so many events read so many bytes of states: the next is to read no more than [`MAX_STATE_BYTES`].
    pub fn weighed(&mut self, events: usize, state_bytes: usize) {
        self.weighed_against(events, state_bytes, MAX_STATE_BYTES);
    }

    /// So many of them were so many bytes: the next are to be no more than `most`.
    pub fn weighed_against(&mut self, count: usize, bytes: usize, most: usize) {
        if bytes > most {
            self.cut_at(count.saturating_mul(most) / bytes);
        }
    }

    /// Only so many of the events asked for were as many bytes as a batch may have: asking for more is waste.
    pub fn cut_at(&mut self, events: usize) {
        self.now = i64::try_from(events).unwrap_or(self.most).clamp(1, self.most);
    }
}

/// Takes events until their bytes are a batch; the first one always.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: usize,
}

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Self { left: bytes }
    }

    /// Whether an event of this size is still taken.
    pub fn take(&mut self, bytes: usize) -> bool {
        let takes = self.left > 0;
        self.left = self.left.saturating_sub(bytes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_fails_shrinks_until_it_gets_through_and_grows_back() {
        let mut pace = Pace::new(4000);
        for _ in 0..20 {
            pace.failed();
        }
        assert_eq!(pace.events(), 1);
        for _ in 0..20 {
            pace.done();
        }
        assert_eq!(pace.events(), 4000);
        pace.cut_at(16);
        assert_eq!(pace.events(), 16);
        pace.cut_at(0);
        assert_eq!(pace.events(), 1);
    }

    #[test]
    fn a_batch_that_read_heavy_states_is_followed_by_a_smaller_one() {
        let mut pace = Pace::new(4000);
        assert_eq!(pace.events(), 1000, "what states weigh is not known at first");
        pace.done();
        pace.weighed(2000, MAX_STATE_BYTES);
        assert_eq!(pace.events(), 2000);
        pace.weighed(2000, 4 * MAX_STATE_BYTES);
        assert_eq!(pace.events(), 500);
    }

    #[test]
    fn a_budget_takes_at_least_one_event_and_not_much_more_than_its_bytes() {
        let taken = |sizes: &[usize]| {
            let mut budget = Budget::new(100);
            sizes.iter().take_while(|bytes| budget.take(**bytes)).count()
        };
        assert_eq!(taken(&[500, 1]), 1);
        assert_eq!(taken(&[60, 60, 60]), 2);
        assert_eq!(taken(&[1; 50]), 50);
    }
}
