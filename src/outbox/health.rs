//! Whether the writers reach the database: the gate `database` of readiness, and an answer at once while it is away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::operate::Gate;

/// The health of one writer.
pub(super) struct Health {
    bit: u64,
    /// Away for longer than events wait: they are refused at once.
    refusing: AtomicBool,
    shared: Arc<Shared>,
}

struct Shared {
    gate: Gate,
    all: u64,
    connected: AtomicU64,
    reason: Mutex<String>,
}

impl Health {
    /// The healths of `count` (1 to 64) writers that share a gate. None is connected.
    pub fn group(count: usize, gate: Gate) -> Vec<Self> {
        let all = u64::MAX >> (64 - count);
        let reason = Mutex::new("not connected yet".to_owned());
        let shared = Arc::new(Shared { gate, all, connected: AtomicU64::new(0), reason });
        let health = |i| Self { bit: 1_u64 << i, refusing: AtomicBool::new(true), shared: Arc::clone(&shared) };
        (0..count).map(health).collect()
    }

    pub fn connected(&self) {
        self.refusing.store(false, Ordering::Release);
        let before = self.shared.connected.fetch_or(self.bit, Ordering::AcqRel);
        if before | self.bit == self.shared.all {
            self.shared.gate.open();
        }
    }

    /// The connection is lost; events still wait.
    pub fn lost(&self, reason: &str) {
        self.shared.connected.fetch_and(!self.bit, Ordering::AcqRel);
        reason.clone_into(&mut self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.gate.close(reason);
    }

    /// Events no longer wait.
    pub fn refuse(&self) {
        self.refusing.store(true, Ordering::Release);
    }

    /// Why events are refused at once, if they are.
    pub fn refuses(&self) -> Option<String> {
        self.refusing.load(Ordering::Acquire).then(|| self.reason())
    }

    pub fn reason(&self) -> String {
        self.shared.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::Readiness;

    #[test]
    fn the_gate_is_open_while_all_writers_are_connected() {
        let readiness = Readiness::default();
        let healths = Health::group(2, readiness.gate("database", "connecting"));
        healths[0].connected();
        assert!(readiness.pending().contains_key("database"));
        assert!(healths[1].refuses().is_some(), "nothing waits for a database that was never there");
        healths[1].connected();
        assert!(readiness.pending().is_empty());
        healths[0].lost("connection reset");
        assert_eq!(readiness.pending()["database"], "connection reset");
        assert_eq!(healths[0].refuses(), None, "events still wait");
        healths[0].refuse();
        assert_eq!(healths[0].refuses().as_deref(), Some("connection reset"));
        healths[0].connected();
        assert!(readiness.pending().is_empty());
    }
}
