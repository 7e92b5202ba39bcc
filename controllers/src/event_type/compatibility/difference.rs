//! What is said of schemas that do not fit each other.

use std::fmt;

/// Differences that are kept; more are only counted.
const KEPT: usize = 20;
/// How long the text of all of them becomes, in bytes, so that what is said around it fits into a condition's message.
const TEXT_LIMIT: usize = 780;
/// How much of a part of a schema is shown, in characters.
const SHOWN: usize = 48;
/// The longest pointer that is shown, in characters.
const POINTER: usize = 120;

/// Who is hurt by a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaks {
    /// Payloads of the older schema: the newer one may refuse them.
    Backward,
    /// Readers with the older schema: it may refuse payloads of the newer one.
    Forward,
}

/// One place at which a payload that must be accepted may be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// JSON pointer into the schema that refuses, `""` for its top; to a property that it does not know, into the other.
    pub pointer: String,
    pub before: String,
    pub now: String,
    pub breaks: Breaks,
    /// Nothing is known to break, but neither can it be excluded.
    pub undecided: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let undecided = if self.undecided { "cannot be compared, " } else { "" };
        write!(f, "{}: {undecided}{} before, {} now", place(&self.pointer), self.before, self.now)
    }
}

/// All that breaks, at most 20 of it by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Incompatible {
    pub differences: Vec<Difference>,
    /// How many there are besides.
    pub more: usize,
}

impl Incompatible {
    /// Adds what a comparison found.
    pub(super) fn extend(&mut self, found: Vec<Difference>) {
        self.more += (self.differences.len() + found.len()).saturating_sub(KEPT);
        let room = KEPT.saturating_sub(self.differences.len());
        self.differences.extend(found.into_iter().take(room));
    }

    /// The first `whole` differences in full, `named` more by their pointers, and how many are left.
    fn text(&self, whole: usize, named: usize) -> String {
        let mut text = String::new();
        let mut said = None;
        for (index, difference) in self.differences.iter().take(whole + named).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let who = match difference.breaks {
                breaks if said == Some(breaks) => "",
                Breaks::Backward => "payloads of the older one may fail: ",
                Breaks::Forward => "readers of the older one may fail: ",
            };
            said = Some(difference.breaks);
            text.push_str(separator);
            text.push_str(who);
            if index < whole {
                text.push_str(&difference.to_string());
            } else {
                text.push_str(&place(&difference.pointer));
            }
        }
        match self.differences.len().saturating_sub(whole + named) + self.more {
            0 => text,
            more => format!("{text}; and {more} more"),
        }
    }
}

impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.differences.len();
        // Every difference by name is more use than some of them at length.
        let whole = (1..=count).rev().map(|whole| self.text(whole, count - whole));
        let some = (0..count).rev().map(|named| self.text(1, named));
        let text = whole.chain(some).find(|text| text.len() <= TEXT_LIMIT);
        f.write_str(&text.unwrap_or_else(|| shown(&self.text(1, 0), TEXT_LIMIT / 4)))
    }
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() { "the top".to_owned() } else { shown(pointer, POINTER) }
}

/// A part of a schema, cut.
pub(super) fn brief(text: &str) -> String {
    shown(text, SHOWN)
}

fn shown(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
