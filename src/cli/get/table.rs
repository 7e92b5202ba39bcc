//! The table that `get` prints. Pure: entries and the time go in, text comes out.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::{DateTime, Utc};
use crds::registration::Kind;
use serde_json::Value;
use url::Url;

use super::store::{Entry, Waiting};

/// Longest message in a table that is not wide, in characters.
const MESSAGE: usize = 90;

/// One block a kind. `qualified` puts the kind before each name; `wide` adds whole messages and origins.
pub fn render(entries: &[Entry], qualified: bool, wide: bool, now: DateTime<Utc>) -> String {
    let mut blocks = Vec::new();
    for kind in Kind::ALL {
        let rows: Vec<Vec<String>> =
            entries.iter().filter(|e| e.kind == kind).map(|e| row(e, qualified, wide, now)).collect();
        if !rows.is_empty() {
            blocks.push(block(&header(kind, wide), &rows));
        }
    }
    blocks.join("\n")
}

fn header(kind: Kind, wide: bool) -> Vec<&'static str> {
    let facts: &[&str] = match kind {
        Kind::Topic => &["TOPIC", "PARTITIONS"],
        Kind::EventType => &["TYPE", "TOPIC", "VERSION"],
        Kind::Projection => &["TYPE", "CAUGHT-UP", "DEAD-LETTERS"],
        Kind::WebhookAction => &["HOST", "HEALTHY"],
    };
    let more: &[&str] = if wide { &["GENERATION", "SERVED", "ACKED", "ORIGIN"] } else { &[] };
    [&["NAME", "READY", "REASON"], facts, more, &["AGE", "MESSAGE"]].concat()
}

fn row(entry: &Entry, qualified: bool, wide: bool, now: DateTime<Utc>) -> Vec<String> {
    let name =
        if qualified { format!("{}/{}", entry.kind.as_str().to_lowercase(), entry.name) } else { entry.name.clone() };
    let mut row = vec![name, ready(&entry.status, "status"), ready(&entry.status, "reason")];
    let spec = |field: &str| entry.registered.as_ref().map_or_else(String::new, |r| text(&r.spec[field]));
    let status = |field: &str| text(&entry.status[field]);
    match entry.kind {
        Kind::Topic => row.extend([spec("topicName"), status("partitions")]),
        Kind::EventType => row.extend([spec("type"), status("topic"), status("version")]),
        Kind::Projection => {
            let letters = entry.dead_letters.map_or_else(String::new, |letters| letters.to_string());
            row.extend([spec("type"), caught_up(entry), letters]);
        }
        Kind::WebhookAction => row.extend([host(&spec("url")), condition(&entry.status, "EndpointHealthy", "status")]),
    }
    if wide {
        let served = entry.registered.as_ref().map_or_else(String::new, |r| r.generation.to_string());
        row.extend([entry.generation.to_string(), served, instances(&entry.status)]);
        row.push(entry.origin.clone().unwrap_or_default());
    }
    let message = message(entry);
    row.extend([age(now - entry.created_at), if wide { message } else { cut(&message) }]);
    row
}

/// What to say of dead letters, if there are some that wait.
pub fn waiting(letters: &Waiting) -> Option<String> {
    let mut consumers: BTreeMap<&str, i64> = BTreeMap::new();
    for ((consumer, _), count) in letters {
        *consumers.entry(consumer).or_default() += count;
    }
    let named: Vec<String> = consumers.iter().map(|(consumer, count)| format!("{consumer} {count}")).collect();
    let named = named.join(", ");
    (!named.is_empty()).then(|| format!("note: dead letters wait for a decision ({named}): see `cornjacket dlq list`"))
}

/// How many roles of live processes run it, of how many.
fn instances(status: &Value) -> String {
    match (&status["dataPlane"]["ackedReplicas"], &status["dataPlane"]["totalReplicas"]) {
        (Value::Number(acked), Value::Number(total)) => format!("{acked}/{total}"),
        _ => String::new(),
    }
}

fn caught_up(entry: &Entry) -> String {
    match &entry.progress {
        // A time series, whose progress is in another database.
        None => condition(&entry.status, "CaughtUp", "status"),
        Some(progress) => match progress.status.as_str() {
            "live" => "True".to_owned(),
            "catching_up" => format!("{} behind", progress.behind),
            other => other.to_owned(),
        },
    }
}

/// A field of the condition `Ready`.
fn ready(status: &Value, field: &str) -> String {
    match (condition(status, "Ready", field).as_str(), field) {
        ("", "status") => "Unknown".to_owned(),
        (text, _) => text.to_owned(),
    }
}

/// A field of a condition; empty where there is none.
fn condition(status: &Value, name: &str, field: &str) -> String {
    let conditions = status["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == name);
    found.map_or_else(String::new, |c| text(&c[field]))
}

/// Why it is not ready; of an action that is, why its endpoint takes nothing.
fn message(entry: &Entry) -> String {
    let status = &entry.status;
    let unwell = ready(status, "status") == "True" && condition(status, "EndpointHealthy", "status") == "False";
    if unwell { condition(status, "EndpointHealthy", "message") } else { ready(status, "message") }
}

/// Without the path, which may hold a token.
fn host(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return String::new() };
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn cut(message: &str) -> String {
    match message.char_indices().nth(MESSAGE) {
        Some((end, _)) => format!("{}… (-o wide)", &message[..end]),
        None => message.to_owned(),
    }
}

/// As kubectl writes it: `45s`, `12m`, `3h`, `2d`.
pub fn age(age: chrono::TimeDelta) -> String {
    let seconds = age.num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub fn block(header: &[&str], rows: &[Vec<String>]) -> String {
    let shown = |cell: &str| if cell.is_empty() { "-".to_owned() } else { cell.replace('\n', " ") };
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let header: Vec<String> = header.iter().map(|&h| h.to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::store::{Progress, Registered};
    use super::*;

    fn entry(kind: Kind, name: &str, reason: &str, message: &str, spec: Value) -> Entry {
        let status = if reason == "Available" { "True" } else { "False" };
        Entry {
            kind,
            namespace: "default".into(),
            name: name.into(),
            generation: 2,
            origin: Some("a.yaml:1".into()),
            created_at: DateTime::UNIX_EPOCH,
            status: json!({
                "conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}],
                "dataPlane": {"ackedReplicas": 1, "totalReplicas": 2},
                "topic": "t",
            }),
            registered: Some(Registered { generation: 1, hash: "h".into(), spec, updated_at: DateTime::UNIX_EPOCH }),
            progress: None,
            dead_letters: None,
        }
    }

    #[test]
    fn says_what_runs_and_why_not() {
        let mut projection = entry(
            Kind::Projection,
            "states",
            "AwaitingInstances",
            &"waits ".repeat(30),
            json!({"type": "sensor_state"}),
        );
        projection.progress = Some(Progress {
            projection_type: "sensor_state".into(),
            status: "catching_up".into(),
            behind: 1200,
            message: None,
            history_from: None,
            updated_at: DateTime::UNIX_EPOCH,
        });
        projection.dead_letters = Some(17);
        let event_type = entry(Kind::EventType, "reading", "Available", "runs", json!({"type": "sensor.reading"}));
        let entries = [event_type, projection];
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(5);

        let narrow = render(&entries, true, false, now);
        let lines: Vec<&str> = narrow.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["NAME", "READY", "REASON", "TYPE", "TOPIC", "VERSION", "AGE", "MESSAGE"]
        );
        let cells: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(cells, ["eventtype/reading", "True", "Available", "sensor.reading", "t", "-", "5m", "runs"]);
        assert_eq!(lines[2], "");
        assert!(
            lines[4].contains("1200 behind") && lines[4].contains(" 17 ") && lines[4].ends_with("… (-o wide)"),
            "{}",
            lines[4]
        );

        let wide = render(&entries, false, true, now);
        assert!(wide.contains("1/2") && wide.contains("a.yaml:1") && !wide.contains('…'), "{wide}");
    }

    #[test]
    fn dead_letters_that_wait_are_told_by_consumer() {
        let of = |consumer: &str, subject: &str, count| ((consumer.to_owned(), Some(subject.to_owned())), count);
        let letters = [of("relay", "", 1), of("event-handler", "a", 2), of("event-handler", "b", 3)];
        let told = waiting(&letters.into_iter().collect()).expect("told");
        assert!(told.contains("(event-handler 5, relay 1)"), "{told}");
        assert_eq!(waiting(&Waiting::new()), None);
    }

    #[test]
    fn an_action_shows_where_it_delivers_to_and_why_that_takes_nothing() {
        let spec = json!({"url": "https://hooks.example.com:8443/secret-path"});
        let mut action = entry(Kind::WebhookAction, "tell", "Available", "runs", spec);
        let shown = |action: &Entry| render(std::slice::from_ref(action), false, false, DateTime::UNIX_EPOCH);
        let cells = |action: &Entry| -> Vec<String> {
            shown(action).lines().nth(1).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(cells(&action), ["tell", "True", "Available", "hooks.example.com:8443", "-", "0s", "runs"]);
        let conditions = action.status["conditions"].as_array_mut().expect("a list");
        conditions
            .push(json!({"type": "EndpointHealthy", "status": "False", "reason": "CircuitOpen", "message": "500"}));
        assert_eq!(cells(&action), ["tell", "True", "Available", "hooks.example.com:8443", "False", "0s", "500"]);
        action.status["conditions"][0]["status"] = json!("False");
        assert!(shown(&action).contains("runs") && !shown(&action).contains("secret-path"), "{}", shown(&action));
    }

    #[test]
    fn ages_are_short() {
        let of = |seconds| age(chrono::TimeDelta::seconds(seconds));
        assert_eq!([of(-5), of(45), of(600), of(10_800), of(864_000)], ["0s", "45s", "10m", "3h", "10d"]);
    }
}
