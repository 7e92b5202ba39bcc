//! Filters on fields of the state: `filter=field:operator:value`.
//!
//! In: text of the caller. Out: a [`Condition`] whose field and value are data, never part of a statement. Fields of
//! nested objects are written with dots (`address.city`). The value is a JSON scalar where it reads as one (`70`,
//! `true`, `"70"`), else a string. `gt`, `gte`, `lt` and `lte` compare numbers with numbers and strings with strings;
//! a row whose field is of another type, or missing, does not match. `ne` matches what `eq` does not.

use serde_json::{Map, Value};

/// How many filters a request may have.
pub const MAX_FILTERS: usize = 8;
/// Longest filter, in bytes.
const MAX_BYTES: usize = 1024;
/// Deepest field.
const MAX_DEPTH: usize = 8;

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The field has this value (the state contains the object made of both, `@>`).
    Contains { path: Vec<String>, value: Value },
    /// It does not.
    Lacks { path: Vec<String>, value: Value },
    /// The field compares so with a number or a string.
    Compares { path: Vec<String>, operator: Comparison, value: Value },
    /// The field is there, or is not.
    Exists { path: Vec<String>, there: bool },
}

/// An order comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Why a filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("must read field:operator:value, for example value:gt:70")]
    Form,
    #[error("must be at most {MAX_BYTES} bytes long")]
    TooLong,
    #[error("the field must be 1 to {MAX_DEPTH} names joined by dots")]
    Field,
    #[error("the operator must be eq, ne, gt, gte, lt, lte or exists")]
    Operator,
    #[error("gt, gte, lt and lte need a number or a string")]
    NotOrdered,
    #[error("exists needs true or false")]
    NotBoolean,
    #[error("must not contain the character U+0000")]
    Nul,
}

impl Condition {
    /// Reads one filter.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_BYTES {
            return Err(FilterError::TooLong);
        }
        let mut parts = text.splitn(3, ':');
        let (Some(field), Some(operator), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(FilterError::Form);
        };
        let path: Vec<String> = field.split('.').map(str::to_owned).collect();
        if path.len() > MAX_DEPTH || path.iter().any(String::is_empty) {
            return Err(FilterError::Field);
        }
        let value = scalar(value);
        if field.contains('\0') || value.as_str().is_some_and(|v| v.contains('\0')) {
            return Err(FilterError::Nul);
        }
        match operator {
            "eq" => Ok(Self::Contains { path, value }),
            "ne" => Ok(Self::Lacks { path, value }),
            "gt" => ordered(path, Comparison::Greater, value),
            "gte" => ordered(path, Comparison::GreaterOrEqual, value),
            "lt" => ordered(path, Comparison::Less, value),
            "lte" => ordered(path, Comparison::LessOrEqual, value),
            "exists" => value.as_bool().map(|there| Self::Exists { path, there }).ok_or(FilterError::NotBoolean),
            _ => Err(FilterError::Operator),
        }
    }
}

fn ordered(path: Vec<String>, operator: Comparison, value: Value) -> Result<Condition, FilterError> {
    if value.is_number() || value.is_string() {
        Ok(Condition::Compares { path, operator, value })
    } else {
        Err(FilterError::NotOrdered)
    }
}

/// A JSON scalar where the text is one, else the text.
fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Array(_) | Value::Object(_)) | Err(_) => Value::String(text.to_owned()),
        Ok(value) => value,
    }
}

/// The object that has the value at the path.
pub(super) fn nest(path: &[String], value: &Value) -> Value {
    path.iter().rev().fold(value.clone(), |inner, name| Value::Object(Map::from_iter([(name.clone(), inner)])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn values_are_scalars_where_they_read_as_one() {
        for (text, state) in [
            ("value:eq:70", json!({"value": 70})),
            ("unit:eq:celsius", json!({"unit": "celsius"})),
            ("code:eq:\"70\"", json!({"code": "70"})),
            ("on:eq:true", json!({"on": true})),
            ("gone:eq:null", json!({"gone": null})),
            ("a.b.c:eq:x:y", json!({"a": {"b": {"c": "x:y"}}})),
            ("day:eq:2024-01-01", json!({"day": "2024-01-01"})),
            ("text:eq:", json!({"text": ""})),
            ("list:eq:[1]", json!({"list": "[1]"})),
        ] {
            let Ok(Condition::Contains { path, value }) = Condition::parse(text) else { panic!("{text} is no eq") };
            assert_eq!(nest(&path, &value), state, "{text}");
        }
    }

    #[test]
    fn refusals_say_why() {
        for (text, error) in [
            ("value", FilterError::Form),
            ("value:gt", FilterError::Form),
            ("value:like:7", FilterError::Operator),
            (":eq:7", FilterError::Field),
            ("a..b:eq:7", FilterError::Field),
            ("a.b.c.d.e.f.g.h.i:eq:7", FilterError::Field),
            ("value:gt:true", FilterError::NotOrdered),
            ("value:exists:maybe", FilterError::NotBoolean),
            ("value:eq:\"\\u0000\"", FilterError::Nul),
            ("a\0:eq:1", FilterError::Nul),
        ] {
            assert_eq!(Condition::parse(text), Err(error), "{text}");
        }
        assert_eq!(Condition::parse(&format!("a:eq:{}", "x".repeat(2000))), Err(FilterError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text: String) {
            let _ = Condition::parse(&text);
        }
    }
}
