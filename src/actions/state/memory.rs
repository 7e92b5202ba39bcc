//! The state of one instance, in its memory: lost with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::breaker::{Admission, Breaker, Change, Report, Threshold};
use super::window::Window;
use super::{Ask, Grant, Seen};

/// Keys of one action that are remembered before old ones are looked for.
const SWEEP_AT: usize = 10_000;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Memory {
    actions: Arc<Mutex<HashMap<String, Action>>>,
}

#[derive(Default)]
struct Action {
    breaker: Breaker,
    window: Window,
    /// By a hash of the key: an action makes keys as long as it likes.
    keys: HashMap<u128, (Uuid, i64)>,
    /// How many keys there may be before old ones are looked for.
    sweep_at: usize,
}

impl Memory {
    pub(super) fn duplicates(&self, action: &str, window_ms: i64, events: &[Seen]) -> Vec<bool> {
        let mut actions = self.actions();
        let action = actions.entry(action.to_owned()).or_default();
        let duplicates = events.iter().map(|event| action.is_duplicate(window_ms, event)).collect();
        action.sweep(window_ms);
        duplicates
    }

    pub(super) fn admit(&self, ask: &Ask, now: i64) -> Grant {
        let mut actions = self.actions();
        let action = actions.entry(ask.action.clone()).or_default();
        let (wanted, probe) = match action.breaker.admit(now, ask.probe_ms) {
            Admission::NotBefore(again_at) => return Grant { count: 0, probe: false, again_at: Some(again_at) },
            Admission::Probe => (ask.wanted.min(1), true),
            Admission::All => (ask.wanted, false),
        };
        let (count, again_at) = action.window.take(ask.limit, wanted, now);
        if probe && count == 0 {
            action.breaker.give_back();
        }
        Grant { count, probe: probe && count > 0, again_at }
    }

    pub(super) fn give_back(&self, action: &str, unused: i64, probe: bool) {
        if let Some(action) = self.actions().get_mut(action) {
            action.window.give_back(unused);
            if probe {
                action.breaker.give_back();
            }
        }
    }

    pub(super) fn report(&self, action: &str, threshold: Threshold, reports: &[Report], now: i64) -> Change {
        let mut actions = self.actions();
        let breaker = &mut actions.entry(action.to_owned()).or_default().breaker;
        reports.iter().fold(Change::None, |last, report| match breaker.report(threshold, *report, now) {
            Change::None => last,
            change => change,
        })
    }

    pub(super) fn reset(&self, action: &str) {
        if let Some(action) = self.actions().get_mut(action) {
            action.breaker = Breaker::default();
        }
    }

    fn actions(&self) -> MutexGuard<'_, HashMap<String, Action>> {
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Action {
    fn is_duplicate(&mut self, window_ms: i64, event: &Seen) -> bool {
        let key = xxh3_128(event.key.as_bytes());
        match self.keys.get(&key) {
            Some((first, _)) if *first == event.event_id => false,
            // Events of one key may come from several shards, and not quite in order.
            Some((_, at)) if (event.at - at).abs() < window_ms => true,
            _ => {
                self.keys.insert(key, (event.event_id, event.at));
                false
            }
        }
    }

    fn sweep(&mut self, window_ms: i64) {
        if self.keys.len() < self.sweep_at.max(SWEEP_AT) {
            return;
        }
        let newest = self.keys.values().map(|(_, at)| *at).max().unwrap_or_default();
        self.keys.retain(|_, (_, at)| newest - *at < window_ms);
        self.sweep_at = self.keys.len() * 2;
    }
}

#[cfg(test)]
mod tests;
