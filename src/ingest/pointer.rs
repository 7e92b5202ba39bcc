//! Where in JSON text a place is. Only for text that is refused: it is read once more.

use super::refusal::cut;

/// One level of what encloses a place.
enum Level {
    Object { key: String },
    Array { index: usize },
}

/// The JSON pointer to the value that holds the byte at `place`.
pub fn pointer_to(text: &str, place: usize) -> String {
    let bytes = text.as_bytes();
    let mut levels: Vec<Level> = Vec::new();
    let mut at = 0;
    while at < place {
        match bytes[at] {
            b'"' => {
                let end = skip_string(bytes, at).min(text.len());
                if end > place {
                    break;
                }
                let is_key = bytes[end..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':');
                if let (true, Some(Level::Object { key })) = (is_key, levels.last_mut()) {
                    *key = text[at + 1..end - 1].replace('~', "~0").replace('/', "~1");
                }
                at = end;
                continue;
            }
            b'{' => levels.push(Level::Object { key: String::new() }),
            b'[' => levels.push(Level::Array { index: 0 }),
            b'}' | b']' => drop(levels.pop()),
            b',' => {
                if let Some(Level::Array { index }) = levels.last_mut() {
                    *index += 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    let mut pointer = String::new();
    for level in levels {
        pointer.push('/');
        match level {
            Level::Object { key } => pointer.push_str(&key),
            Level::Array { index } => pointer.push_str(&index.to_string()),
        }
    }
    cut(&pointer).into_owned()
}

/// The place behind the string that begins at `start`, whatever is in it.
pub fn skip_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}
