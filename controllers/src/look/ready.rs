//! `Ready` of a resource, and what the log says of it.

use crds::reason::Reason;
use crds::registration::ResourceKey;
use serde_json::Value;
use tracing::{debug, info, warn};

/// `Ready` as a status has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// `True`, `False`, `Unknown`, or empty before the first look.
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Ready {
    pub fn of(status: &Value) -> Self {
        let conditions = status.get("conditions").and_then(|list| list.as_array());
        let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready");
        let text = |field: &str| ready.and_then(|c| c[field].as_str()).unwrap_or_default().to_owned();
        Self { status: text("status"), reason: text("reason"), message: text("message") }
    }

    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// On the way, which takes a moment: no news.
    pub fn is_on_the_way(&self) -> bool {
        [Reason::AwaitingInstances, Reason::Progressing, Reason::Pending].iter().any(|r| r.as_str() == self.reason)
    }
}

/// One log line a transition of `Ready`. `origin` is where the resource is declared, for people.
pub fn announce(key: &ResourceKey, origin: &str, status: &Value, before: Option<&Value>) {
    let (was, is) = (before.map(Ready::of), Ready::of(status));
    if was.as_ref() == Some(&is) {
        return;
    }
    if is.is_true() {
        info!(resource = %key, "ready: {}", is.message);
    } else if is.is_on_the_way() {
        debug!(resource = %key, reason = is.reason, origin, "not ready yet: {}", is.message);
    } else {
        warn!(resource = %key, reason = is.reason, origin, "not ready: {}", is.message);
    }
}
