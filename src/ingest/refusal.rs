//! Why an event is not taken, without HTTP: the reason, and which field with which value broke which rule.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

use crate::outbox::RefusedBy;

/// Longest part of a value that is shown to people, in characters.
const SHOWN_CHARS: usize = 120;

/// The kind of a refusal. Decides the status code and is the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A field breaks a rule.
    Invalid,
    /// Not JSON, or not UTF-8.
    Malformed,
    /// The body, or the number of events in it, is above the limit.
    TooLarge,
    /// The content type or encoding is none that is taken here.
    MediaType,
    /// Too many or too large header fields.
    Headers,
    /// The request did not arrive in time.
    Timeout,
    /// The idempotency key was used for another event.
    KeyReused,
    /// Another event of an all-or-nothing batch was refused.
    WithBatch,
    /// The queue to the database is full.
    QueueFull,
    /// The database is away.
    Unavailable,
}

impl Reason {
    /// The HTTP status code.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid | Self::Malformed => 400,
            Self::Timeout => 408,
            Self::TooLarge => 413,
            Self::MediaType => 415,
            Self::KeyReused => 422,
            Self::WithBatch => 424,
            Self::QueueFull => 429,
            Self::Headers => 431,
            Self::Unavailable => 503,
        }
    }

    /// A short name, for metrics and for the `type` of a problem.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::MediaType => "media-type",
            Self::Headers => "headers",
            Self::Timeout => "timeout",
            Self::KeyReused => "key-reused",
            Self::WithBatch => "refused-with-batch",
            Self::QueueFull => "queue-full",
            Self::Unavailable => "unavailable",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Invalid => "The event breaks a rule",
            Self::Malformed => "The body cannot be read",
            Self::TooLarge => "The body is too large",
            Self::MediaType => "This content type is not taken here",
            Self::Headers => "The header is too large",
            Self::Timeout => "The request took too long to arrive",
            Self::KeyReused => "The idempotency key was used for another event",
            Self::WithBatch => "Another event of the batch was refused",
            Self::QueueFull => "Too many events are waiting to be stored",
            Self::Unavailable => "The database is away",
        }
    }

    /// After how many seconds trying again makes sense, if it does.
    pub fn retry_after(self) -> Option<u32> {
        match self {
            Self::QueueFull => Some(1),
            Self::Unavailable => Some(2),
            _ => None,
        }
    }
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: a JSON pointer into the event (`/payload/value`), or the name of a header field.
    pub pointer: String,
    /// The rule's name, for example `required`, `type`, `max-depth` or a keyword of the payload's schema.
    pub rule: String,
    /// The value found, cut to 120 characters.
    pub value: String,
    /// The rule in words.
    pub message: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, rule: &str, value: &str, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), rule: rule.to_owned(), value: cut(value).into_owned(), message: message.into() }
    }

    fn sentence(&self) -> String {
        let field = if self.pointer.is_empty() { "the body" } else { self.pointer.trim_start_matches('/') };
        // Rules of JSON Schema begin with the value.
        let told = self.value.is_empty() || self.message.starts_with(&format!("{} ", self.value));
        let shown = if told { String::new() } else { format!(" (got {})", self.value) };
        format!("{field}: {}{shown}", self.message)
    }
}

/// An event, or a request, that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub errors: Vec<FieldError>,
}

impl Refusal {
    pub fn new(reason: Reason, error: FieldError) -> Self {
        Self { reason, errors: vec![error] }
    }

    /// Broken rules of an event.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self { reason: Reason::Invalid, errors }
    }

    /// All broken rules in one line.
    pub fn detail(&self) -> String {
        if self.errors.is_empty() {
            return self.reason.title().to_owned();
        }
        self.errors.iter().map(FieldError::sentence).collect::<Vec<_>>().join("; ")
    }
}

impl From<RefusedBy> for Refusal {
    fn from(refused: RefusedBy) -> Self {
        let message = refused.to_string();
        let (reason, pointer, rule) = match refused {
            RefusedBy::QueueFull => (Reason::QueueFull, "", "queue"),
            RefusedBy::Unavailable(_) => (Reason::Unavailable, "", "database"),
            RefusedBy::Data(_) => (Reason::Invalid, "", "storable"),
            RefusedBy::KeyReused(_) => (Reason::KeyReused, "idempotency-key", "same-request"),
            RefusedBy::WithBatch => (Reason::WithBatch, "", "all-or-nothing"),
        };
        Self::new(reason, FieldError::new(pointer, rule, "", message))
    }
}

/// The beginning of a value, for people.
pub fn cut(value: &str) -> Cow<'_, str> {
    match value.char_indices().nth(SHOWN_CHARS) {
        None => Cow::Borrowed(value),
        Some((end, _)) => Cow::Owned(format!("{}…", &value[..end])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_field_and_the_beginning_of_its_value() {
        let error = FieldError::new("/payload/value", "type", &"ü".repeat(500), "must be a number");
        let refusal = Refusal::invalid(vec![error]);
        assert_eq!(refusal.detail(), format!("payload/value: must be a number (got {}…)", "ü".repeat(120)));
    }
}
