//! From what an expression gives to what a column holds: pure. Whatever passes here, PostgreSQL stores.

use chrono::{DateTime, Datelike, Utc};
use crds::registration::ColumnType;
use serde_json::Value;
use uuid::Uuid;

use crate::database::find_nul;

/// Largest value of a text or of JSON, in bytes.
const MAX_BYTES: usize = 1024 * 1024;
/// Digits of a decimal number, and its exponent: far within what PostgreSQL takes.
const MAX_DIGITS: usize = 1000;
/// Integers up to this size are exact as doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// One value of one column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    /// Also a decimal number and JSON, in their text.
    Text(String),
    Boolean(bool),
    Integer(i32),
    BigInt(i64),
    Double(f64),
    Timestamp(DateTime<Utc>),
    Uuid(Uuid),
}

/// A value that a column cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("{} is no {}: {way_out}", cut(.value), .column.as_str())]
    Type { value: String, column: ColumnType, way_out: &'static str },
    #[error("{} is out of the range of {}", cut(.value), .column.as_str())]
    Range { value: String, column: ColumnType },
    #[error("the text holds \\u0000, which PostgreSQL cannot store")]
    Nul,
    #[error("{0} bytes, more than the {MAX_BYTES} that a value may have")]
    TooLarge(usize),
}

/// The value as a column of this type holds it.
///
/// # Errors
/// It cannot.
pub fn cell(column: ColumnType, value: Value) -> Result<Cell, ValueError> {
    if value.is_null() {
        return Ok(Cell::Null);
    }
    match (column, value) {
        (ColumnType::Json, value) => json(&value),
        (ColumnType::Text, Value::String(text)) => checked(text).map(Cell::Text),
        (ColumnType::Boolean, Value::Bool(value)) => Ok(Cell::Boolean(value)),
        (ColumnType::Integer, Value::Number(number)) => {
            let whole = whole(&number).ok_or_else(|| not_whole(column, &number))?;
            i32::try_from(whole).map(Cell::Integer).map_err(|_| range(column, &number))
        }
        (ColumnType::BigInt, Value::Number(number)) => {
            whole(&number).map(Cell::BigInt).ok_or_else(|| not_whole(column, &number))
        }
        (ColumnType::Double, Value::Number(number)) => {
            number.as_f64().map(Cell::Double).ok_or_else(|| range(column, &number))
        }
        (ColumnType::Numeric, Value::Number(number)) => Ok(Cell::Text(number.to_string())),
        (ColumnType::Numeric, Value::String(text)) if is_decimal(&text) => Ok(Cell::Text(text)),
        (ColumnType::Timestamp, Value::String(text)) => timestamp(text),
        (ColumnType::Uuid, Value::String(text)) => {
            text.parse().map(Cell::Uuid).map_err(|_| wrong(column, text, "write it as 8-4-4-4-12 hexadecimal digits"))
        }
        (column, value) => Err(wrong(column, value.to_string(), way_out(column))),
    }
}

fn json(value: &Value) -> Result<Cell, ValueError> {
    let text = value.to_string();
    if find_nul(value).is_some() {
        return Err(ValueError::Nul);
    }
    if text.len() > MAX_BYTES { Err(ValueError::TooLarge(text.len())) } else { Ok(Cell::Text(text)) }
}

fn checked(text: String) -> Result<String, ValueError> {
    if text.contains('\0') {
        return Err(ValueError::Nul);
    }
    if text.len() > MAX_BYTES { Err(ValueError::TooLarge(text.len())) } else { Ok(text) }
}

/// A number without a fraction, also where it is written with one (`72.0`).
#[expect(clippy::cast_possible_truncation, reason = "within 2^53 and without a fraction")]
fn whole(number: &serde_json::Number) -> Option<i64> {
    let fraction = || number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= EXACT).map(|n| n as i64);
    number.as_i64().or_else(fraction)
}

fn not_whole(column: ColumnType, number: &serde_json::Number) -> ValueError {
    if number.as_f64().is_some_and(|n| n.fract() == 0.0) {
        return range(column, number);
    }
    wrong(column, number.to_string(), "make it whole with int(…), or make the column Double")
}

/// `-12.5e3`, of a bounded length.
fn is_decimal(text: &str) -> bool {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let all = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let small = |exponent: i32| exponent.unsigned_abs() as usize <= MAX_DIGITS;
    all(whole) && all(fraction) && text.len() <= MAX_DIGITS && exponent.parse().is_ok_and(small)
}

fn timestamp(text: String) -> Result<Cell, ValueError> {
    match DateTime::parse_from_rfc3339(&text) {
        Ok(at) if (1..=9999).contains(&at.to_utc().year()) => Ok(Cell::Timestamp(at.to_utc())),
        Ok(_) => Err(ValueError::Range { value: text, column: ColumnType::Timestamp }),
        Err(_) => Err(wrong(ColumnType::Timestamp, text, way_out(ColumnType::Timestamp))),
    }
}

fn way_out(column: ColumnType) -> &'static str {
    match column {
        ColumnType::Text => "make it a text with string(…)",
        ColumnType::Boolean => "compare it with something",
        ColumnType::Integer | ColumnType::BigInt => "make it a number with int(…)",
        ColumnType::Double => "make it a number with double(…)",
        ColumnType::Numeric => "give a number, or one in a text such as '12.50'",
        ColumnType::Timestamp => "give a time such as 2026-01-31T12:00:00Z, or timestamp(…)",
        ColumnType::Uuid => "give a text of 8-4-4-4-12 hexadecimal digits",
        ColumnType::Json => "give any value",
    }
}

fn wrong(column: ColumnType, value: String, way_out: &'static str) -> ValueError {
    ValueError::Type { value, column, way_out }
}

fn range(column: ColumnType, number: &serde_json::Number) -> ValueError {
    ValueError::Range { value: number.to_string(), column }
}

/// At most 120 characters, for messages.
fn cut(text: &str) -> String {
    const KEPT: usize = 120;
    if text.chars().count() <= KEPT { text.to_owned() } else { text.chars().take(KEPT).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn held(column: ColumnType, value: Value) -> Cell {
        cell(column, value).expect("held")
    }

    fn refused(column: ColumnType, value: Value) -> String {
        cell(column, value).expect_err("refused").to_string()
    }

    #[test]
    fn each_type_holds_its_values_and_null() {
        use ColumnType::{BigInt, Boolean, Double, Integer, Json, Numeric, Text, Timestamp, Uuid as Id};
        for column in [Text, Boolean, Integer, BigInt, Double, Numeric, Timestamp, Id, Json] {
            assert_eq!(held(column, Value::Null), Cell::Null, "{column:?}");
        }
        assert_eq!(held(Text, json!("a")), Cell::Text("a".to_owned()));
        assert_eq!(held(Boolean, json!(true)), Cell::Boolean(true));
        assert_eq!(held(Integer, json!(72.0)), Cell::Integer(72));
        assert_eq!(held(BigInt, json!(i64::MAX)), Cell::BigInt(i64::MAX));
        assert_eq!(held(Double, json!(3)), Cell::Double(3.0));
        assert_eq!(held(Numeric, json!("-12.50e3")), Cell::Text("-12.50e3".to_owned()));
        assert_eq!(held(Numeric, json!(1.5)), Cell::Text("1.5".to_owned()));
        let noon = DateTime::parse_from_rfc3339("2026-01-31T12:00:00Z").expect("a time").to_utc();
        assert_eq!(held(Timestamp, json!("2026-01-31T13:00:00+01:00")), Cell::Timestamp(noon));
        assert_eq!(held(Id, json!(Uuid::nil().to_string())), Cell::Uuid(Uuid::nil()));
        assert_eq!(held(Json, json!({"a": [1]})), Cell::Text(r#"{"a":[1]}"#.to_owned()));
    }

    #[test]
    fn what_a_column_cannot_hold_says_so_with_the_way_out() {
        assert_eq!(refused(ColumnType::Text, json!(5)), "5 is no Text: make it a text with string(…)");
        assert_eq!(refused(ColumnType::Double, json!("5")), r#""5" is no Double: make it a number with double(…)"#);
        assert!(refused(ColumnType::Integer, json!(1.5)).contains("make the column Double"));
        assert_eq!(refused(ColumnType::Integer, json!(3_000_000_000_i64)), "3000000000 is out of the range of Integer");
        assert!(refused(ColumnType::BigInt, json!(1e300)).contains("out of the range of BigInt"));
        for text in ["", "NaN", "1e9999", "1.", ".5", "+1", "1;--", "0x1"] {
            assert!(refused(ColumnType::Numeric, json!(text)).contains("is no Numeric"), "{text}");
        }
        assert!(refused(ColumnType::Timestamp, json!("yesterday")).contains("2026-01-31T12:00:00Z"));
        assert!(refused(ColumnType::Timestamp, json!("0000-01-01T00:00:00Z")).contains("out of the range"));
        assert_eq!(cell(ColumnType::Text, json!("a\0b")), Err(ValueError::Nul));
        assert_eq!(cell(ColumnType::Json, json!({"a\0": 1})), Err(ValueError::Nul));
        assert_eq!(cell(ColumnType::Json, json!("\\u0000")), Ok(Cell::Text("\"\\\\u0000\"".to_owned())));
        assert!(matches!(cell(ColumnType::Text, json!("x".repeat(MAX_BYTES + 1))), Err(ValueError::TooLarge(_))));
    }
}
