//! A status says what was true when controllers wrote it. Where nothing runs any more, `get` says so instead. Pure.

use crds::reason::Reason;
use crds::registration::Kind;
use crds::role::Role;
use serde_json::{Value, json};

use super::store::{Entry, Life};

/// An instance without a heartbeat for this long counts as gone, in seconds.
const GONE: i64 = 15;
/// A heartbeat comes every 5 s: older than this, one is missing.
const LATE: i64 = 8;

/// Takes `Ready` back where nobody lives who could run the resource. The database read is the one of the projections:
/// handlers and query services announce themselves there; ingest and relay may do so in one of their own.
pub fn tell(entry: &mut Entry, life: &Life) {
    let alive = |of: fn(&Role) -> bool| life.connected && life.heartbeats.iter().any(|(r, age)| *age < GONE && of(r));
    let here = |role: &Role| matches!(role, Role::Handle | Role::Query);
    let silent = !alive(|_| true) || entry.kind == Kind::Projection && !alive(here);
    if !silent || entry.status.is_null() {
        return;
    }
    let message = format!("nothing is running: {}; start `cornjacket up`, or the roles", seen(life));
    let was = entry.status["conditions"].as_array();
    let others = was.into_iter().flatten().filter(|c| c["type"] != "Ready").cloned();
    let ready =
        json!({"type": "Ready", "status": "Unknown", "reason": Reason::NoInstances.as_str(), "message": message});
    let conditions: Vec<Value> = std::iter::once(ready).chain(others).collect();
    entry.status["conditions"] = conditions.into();
}

fn seen(life: &Life) -> String {
    match youngest(life) {
        None => format!("no process has shown itself in this database for {GONE} s"),
        Some(age) if life.connected => format!("the last sign of life in this database is {age} s old"),
        Some(age) => format!("no process is connected to this database, and the last sign of life is {age} s old"),
    }
}

fn youngest(life: &Life) -> Option<i64> {
    life.heartbeats.iter().map(|(_, age)| *age).min()
}

/// What to say where processes are late but not gone: the table may be out of date.
pub fn note(life: &Life) -> Option<String> {
    let late = |age: &i64| life.connected && (LATE..GONE).contains(age);
    let age = youngest(life).filter(late)?;
    Some(format!("note: no process has shown itself for {age} s; what follows may be out of date"))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn after(kind: Kind, life: &Life) -> (String, String) {
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
            dead_letters: None,
        };
        tell(&mut entry, life);
        assert_eq!(entry.status["conditions"].as_array().map(Vec::len), Some(1));
        let text = |field: &str| entry.status["conditions"][0][field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("message"))
    }

    fn life(heartbeats: &[(Role, i64)], connected: bool) -> Life {
        Life { heartbeats: heartbeats.to_vec(), connected }
    }

    #[test]
    fn nothing_is_ready_where_nothing_runs() {
        let status = |kind, heartbeats: &[(Role, i64)]| after(kind, &life(heartbeats, true)).0;
        assert_eq!(status(Kind::Topic, &[]), "Unknown");
        assert_eq!(status(Kind::Topic, &[(Role::Relay, 15)]), "Unknown");
        assert_eq!(status(Kind::Topic, &[(Role::Relay, 3)]), "True");
        assert_eq!(status(Kind::EventType, &[(Role::Handle, 3)]), "True", "ingest may live in another database");
        assert_eq!(status(Kind::Projection, &[(Role::Ingest, 3)]), "Unknown");
        assert_eq!(status(Kind::Projection, &[(Role::Query, 3), (Role::Handle, 90)]), "True");
    }

    #[test]
    fn a_process_that_was_killed_a_moment_ago_is_no_longer_connected() {
        let (status, message) = after(Kind::Topic, &life(&[(Role::Relay, 2), (Role::Query, 4)], false));
        assert_eq!(status, "Unknown");
        assert!(message.contains("no process is connected") && message.contains("2 s old"), "{message}");
    }

    #[test]
    fn what_may_be_out_of_date_is_said_to_be() {
        let noted = |age, connected| note(&life(&[(Role::Relay, age), (Role::Query, 60)], connected));
        assert_eq!((noted(4, true), noted(16, true), noted(9, false)), (None, None, None));
        assert!(noted(9, true).is_some_and(|note| note.contains("9 s")));
    }
}
