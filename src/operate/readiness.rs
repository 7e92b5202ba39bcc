//! Gates that must be open before a process is ready. `/readyz` names the closed ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The gates of one process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    gates: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

impl Readiness {
    /// A new gate, closed: `pending` says what is being waited for.
    pub fn gate(&self, name: &'static str, pending: &str) -> Gate {
        let gate = Gate { name, readiness: self.clone() };
        gate.close(pending);
        gate
    }

    /// The closed gates and what each waits for.
    pub fn pending(&self) -> BTreeMap<&'static str, String> {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.iter().filter_map(|(name, why)| why.clone().map(|w| (*name, w))).collect()
    }

    fn set(&self, name: &'static str, why: Option<String>) {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).insert(name, why);
    }
}

/// One condition of readiness, for example `database`.
#[derive(Clone)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Gate {
    pub fn open(&self) {
        self.readiness.set(self.name, None);
    }

    /// Closes it again; `why` is shown to the operator.
    pub fn close(&self, why: &str) {
        self.readiness.set(self.name, Some(why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_pending() {
        let readiness = Readiness::default();
        let database = readiness.gate("database", "connecting");
        let bus = readiness.gate("bus", "no broker");
        database.open();
        assert_eq!(readiness.pending().into_iter().collect::<Vec<_>>(), [("bus", "no broker".to_owned())]);
        bus.open();
        assert!(readiness.pending().is_empty());
        database.close("away");
        assert_eq!(readiness.pending()["database"], "away");
    }
}
