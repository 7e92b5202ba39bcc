//! The languages that resources speak: payload schemas (JSON Schema), expressions (CEL) and MQTT topic filters.
//!
//! Each is compiled once, when a resource is resolved, and run for every event. Each is bounded: what is compiled, what
//! one run may cost, and what an error message shows.

pub mod expression;
pub mod schema;
pub mod topic_filter;

/// The longest piece of a value that a message shows, in characters.
const SHOWN: usize = 120;

/// A value as text, cut short for a message.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
