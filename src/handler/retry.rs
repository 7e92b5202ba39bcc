//! When a lane whose events cannot be folded is tried again: pure.

use std::collections::{HashMap, HashSet};

use tokio::time::{Duration, Instant};

use crate::bus::Lane;

/// At once, after 1 s, after 2 s; then the failing events are given up.
pub const DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)];

/// What to do about a lane with failing events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Undo, and try the lane again later. Other lanes go on.
    Again,
    /// The failing events go to the dead letters.
    GiveUp,
}

/// The lanes that failed lately.
#[derive(Debug, Default)]
pub struct Retry {
    lanes: HashMap<Lane, (usize, Instant)>,
}

impl Retry {
    /// Counts a failure of a lane.
    pub fn failed(&mut self, lane: Lane, now: Instant) -> Verdict {
        let (attempts, until) = self.lanes.entry(lane).or_insert((0, now));
        let Some(delay) = DELAYS.get(*attempts) else { return Verdict::GiveUp };
        *attempts += 1;
        *until = now + *delay;
        Verdict::Again
    }

    /// A lane's events were folded or given up.
    pub fn settled(&mut self, lanes: &[Lane]) {
        if !self.lanes.is_empty() {
            for lane in lanes {
                self.lanes.remove(lane);
            }
        }
    }

    /// Lanes that are to be left alone for now.
    pub fn deferred(&self, now: Instant) -> HashSet<Lane> {
        self.lanes.iter().filter(|(_, (_, until))| *until > now).map(|(lane, _)| *lane).collect()
    }

    /// When the next deferred lane is due.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.lanes.values().map(|(_, until)| *until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_retries_then_it_is_given_up() {
        let mut retry = Retry::default();
        let mut now = Instant::now();
        for delay in DELAYS {
            assert_eq!(retry.failed(7, now), Verdict::Again);
            assert_eq!(retry.deferred(now).contains(&7), !delay.is_zero());
            now += delay;
            assert!(retry.deferred(now).is_empty() && retry.next(now).is_none());
        }
        assert_eq!(retry.failed(7, now), Verdict::GiveUp);
        retry.settled(&[7]);
        assert_eq!(retry.failed(7, now), Verdict::Again, "a later failure starts over");
    }
}
