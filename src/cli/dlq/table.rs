//! Dead letters for people: pure.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::cli::get::table::{age, block};

/// Longest cause in a table, in characters.
const CAUSE: usize = 80;

/// A line a letter.
pub fn letters(letters: &[Value], now: DateTime<Utc>) -> String {
    let row = |letter: &Value| {
        let failed = letter["failed_at"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok());
        vec![
            text(&letter["dlq_id"]),
            text(&letter["consumer"]),
            text(&letter["subject"]),
            status(letter),
            text(&letter["event_type"]),
            text(&letter["aggregate_id"]),
            text(&letter["retry_count"]),
            failed.map_or_else(String::new, |at| age(now - at)),
            cut(&text(&letter["error_message"])),
        ]
    };
    let rows: Vec<Vec<String>> = letters.iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = ["ID", "CONSUMER", "SUBJECT", "STATUS", "TYPE", "AGGREGATE", "RETRIES", "AGE", "CAUSE"];
    block(&header, &rows)
}

/// Everything about one letter.
pub fn letter(letter: &Value) -> String {
    let mut shown = String::new();
    for (label, value) in [
        ("id", text(&letter["dlq_id"])),
        ("consumer", text(&letter["consumer"])),
        ("subject", text(&letter["subject"])),
        ("status", status(letter)),
        ("cause", text(&letter["error_message"])),
        ("reason", text(&letter["reason"])),
        ("failed at", text(&letter["failed_at"])),
        ("retries", text(&letter["retry_count"])),
        ("resolved at", text(&letter["resolved_at"])),
        ("event", text(&letter["event_id"])),
        ("type", text(&letter["event_type"])),
        ("aggregate", text(&letter["aggregate_id"])),
    ] {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(shown, "{label:12} {value}");
        }
    }
    let held = serde_json::to_string_pretty(&letter["event_payload"]).unwrap_or_default();
    let _ = writeln!(shown, "\n{held}");
    shown
}

/// A line for each part of a consumer.
pub fn summary(summary: &Value) -> String {
    let consumers = summary["consumers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |part: &Value| {
        ["consumer", "subject", "pending", "requested", "replayed", "discarded"]
            .map(|field| text(&part[field]))
            .to_vec()
    };
    let rows: Vec<Vec<String>> = consumers.iter().map(row).collect();
    if rows.is_empty() {
        return "there are no dead letters\n".to_owned();
    }
    block(&["CONSUMER", "SUBJECT", "PENDING", "REQUESTED", "REPLAYED", "DISCARDED"], &rows)
}

fn status(letter: &Value) -> String {
    let status = text(&letter["status"]);
    if status == "pending" && !letter["replay_requested_at"].is_null() { "replaying".to_owned() } else { status }
}

/// Without control characters: what is printed came from elsewhere.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    }
}

fn cut(cause: &str) -> String {
    match cause.char_indices().nth(CAUSE) {
        Some((end, _)) => format!("{}…", &cause[..end]),
        None => cause.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_who_failed_at_what_and_why() {
        let now = DateTime::from_timestamp(1_800_000_600, 0).expect("a time");
        let failed = json!({"dlq_id": "1", "consumer": "relay", "subject": null, "status": "pending", "event_type": "t",
            "aggregate_id": "a\u{1b}[2J", "retry_count": 2, "failed_at": "2027-01-15T08:00:00Z",
            "error_message": "x".repeat(100), "replay_requested_at": "2027-01-15T08:05:00Z"});
        let shown = letters(&[failed], now);
        let cells: Vec<&str> = shown.lines().nth(1).expect("a line").split_whitespace().collect();
        assert_eq!(cells[..8], ["1", "relay", "-", "replaying", "t", "a\u{fffd}[2J", "2", "10m"]);
        assert!(cells[8].ends_with('…') && cells[8].chars().count() == CAUSE + 1);
        assert_eq!(letters(&[], now), "");
    }

    #[test]
    fn one_letter_is_shown_with_what_it_holds() {
        let shown =
            letter(&json!({"dlq_id": "1", "status": "discarded", "reason": "a test", "event_payload": {"v": 1}}));
        assert!(shown.contains("reason       a test") && shown.contains("\"v\": 1"), "{shown}");
        assert!(!shown.contains("aggregate"), "what is not known is left out: {shown}");
    }

    #[test]
    fn counts_are_shown_by_consumer() {
        let part =
            json!({"consumer": "relay", "subject": null, "pending": 3, "requested": 1, "replayed": 0, "discarded": 2});
        let shown = summary(&json!({"consumers": [part]}));
        let cells: Vec<&str> = shown.lines().nth(1).expect("a line").split_whitespace().collect();
        assert_eq!(cells, ["relay", "-", "3", "1", "0", "2"]);
        assert!(summary(&json!({"consumers": []})).contains("no dead letters"));
    }
}
