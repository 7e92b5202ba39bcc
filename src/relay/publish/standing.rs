//! Which topics are set aside since they are not written, and until when; and how much each takes at a time: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Shard;

/// How many bytes of messages are put together, where a topic has not refused that.
pub(super) const TOGETHER: usize = 1_000_000;
/// First pause after a failure; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A topic that is written this long counts as one that never failed.
const FORGIVEN: Duration = Duration::from_mins(1);

/// A row of the outbox: its shard and position.
pub(super) type Place = (Shard, i64);

/// Topics that are not like the others.
#[derive(Debug, Default)]
pub(super) struct Standings {
    topics: BTreeMap<String, Standing>,
}

#[derive(Clone, Copy, Debug)]
struct Standing {
    failures: u32,
    failed_at: Instant,
    /// Set aside until then, and the first row that waits.
    waits: Option<(Instant, Place)>,
    together: usize,
}

impl Standings {
    /// Whether rows of this topic are passed over.
    pub fn waits(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|standing| standing.waits.is_some())
    }

    pub fn any_waits(&self) -> bool {
        self.waiting() > 0
    }

    pub fn waiting(&self) -> usize {
        self.topics.values().filter(|standing| standing.waits.is_some()).count()
    }

    /// For a topic that needs a producer of its own, so that its refusals end no other's: how much that puts together.
    pub fn together(&self, topic: &str) -> Option<usize> {
        self.topics.get(topic).map(|standing| standing.together)
    }

    /// The topic that is to be tried first, with its first row that waits and when.
    pub fn next(&self) -> Option<(&str, Instant, Place)> {
        let waiting =
            self.topics.iter().filter_map(|(topic, s)| s.waits.map(|(at, place)| (topic.as_str(), at, place)));
        waiting.min_by_key(|(_, at, _)| *at)
    }

    /// The topic is not written. `first`: the first row of it that waits. Answers with whether it was written so far.
    pub fn failed(&mut self, topic: &str, first: Place, now: Instant) -> bool {
        let standing = self.entry(topic, now);
        standing.failures += 1;
        standing.failed_at = now;
        let pause = pause(standing.failures);
        standing.waits.replace((now + pause, first)).is_none()
    }

    /// Tries a topic again at another time, through no fault of its own.
    pub fn later(&mut self, topic: &str, at: Instant) {
        if let Some((until, _)) = self.topics.get_mut(topic).and_then(|standing| standing.waits.as_mut()) {
            *until = at;
        }
    }

    /// What was put together was too large.
    pub fn shrink(&mut self, topic: &str, now: Instant) {
        let standing = self.entry(topic, now);
        standing.together = (standing.together / 2).max(1);
    }

    /// The topic is written again.
    pub fn back(&mut self, topic: &str) {
        if let Some(standing) = self.topics.get_mut(topic) {
            standing.waits = None;
        }
    }

    /// Where events go has changed: whatever waited is looked at anew.
    pub fn all_back(&mut self) {
        self.topics.values_mut().for_each(|standing| standing.waits = None);
    }

    /// Forgets failures that are long ago.
    pub fn forgive(&mut self, now: Instant) {
        let forgiven = |s: &Standing| s.waits.is_none() && s.together >= TOGETHER && now > s.failed_at + FORGIVEN;
        self.topics.retain(|_, standing| !forgiven(standing));
    }

    fn entry(&mut self, topic: &str, now: Instant) -> &mut Standing {
        let new = Standing { failures: 0, failed_at: now, waits: None, together: TOGETHER };
        self.topics.entry(topic.to_owned()).or_insert(new)
    }
}

/// The pause after the n-th failure.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pauses = [1, 2, 4, 8, 4_000].map(pause).map(|pause| pause.as_millis());
        assert_eq!(pauses, [250, 500, 2_000, 30_000, 30_000]);
    }

    #[test]
    fn a_topic_that_fails_waits_and_is_like_the_others_a_minute_after_its_last_failure() {
        let (now, mut standings) = (Instant::now(), Standings::default());
        assert!(standings.failed("a", (3, 7), now) && !standings.failed("a", (3, 7), now));
        assert_eq!(standings.next(), Some(("a", now + pause(2), (3, 7))));
        standings.forgive(now + FORGIVEN * 2);
        assert!(standings.waits("a"), "it still waits");
        standings.back("a");
        standings.forgive(now + FORGIVEN / 2);
        assert_eq!(standings.together("a"), Some(TOGETHER));
        standings.forgive(now + FORGIVEN * 2);
        assert_eq!(standings.together("a"), None);
    }

    #[test]
    fn a_topic_that_takes_less_is_remembered() {
        let (now, mut standings) = (Instant::now(), Standings::default());
        standings.shrink("a", now);
        standings.forgive(now + FORGIVEN * 2);
        assert_eq!(standings.together("a"), Some(TOGETHER / 2));
        (0..40).for_each(|_| standings.shrink("a", now));
        assert_eq!(standings.together("a"), Some(1));
    }
}
