//! Which letters a request is about: pure.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::event::MAX_NAME_CHARS;

/// A filter that cannot be, with the field, its value and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: '{value}' {rule}")]
pub struct BadFilter {
    pub field: &'static str,
    pub value: String,
    pub rule: String,
}

/// As they are given: every one that is there must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    pub consumer: Option<String>,
    pub subject: Option<String>,
    pub status: Option<String>,
    pub event_type: Option<String>,
    pub aggregate_id: Option<String>,
    pub event_id: Option<String>,
    pub failed_from: Option<String>,
    pub failed_to: Option<String>,
}

/// As they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub consumer: Option<String>,
    pub subject: Option<String>,
    pub status: Option<String>,
    pub event_type: Option<String>,
    pub aggregate_id: Option<String>,
    pub event_id: Option<Uuid>,
    pub failed_from: Option<DateTime<Utc>>,
    pub failed_to: Option<DateTime<Utc>>,
}

impl Filters {
    /// Whether it is about every letter.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads them.
    ///
    /// # Errors
    /// One cannot be.
    pub fn read(&self) -> Result<Filter, BadFilter> {
        if let Some(status) = &self.status
            && !["pending", "replayed", "discarded"].contains(&status.as_str())
        {
            return Err(bad("status", status, "must be pending, replayed or discarded"));
        }
        let filter = Filter {
            consumer: name("consumer", self.consumer.as_deref())?,
            subject: name("subject", self.subject.as_deref())?,
            status: self.status.clone(),
            event_type: name("event_type", self.event_type.as_deref())?,
            aggregate_id: name("aggregate_id", self.aggregate_id.as_deref())?,
            event_id: self.event_id.as_deref().map(id).transpose()?,
            failed_from: time("failed_from", self.failed_from.as_deref())?,
            failed_to: time("failed_to", self.failed_to.as_deref())?,
        };
        if filter.failed_from.zip(filter.failed_to).is_some_and(|(from, to)| from >= to) {
            let value = self.failed_to.as_deref().unwrap_or_default();
            return Err(bad("failed_to", value, "must be later than failed_from"));
        }
        Ok(filter)
    }
}

fn bad(field: &'static str, value: &str, rule: impl Into<String>) -> BadFilter {
    BadFilter { field, value: value.chars().take(80).collect(), rule: rule.into() }
}

fn name(field: &'static str, text: Option<&str>) -> Result<Option<String>, BadFilter> {
    let Some(text) = text else { return Ok(None) };
    if text.is_empty() || text.chars().count() > MAX_NAME_CHARS {
        return Err(bad(field, text, format!("must be 1 to {MAX_NAME_CHARS} characters long: leave it out for all")));
    }
    if text.contains('\0') {
        return Err(bad(field, &text.replace('\0', "\\u0000"), "must not contain the character U+0000"));
    }
    Ok(Some(text.to_owned()))
}

fn id(text: &str) -> Result<Uuid, BadFilter> {
    text.parse().map_err(|_| bad("event_id", text, "must be an event id (a UUID)"))
}

fn time(field: &'static str, text: Option<&str>) -> Result<Option<DateTime<Utc>>, BadFilter> {
    let read = |text: &str| {
        let time = DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc));
        time.map_err(|_| bad(field, text, "must be a time such as 2026-01-31T12:00:00Z"))
    };
    text.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(filters: &Filters) -> String {
        filters.read().expect_err("refused").to_string()
    }

    #[test]
    fn what_is_given_must_be_possible_and_is_named_where_it_is_not() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            said(&Filters { status: some("failed"), ..Filters::default() }),
            "status: 'failed' must be pending, replayed or discarded"
        );
        assert!(said(&Filters { event_id: some("7"), ..Filters::default() }).starts_with("event_id: '7' must be"));
        assert!(said(&Filters { consumer: some(""), ..Filters::default() }).contains("1 to 255 characters"));
        assert!(said(&Filters { subject: some("a\0"), ..Filters::default() }).contains("'a\\u0000' must not"));
        assert!(said(&Filters { failed_from: some("today"), ..Filters::default() }).contains("2026-01-31T12:00:00Z"));
        let (from, to) = (some("2026-01-02T00:00:00Z"), some("2026-01-01T00:00:00Z"));
        assert!(said(&Filters { failed_from: from, failed_to: to, ..Filters::default() }).contains("later than"));
    }

    #[test]
    fn nothing_given_is_every_letter() {
        assert!(Filters::default().is_empty());
        assert_eq!(Filters::default().read(), Ok(Filter::default()));
        let one = Filters { aggregate_id: Some("a".to_owned()), ..Filters::default() };
        assert!(!one.is_empty() && one.read().is_ok_and(|read| read.aggregate_id.as_deref() == Some("a")));
    }
}
