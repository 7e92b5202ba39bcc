//! From text to documents: JSON values in which the line of every part is known.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use super::Lines;

/// One document.
pub(super) struct Document {
    pub(super) value: Value,
    pub(super) lines: Lines,
}

/// The documents of a text; for one that cannot be read its line and what is wrong.
pub(super) fn documents(text: &str) -> Vec<Result<Document, (usize, String)>> {
    split(text).into_iter().filter(|(_, part)| !is_blank(part)).flat_map(|(first, part)| parse(first, part)).collect()
}

/// Cuts a text at its document markers, before anything is parsed, so that broken syntax stays within its document. A
/// line that starts with `---` is a marker wherever it is, also within a text block.
fn split(text: &str) -> Vec<(usize, &str)> {
    let (mut parts, mut start, mut first, mut at) = (Vec::new(), 0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            parts.push((first, &text[start..at]));
            // What follows on the marker's own line belongs to the document.
            start = at + 3;
            first = index + 1;
        }
        at += line.len();
    }
    parts.push((first, &text[start..]));
    parts
}

fn is_blank(part: &str) -> bool {
    part.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with(['#', '%']))
}

fn parse(first: usize, part: &str) -> Vec<Result<Document, (usize, String)>> {
    let options = serde_saphyr::options! { strict_booleans: true };
    match serde_saphyr::from_str_with_options::<Node>(part, options) {
        Ok(node) => vec![Ok(node.document(first - 1))],
        Err(error) => json(first, part).unwrap_or_else(|| vec![Err(syntax_error(first, &error))]),
    }
}

/// JSON that is not YAML as well (indented by tabs, or several values one after the other): lines are those of the text.
fn json(first: usize, part: &str) -> Option<Vec<Result<Document, (usize, String)>>> {
    if !part.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(part).into_iter().collect();
    let lines = Lines([(String::new(), first)].into());
    Some(values.ok()?.into_iter().map(|value| Ok(Document { value, lines: lines.clone() })).collect())
}

fn syntax_error(first: usize, error: &serde_saphyr::Error) -> (usize, String) {
    let line = error.location().map_or(1, |at| usize::try_from(at.line()).unwrap_or(1).max(1));
    let plain = error.without_snippet().to_string();
    let message = plain.lines().next().unwrap_or_default();
    // Its own "at line 5" counts from the start of the document, and an option of the parser helps nobody here.
    let message = message.rsplit_once(" at line ").map_or(message, |(what, _)| what);
    let message = message.split_once(", set DuplicateKeyPolicy").map_or(message, |(what, _)| what);
    (first + line - 1, format!("cannot be read: {}", crate::language::shown(message)))
}

/// A value with its line within the document.
struct Node {
    line: usize,
    content: Content,
}

enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// `offset`: lines before the document.
    fn document(self, offset: usize) -> Document {
        let mut lines = Lines::default();
        let value = self.place(offset, String::new(), &mut lines);
        Document { value, lines }
    }

    fn place(self, offset: usize, pointer: String, lines: &mut Lines) -> Value {
        let value = match self.content {
            Content::Scalar(value) => value,
            Content::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(i, item)| item.place(offset, format!("{pointer}/{i}"), lines))
                .collect(),
            Content::Map(fields) => {
                let mut map = Map::new();
                for (name, node) in fields {
                    let at = format!("{pointer}/{}", escape(&name));
                    map.insert(name, node.place(offset, at, lines));
                }
                Value::Object(map)
            }
        };
        lines.0.insert(pointer, self.line + offset);
        value
    }
}

/// A name as part of a JSON pointer.
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        let line = usize::try_from(spanned.referenced.line()).unwrap_or(1).max(1);
        Ok(Self { line, content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Content, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Content, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Content::Scalar(number.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            fields.push(entry);
        }
        Ok(Content::Map(fields))
    }
}
