//! News of deliveries, from who makes them to who carries them out.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Actions that have new deliveries. Cheap to clone.
#[derive(Clone, Default)]
pub struct Made {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    actions: Mutex<BTreeSet<String>>,
    told: Notify,
}

impl Made {
    pub fn add<'a>(&self, actions: impl Iterator<Item = &'a str>) {
        let mut known = self.inner.actions.lock().unwrap_or_else(PoisonError::into_inner);
        for action in actions {
            if !known.contains(action) {
                known.insert(action.to_owned());
            }
        }
        let any = !known.is_empty();
        drop(known);
        if any {
            self.inner.told.notify_one();
        }
    }

    /// Waits until there are some, and takes them.
    pub async fn take(&self) -> BTreeSet<String> {
        loop {
            let actions = std::mem::take(&mut *self.inner.actions.lock().unwrap_or_else(PoisonError::into_inner));
            if !actions.is_empty() {
                return actions;
            }
            self.inner.told.notified().await;
        }
    }
}
