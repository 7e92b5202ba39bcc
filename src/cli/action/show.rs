//! Answers for people. Pure.

use std::fmt::Write;

use serde_json::Value;

use crate::cli::get::table::block;

/// Longest message in a table, in characters.
const MESSAGE: usize = 90;

/// A line an action.
pub fn actions(answer: &Value) -> String {
    let header = ["ACTION", "STATE", "HEALTHY", "PENDING", "FAILED", "MESSAGE"];
    let row = |action: &Value| {
        let healthy = match (action["state"] == "disabled", action["healthy"].as_bool()) {
            (true, _) | (_, Some(false)) => "no",
            (_, Some(true)) => "yes",
            (_, None) => "-",
        };
        let message = [&action["reason"], &action["message"]].into_iter().find_map(Value::as_str).unwrap_or_default();
        vec![
            text(&action["action"]),
            text(&action["state"]),
            healthy.to_owned(),
            text(&action["pending"]),
            text(&action["failed"]),
            cut(message),
        ]
    };
    table(&header, answer["actions"].as_array(), row, "no actions\n")
}

/// A line a delivery.
pub fn deliveries(answer: &Value) -> String {
    let header = ["DELIVERY", "ACTION", "EVENT-TYPE", "AGGREGATE", "STATUS", "ATTEMPTS", "CREATED", "MESSAGE"];
    let row = |delivery: &Value| {
        let fields = ["delivery_id", "action", "event_type", "aggregate_id", "status", "attempts", "created_at"];
        let mut row: Vec<String> = fields.iter().map(|field| text(&delivery[field])).collect();
        row.push(cut(delivery["message"].as_str().unwrap_or_default()));
        row
    };
    table(&header, answer["deliveries"].as_array(), row, "no deliveries\n")
}

/// A delivery with its attempts.
pub fn delivery(answer: &Value) -> String {
    let mut shown = String::new();
    for (name, field) in [
        ("Delivery", "delivery_id"),
        ("Action", "action"),
        ("Event", "event_id"),
        ("Type", "event_type"),
        ("Aggregate", "aggregate_id"),
        ("Status", "status"),
        ("Message", "message"),
        ("Next attempt", "next_attempt_at"),
        ("Created", "created_at"),
        ("Finished", "finished_at"),
    ] {
        if !answer[field].is_null() {
            // Writing to a String cannot fail.
            let _ = writeln!(shown, "{name:<13} {}", text(&answer[field]));
        }
    }
    let header = ["ATTEMPT", "STARTED", "MS", "STATUS", "ERROR", "ANSWER"];
    let row = |attempt: &Value| {
        let fields = ["number", "started_at", "duration_ms", "status"];
        let mut row: Vec<String> = fields.iter().map(|field| text(&attempt[field])).collect();
        row.extend(["error", "answer"].map(|field| cut(attempt[field].as_str().unwrap_or_default())));
        row
    };
    shown.push('\n');
    shown.push_str(&table(&header, answer["history"].as_array(), row, "no attempts yet\n"));
    if !answer["body"].is_null() {
        let _ = write!(shown, "\n{:#}\n", answer["body"]);
    }
    shown
}

fn table(
    header: &[&'static str],
    rows: Option<&Vec<Value>>,
    row: impl Fn(&Value) -> Vec<String>,
    none: &str,
) -> String {
    let rows: Vec<Vec<String>> = rows.into_iter().flatten().map(row).collect();
    if rows.is_empty() { none.to_owned() } else { block(header, &rows) }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One line of at most [`MESSAGE`] characters, without what a terminal would obey.
fn cut(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    if line.chars().count() <= MESSAGE {
        line.to_owned()
    } else {
        line.chars().take(MESSAGE - 1).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_endpoint_answered_cannot_command_the_terminal() {
        let attempt = json!({"number": 1, "started_at": "t", "duration_ms": 3, "status": 500, "error": null, "answer": "a\u{1b}[2Jb\nc"});
        let shown = delivery(&json!({"delivery_id": "d", "status": "pending", "history": [attempt]}));
        assert!(shown.contains("a [2Jb c") && !shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(actions(&json!({"actions": []})), "no actions\n");
        assert_eq!(deliveries(&json!({"deliveries": []})), "no deliveries\n");
    }
}
