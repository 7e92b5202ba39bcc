//! What the columns of PostgreSQL take: all of Unicode but U+0000, in texts as in JSON. Pure.

use serde_json::Value;

/// What a text column takes of a text: at most so many characters, and not the one that is refused.
pub fn storable(text: &str, most: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(most).collect()
}

/// Where a value has the character that `jsonb` refuses, as a JSON pointer.
pub fn find_nul(value: &Value) -> Option<String> {
    find_below(value, String::new())
}

fn find_below(value: &Value, at: String) -> Option<String> {
    match value {
        Value::String(text) if text.contains('\0') => Some(at),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| find_below(item, format!("{at}/{i}"))),
        Value::Object(fields) => fields.iter().find_map(|(name, item)| {
            let at = format!("{at}/{name}");
            if name.contains('\0') { Some(at.replace('\0', "\\u0000")) } else { find_below(item, at) }
        }),
        _ => None,
    }
}
