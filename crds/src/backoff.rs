//! How long to wait before something transient is tried again. Pure: the attempt and a random number go in.

use std::time::Duration;

/// Waits that double up to a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// First wait, before jitter.
    pub base: Duration,
    /// Longest wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait before try number `attempt` (0 for the first repetition): doubles up to the cap, and `random` (0 to 1)
    /// takes up to half of it away, so that many who failed together do not come back together.
    pub fn delay(self, attempt: u32, random: f64) -> Duration {
        let full = self.base.saturating_mul(2_u32.saturating_pow(attempt.min(16))).min(self.cap);
        full.mul_f64(1.0 - 0.5 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_a_cap_and_never_more_than_halves_by_jitter() {
        let base = Duration::from_millis(500);
        let backoff = Backoff { base, cap: base * 100 };
        assert_eq!(backoff.delay(0, 0.0), base);
        assert_eq!(backoff.delay(1, 0.0), base * 2);
        assert_eq!(backoff.delay(1, 1.0), base);
        assert_eq!(backoff.delay(u32::MAX, 0.0), base * 100);
        assert_eq!(backoff.delay(u32::MAX, 7.0), base * 50);
    }
}
