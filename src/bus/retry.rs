//! When a lane whose events cannot be folded is tried again: pure. Each failing event has its own attempts.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio::time::{Duration, Instant};
use uuid::Uuid;

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

/// How often a lane is tried again at most while more and more of its events fail: each has its own attempts, but those
/// behind them wait no longer than this.
const MOST: usize = 8;

/// The lanes that failed lately.
#[derive(Debug, Default)]
pub struct Retry {
    lanes: HashMap<Lane, Failing>,
}

#[derive(Debug)]
struct Failing {
    /// How often each event was tried again.
    events: HashMap<Uuid, usize>,
    /// How often the lane was.
    rounds: usize,
    until: Instant,
}

impl Retry {
    /// Counts a failure of a lane's events, each once, however many projections it fails for.
    pub fn failed(&mut self, lane: Lane, events: &BTreeSet<Uuid>, now: Instant) -> Verdict {
        let new = || Failing { events: HashMap::new(), rounds: 0, until: now };
        let lane = self.lanes.entry(lane).or_insert_with(new);
        let tried = events.iter().map(|event| lane.events.get(event).copied().unwrap_or(0)).min().unwrap_or(0);
        let Some(delay) = DELAYS.get(tried).filter(|_| lane.rounds < MOST) else { return Verdict::GiveUp };
        for event in events {
            *lane.events.entry(*event).or_insert(0) += 1;
        }
        lane.rounds += 1;
        lane.until = now + *delay;
        Verdict::Again
    }

    /// How often an event was tried again.
    pub fn tried(&self, lane: Lane, event: Uuid) -> usize {
        self.lanes.get(&lane).and_then(|failing| failing.events.get(&event)).copied().unwrap_or(0)
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
        self.lanes.iter().filter(|(_, failing)| failing.until > now).map(|(lane, _)| *lane).collect()
    }

    /// When the next deferred lane is due.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.lanes.values().map(|failing| failing.until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_retries_then_it_is_given_up() {
        let mut retry = Retry::default();
        let one = BTreeSet::from([Uuid::from_u128(1)]);
        let mut now = Instant::now();
        for delay in DELAYS {
            assert_eq!(retry.failed(7, &one, now), Verdict::Again);
            assert_eq!(retry.deferred(now).contains(&7), !delay.is_zero());
            now += delay;
            assert!(retry.deferred(now).is_empty() && retry.next(now).is_none());
        }
        assert_eq!(retry.failed(7, &one, now), Verdict::GiveUp);
        retry.settled(&[7]);
        assert_eq!(retry.failed(7, &one, now), Verdict::Again, "a later failure starts over");
    }

    #[test]
    fn an_event_that_fails_later_than_its_neighbour_has_attempts_of_its_own() {
        let (first, both) = (Uuid::from_u128(1), BTreeSet::from([Uuid::from_u128(1), Uuid::from_u128(2)]));
        let (mut retry, now) = (Retry::default(), Instant::now());
        for _ in 0..2 {
            assert_eq!(retry.failed(7, &BTreeSet::from([first]), now), Verdict::Again);
        }
        for delay in DELAYS {
            assert_eq!(retry.failed(7, &both, now), Verdict::Again);
            assert_eq!(retry.next(now), (!delay.is_zero()).then(|| now + delay));
        }
        assert_eq!(retry.failed(7, &both, now), Verdict::GiveUp);
    }

    #[test]
    fn events_that_go_on_failing_one_after_the_other_hold_up_a_lane_for_a_while_only() {
        let (mut retry, now) = (Retry::default(), Instant::now());
        let mut failing = BTreeSet::new();
        for number in 0..MOST {
            failing.insert(Uuid::from_u128(number as u128));
            assert_eq!(retry.failed(7, &failing, now), Verdict::Again);
        }
        failing.insert(Uuid::max());
        assert_eq!(retry.failed(7, &failing, now), Verdict::GiveUp);
    }
}
