//! Which endpoint gets how many attempts next: pure. Each endpoint has a lane of its own, so that one that is slow holds up
//! nobody but itself.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};

/// Retries whose time is remembered, an endpoint; others are found by looking around.
const REMEMBERED: usize = 1_024;

/// How much is under way at a time.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Attempts at one endpoint.
    pub per_endpoint: usize,
    /// Attempts in all.
    pub in_all: usize,
    /// Deliveries that are claimed in one go.
    pub at_once: usize,
}

/// The lanes of all endpoints.
pub struct Lanes {
    bounds: Bounds,
    by_name: BTreeMap<String, Lane>,
    /// Who was asked last: the next one is first now.
    last: Option<String>,
}

#[derive(Default)]
struct Lane {
    under_way: usize,
    /// There may be something due.
    hungry: bool,
    /// Nothing may start before: the limit is reached, or the breaker is open.
    not_before: Option<Instant>,
    /// When something becomes due.
    due: BTreeSet<Instant>,
}

impl Lanes {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, by_name: BTreeMap::new(), last: None }
    }

    /// These endpoints exist. What is under way for others ends as it may.
    pub fn keep<'a>(&mut self, endpoints: impl Iterator<Item = &'a String>) {
        let kept: BTreeSet<&String> = endpoints.collect();
        self.by_name.retain(|name, lane| kept.contains(name) || lane.under_way > 0);
        for name in kept {
            self.by_name.entry(name.clone()).or_insert_with(|| Lane { hungry: true, ..Lane::default() });
        }
    }

    /// All of them may have something due.
    pub fn look_around(&mut self) {
        self.by_name.values_mut().for_each(|lane| lane.hungry = true);
    }

    /// There may be something due.
    pub fn is_hungry(&mut self, action: &str) {
        if let Some(lane) = self.by_name.get_mut(action) {
            lane.hungry = true;
        }
    }

    /// How many attempts are wanted of each endpoint now, in turn.
    pub fn wanted(&mut self, now: Instant) -> Vec<(String, usize)> {
        for lane in self.by_name.values_mut() {
            while lane.due.first().is_some_and(|due| *due <= now) {
                lane.due.pop_first();
                lane.hungry = true;
            }
        }
        // Each endpoint has a share that no other can take: however many hang, there is room for the rest.
        let per_endpoint = self.bounds.per_endpoint.min((self.bounds.in_all / self.by_name.len().max(1)).max(1));
        let free = self.bounds.in_all.saturating_sub(self.under_way()).min(self.bounds.at_once);
        let ready: Vec<(&String, usize)> = self
            .by_name
            .iter()
            .filter(|(_, lane)| lane.hungry && lane.not_before.is_none_or(|at| at <= now))
            .map(|(name, lane)| (name, per_endpoint.saturating_sub(lane.under_way)))
            .filter(|(_, room)| *room > 0)
            .collect();
        let after = ready.partition_point(|(name, _)| self.last.as_ref().is_some_and(|last| *name <= last));
        let in_turn = ready[after..].iter().chain(&ready[..after]).take(free);
        let share = (free / ready.len().max(1)).max(1);
        let wanted: Vec<_> = in_turn.map(|(name, room)| ((*name).clone(), (*room).min(share))).collect();
        self.last = wanted.last().map(|(name, _)| name.clone()).or(self.last.take());
        wanted
    }

    /// So many were claimed of those wanted; where it were less, nothing more is due now.
    pub fn begun(&mut self, action: &str, claimed: usize, wanted: usize) {
        if let Some(lane) = self.by_name.get_mut(action) {
            lane.under_way += claimed;
            lane.hungry = claimed >= wanted;
        }
    }

    /// Nothing more may start before.
    pub fn not_before(&mut self, action: &str, at: Option<Instant>) {
        if let Some(lane) = self.by_name.get_mut(action) {
            lane.not_before = at;
        }
    }

    /// So many attempts ended, and deliveries become due again at these times.
    pub fn ended(&mut self, action: &str, count: usize, due: impl Iterator<Item = Instant>) {
        if let Some(lane) = self.by_name.get_mut(action) {
            lane.under_way = lane.under_way.saturating_sub(count);
            // What stood behind them may be due, and the breaker may say something else now.
            (lane.hungry, lane.not_before) = (true, None);
            lane.due.extend(due);
            while lane.due.len() > REMEMBERED {
                lane.due.pop_last();
            }
        }
    }

    /// When to ask again, if nothing happens before.
    pub fn next(&self, now: Instant, at_most: Duration) -> Instant {
        let times = self.by_name.values().flat_map(|lane| {
            let parked = lane.not_before.filter(|at| lane.hungry && *at > now);
            parked.into_iter().chain(lane.due.first().copied())
        });
        times.min().unwrap_or(now + at_most).min(now + at_most)
    }

    pub fn under_way(&self) -> usize {
        self.by_name.values().map(|lane| lane.under_way).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { per_endpoint: 4, in_all: 8, at_once: 6 };

    fn lanes(names: &[&str]) -> Lanes {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut lanes = Lanes::new(BOUNDS);
        lanes.keep(names.iter());
        lanes
    }

    fn wanted(lanes: &mut Lanes, now: Instant) -> Vec<(String, usize)> {
        lanes.wanted(now)
    }

    fn named(pairs: &[(&str, usize)]) -> Vec<(String, usize)> {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn each_endpoint_has_room_of_its_own_and_all_share_what_is_free() {
        let now = Instant::now();
        let mut lanes = lanes(&["a", "b"]);
        assert_eq!(wanted(&mut lanes, now), named(&[("a", 3), ("b", 3)]));
        lanes.begun("a", 3, 3);
        lanes.begun("b", 1, 3);
        assert_eq!(wanted(&mut lanes, now), named(&[("a", 1)]), "nothing more is due of b");
        lanes.begun("a", 1, 1);
        assert!(wanted(&mut lanes, now).is_empty(), "a has as many under way as it may");
        lanes.is_hungry("b");
        assert_eq!(wanted(&mut lanes, now), named(&[("b", 3)]));
    }

    #[test]
    fn however_many_hang_each_endpoint_has_its_share() {
        let now = Instant::now();
        let mut lanes = lanes(&["a", "b", "c", "d", "e"]);
        let first = wanted(&mut lanes, now);
        assert!(first.iter().all(|(_, count)| *count == 1), "{first:?}");
        for (name, count) in first {
            lanes.begun(&name, count, count);
        }
        assert!(wanted(&mut lanes, now).is_empty(), "all hang");
        let six: Vec<String> = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec();
        lanes.keep(six.iter());
        assert_eq!(wanted(&mut lanes, now), named(&[("f", 1)]));
    }

    #[test]
    fn where_there_is_not_enough_for_all_they_take_turns() {
        let now = Instant::now();
        let mut lanes = lanes(&["a", "b", "c", "d", "e", "f", "g", "h"]);
        let first: Vec<_> = wanted(&mut lanes, now).into_iter().map(|(name, _)| name).collect();
        assert_eq!(first, ["a", "b", "c", "d", "e", "f"]);
        let next: Vec<_> = wanted(&mut lanes, now).into_iter().map(|(name, _)| name).collect();
        assert_eq!(next, ["g", "h", "a", "b", "c", "d"]);
    }

    #[test]
    fn what_is_parked_is_asked_again_when_its_time_has_come() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut lanes = lanes(&["a"]);
        lanes.not_before("a", Some(later));
        assert!(wanted(&mut lanes, now).is_empty());
        assert_eq!(lanes.next(now, Duration::from_mins(1)), later);
        assert_eq!(wanted(&mut lanes, later).len(), 1);
    }

    #[test]
    fn what_is_parked_is_asked_again_when_an_attempt_ended() {
        let now = Instant::now();
        let mut lanes = lanes(&["a"]);
        lanes.begun("a", 1, 1);
        lanes.not_before("a", Some(now + Duration::from_mins(1)));
        lanes.ended("a", 1, std::iter::empty());
        assert_eq!(wanted(&mut lanes, now).len(), 1, "it may have closed the breaker");
    }

    #[test]
    fn a_retry_is_asked_for_when_it_is_due() {
        let now = Instant::now();
        let due = now + Duration::from_secs(2);
        let mut lanes = lanes(&["a"]);
        lanes.begun("a", 1, 2);
        lanes.ended("a", 1, [due].into_iter());
        assert_eq!(wanted(&mut lanes, now).len(), 1, "something may have stood behind it");
        lanes.begun("a", 0, 4);
        assert!(wanted(&mut lanes, now).is_empty());
        assert_eq!(lanes.next(now, Duration::from_mins(1)), due);
        assert_eq!(wanted(&mut lanes, due).len(), 1);
    }

    #[test]
    fn an_endpoint_that_is_gone_is_kept_while_something_is_under_way() {
        let now = Instant::now();
        let mut lanes = lanes(&["a", "b"]);
        lanes.begun("a", 2, 2);
        let left = ["b".to_owned()];
        lanes.keep(left.iter());
        assert_eq!(lanes.under_way(), 2);
        lanes.ended("a", 2, std::iter::empty());
        lanes.keep(left.iter());
        assert_eq!(wanted(&mut lanes, now), named(&[("b", 4)]));
    }
}
