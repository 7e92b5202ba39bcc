//! The rate limit: so many attempts in each window, which begins with its first. Pure.

/// Times are milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// When the window ends; attempts after it begin a new one.
    ends: i64,
    started: i64,
}

/// How much may start in each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub most: i64,
    pub per_ms: i64,
}

impl Window {
    /// Takes up to `wanted` permits; returns how many, and when there are more where it is not all.
    pub fn take(&mut self, limit: Limit, wanted: i64, now: i64) -> (i64, Option<i64>) {
        // A window that ends later than one could have begun is of a clock that was put back, or of a longer limit.
        if now >= self.ends || self.ends > now.saturating_add(limit.per_ms) {
            *self = Self { ends: now.saturating_add(limit.per_ms), started: 0 };
        }
        let granted = wanted.min(limit.most - self.started).max(0);
        self.started += granted;
        (granted, (granted < wanted).then_some(self.ends))
    }

    /// Permits that were not used.
    pub fn give_back(&mut self, unused: i64) {
        self.started = (self.started - unused).max(0);
        if self.started == 0 {
            // It has not begun.
            self.ends = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_MINUTE: Limit = Limit { most: 10, per_ms: 60_000 };

    #[test]
    fn a_window_begins_with_its_first_attempt_and_has_so_many() {
        let mut window = Window::default();
        assert_eq!(window.take(TEN_A_MINUTE, 4, 1_000), (4, None));
        assert_eq!(window.take(TEN_A_MINUTE, 8, 31_000), (6, Some(61_000)));
        assert_eq!(window.take(TEN_A_MINUTE, 1, 60_999), (0, Some(61_000)));
        assert_eq!(window.take(TEN_A_MINUTE, 20, 61_000), (10, Some(121_000)));
    }

    #[test]
    fn what_was_not_used_may_be_taken_again() {
        let mut window = Window::default();
        assert_eq!(window.take(TEN_A_MINUTE, 10, 0), (10, None));
        window.give_back(3);
        assert_eq!(window.take(TEN_A_MINUTE, 10, 1), (3, Some(60_000)));
    }

    #[test]
    fn a_window_in_which_nothing_started_has_not_begun() {
        let mut window = Window::default();
        window.take(TEN_A_MINUTE, 10, 0);
        window.give_back(10);
        assert_eq!(window.take(TEN_A_MINUTE, 10, 59_000), (10, None));
        assert_eq!(window.take(TEN_A_MINUTE, 1, 61_000), (0, Some(119_000)), "ten a minute from then");
    }

    #[test]
    fn a_shorter_limit_and_a_clock_put_back_are_not_waited_for() {
        let mut window = Window::default();
        window.take(Limit { most: 1, per_ms: 3_600_000 }, 1, 0);
        assert_eq!(window.take(TEN_A_MINUTE, 1, 1), (1, None));
    }
}
