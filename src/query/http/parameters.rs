//! Query parameters: each is known to its endpoint, given once unless it may repeat, and within its range; else the
//! refusal names it, its value and what it must be.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use uuid::Uuid;

use crate::event::MAX_NAME_CHARS;
use crate::operate::http::cursor;
use crate::query::QueryError;
use crate::query::filter::{Condition, MAX_FILTERS};

/// How long `after_event` waits where `timeout` does not say, and at most.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
pub const MAX_TIMEOUT: Duration = Duration::from_secs(30);

/// The parameters of a request.
#[derive(Debug)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
}

/// Which page is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Paging<T> {
    /// Without a cursor.
    Plain,
    /// The first page of a walk by cursor.
    First,
    /// The page behind what the cursor stands for.
    Behind(T),
}

impl Parameters {
    /// Refuses parameters that the endpoint does not know (a misspelt filter must not answer everything) and, but for
    /// `filter`, repeated ones.
    pub fn new(pairs: Vec<(String, String)>, known: &[&str]) -> Result<Self, QueryError> {
        for (i, (name, value)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let rule = format!("is not a parameter here: use {}", known.join(", "));
                return Err(QueryError::parameter("query", name, rule));
            }
            if name != "filter" && pairs[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(QueryError::parameter(name, value, "is given a second time: give it once"));
            }
        }
        Ok(Self { pairs })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A whole number within a range.
    pub fn integer(&self, name: &str, default: i64, range: RangeInclusive<i64>) -> Result<i64, QueryError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
            let rule = match range.end() {
                &i64::MAX => format!("must be a whole number, {} or more", range.start()),
                end => format!("must be a whole number from {} to {end}", range.start()),
            };
            QueryError::parameter(name, text, rule)
        })
    }

    /// A name as the columns take it.
    pub fn name(&self, name: &str) -> Result<Option<String>, QueryError> {
        self.get(name).map(|text| checked_name(name, text)).transpose()
    }

    /// A value that knows how to read itself.
    pub fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, QueryError> {
        self.get(name)
            .map(|text| text.parse().map_err(|e: T::Err| QueryError::parameter(name, text, e.to_string())))
            .transpose()
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, QueryError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().map_err(|_| QueryError::parameter(name, text, "must be true or false"))
    }

    /// The filters, and their text (for the scope of cursors).
    pub fn filters(&self) -> Result<(Vec<Condition>, String), QueryError> {
        let texts: Vec<&str> = self.pairs.iter().filter(|(n, _)| n == "filter").map(|(_, v)| v.as_str()).collect();
        if texts.len() > MAX_FILTERS {
            let rule = format!("is one too many: at most {MAX_FILTERS} filters");
            return Err(QueryError::parameter("filter", texts[MAX_FILTERS], rule));
        }
        let read =
            |text: &&str| Condition::parse(text).map_err(|e| QueryError::parameter("filter", text, e.to_string()));
        Ok((texts.iter().map(read).collect::<Result<_, _>>()?, texts.join("\n")))
    }

    /// `cursor`: empty for the first page, or one that an earlier answer gave out.
    pub fn paging<T: serde::de::DeserializeOwned>(&self, scope: &str) -> Result<Paging<T>, QueryError> {
        match self.get("cursor") {
            None => Ok(Paging::Plain),
            Some("") => Ok(Paging::First),
            Some(token) => cursor::decode(scope, token).map(Paging::Behind).map_err(|e| {
                QueryError::parameter("cursor", token, format!("cannot be used: {e}; begin with an empty cursor"))
            }),
        }
    }

    /// `after_event` and `timeout`.
    pub fn after_event(&self) -> Result<Option<(Uuid, Duration)>, QueryError> {
        let timeout = match self.get("timeout") {
            None => DEFAULT_TIMEOUT,
            Some(text) => duration(text).filter(|d| *d <= MAX_TIMEOUT).ok_or_else(|| {
                QueryError::parameter("timeout", text, "must be a time from 0s to 30s, such as 5s or 500ms")
            })?,
        };
        let Some(text) = self.get("after_event") else { return Ok(None) };
        let id =
            text.parse().map_err(|_| QueryError::parameter("after_event", text, "must be an event id (a UUID)"))?;
        Ok(Some((id, timeout)))
    }
}

/// The page, and whether more follows, of what was read with a limit one higher.
pub fn cut_to_page<T>(mut rows: Vec<T>, limit: i64) -> (Vec<T>, bool) {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    rows.truncate(wanted);
    (rows, more)
}

/// A name from the path or the query that a column could hold.
pub fn checked_name(parameter: &str, text: &str) -> Result<String, QueryError> {
    if text.is_empty() || text.chars().count() > MAX_NAME_CHARS {
        return Err(QueryError::parameter(parameter, text, format!("must be 1 to {MAX_NAME_CHARS} characters long")));
    }
    if text.contains('\0') {
        return Err(QueryError::parameter(parameter, text, "must not contain the character U+0000"));
    }
    Ok(text.to_owned())
}

/// `5`, `5s` or `500ms`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or(text), 1000),
    };
    number.parse::<u32>().ok().map(|n| Duration::from_millis(u64::from(n) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Result<Parameters, QueryError> {
        let pairs = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Parameters::new(pairs, &["limit", "filter", "timeout", "after_event"])
    }

    fn limit(text: &str) -> Result<i64, String> {
        parameters(&[("limit", text)]).unwrap().integer("limit", 20, 1..=100).map_err(|e| e.to_string())
    }

    #[test]
    fn a_refusal_names_parameter_value_and_range() {
        assert_eq!(limit("100"), Ok(100));
        for text in ["0", "101", "-1", "", "ten", "1.5", "99999999999999999999"] {
            assert_eq!(limit(text), Err(format!("limit: '{text}' must be a whole number from 1 to 100")));
        }
        let unknown = parameters(&[("filtre", "x")]).unwrap_err().to_string();
        assert_eq!(unknown, "query: 'filtre' is not a parameter here: use limit, filter, timeout, after_event");
        assert!(parameters(&[("limit", "1"), ("limit", "2")]).unwrap_err().to_string().contains("second time"));
    }

    #[test]
    fn timeouts_have_units_and_an_end() {
        for (text, millis) in [("5", 5000), ("5s", 5000), ("500ms", 500), ("0", 0), ("30s", 30000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        let id = Uuid::nil().to_string();
        for text in ["31s", "30001ms", "-1s", "5m", "s", "∞"] {
            let both = parameters(&[("timeout", text), ("after_event", &id)]).unwrap();
            assert!(both.after_event().unwrap_err().to_string().contains("from 0s to 30s"), "{text}");
        }
    }
}
