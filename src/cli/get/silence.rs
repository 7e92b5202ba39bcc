//! A status says what was true when controllers wrote it. Where nothing runs any more, `get` says so instead. Pure.

use crds::reason::Reason;
use crds::registration::Kind;
use crds::role::Role;
use serde_json::{Value, json};

use super::store::Entry;

/// Takes `Ready` back where nobody lives who could run the resource. The database read is the one of the projections:
/// handlers and query services announce themselves there; ingest and relay may do so in one of their own.
pub fn tell(entry: &mut Entry, live: &[Role]) {
    let here = |role: &Role| matches!(role, Role::Handle | Role::Query);
    let silent = live.is_empty() || entry.kind == Kind::Projection && !live.iter().any(here);
    if !silent || entry.status.is_null() {
        return;
    }
    let message = "nothing is running: no process has shown itself in this database for 15 s; start `cornjacket up`, or \
                   the roles";
    let was = entry.status["conditions"].as_array();
    let others = was.into_iter().flatten().filter(|c| c["type"] != "Ready").cloned();
    let ready =
        json!({"type": "Ready", "status": "Unknown", "reason": Reason::NoInstances.as_str(), "message": message});
    let conditions: Vec<Value> = std::iter::once(ready).chain(others).collect();
    entry.status["conditions"] = conditions.into();
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn after(kind: Kind, live: &[Role]) -> String {
        let mut entry = Entry {
            kind,
            namespace: "default".into(),
            name: "a".into(),
            generation: 1,
            origin: None,
            created_at: DateTime::UNIX_EPOCH,
            status: json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Available"}]}),
            registered: None,
            progress: None,
        };
        tell(&mut entry, live);
        assert_eq!(entry.status["conditions"].as_array().map(Vec::len), Some(1));
        entry.status["conditions"][0]["status"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn nothing_is_ready_where_nothing_runs() {
        assert_eq!(after(Kind::Topic, &[]), "Unknown");
        assert_eq!(after(Kind::Topic, &[Role::Relay]), "True");
        assert_eq!(after(Kind::EventType, &[Role::Handle]), "True", "ingest may live in another database");
        assert_eq!(after(Kind::Projection, &[Role::Ingest]), "Unknown");
        assert_eq!(after(Kind::Projection, &[Role::Query]), "True");
    }
}
