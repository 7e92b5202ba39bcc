//! How long to wait before something transient is tried again. Pure: the attempt and a random number go in.

use std::time::Duration;

/// First wait, before jitter.
const BASE: Duration = Duration::from_millis(500);
/// Longest wait.
const CAP: Duration = Duration::from_mins(1);

/// The wait before try number `attempt` (0 for the first repetition): doubles up to a cap, and `random` (0 to 1)
/// takes up to half of it away, so that many who failed together do not come back together.
pub fn delay(attempt: u32, random: f64) -> Duration {
    let full = BASE.saturating_mul(2_u32.saturating_pow(attempt.min(16))).min(CAP);
    full.mul_f64(1.0 - 0.5 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_a_cap_and_never_more_than_halves_by_jitter() {
        assert_eq!(delay(0, 0.0), BASE);
        assert_eq!(delay(1, 0.0), BASE * 2);
        assert_eq!(delay(1, 1.0), BASE);
        assert_eq!(delay(u32::MAX, 0.0), CAP);
        assert_eq!(delay(u32::MAX, 7.0), CAP / 2);
    }
}
