//! Between JSON and the interpreter's values.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cel::Value;
use cel::objects::{Key, Map};
use chrono::{DateTime, SecondsFormat, Utc};

use super::EvaluationError;

/// The fields of the variable `event`.
pub(super) const EVENT_FIELDS: [&str; 7] =
    ["event_id", "event_type", "aggregate_id", "timestamp", "ingested_at", "payload", "metadata"];

/// An event as expressions see it.
#[derive(Clone, Copy, Debug)]
pub struct EventParts<'a> {
    pub event_id: &'a str,
    pub event_type: &'a str,
    pub aggregate_id: &'a str,
    /// When it occurred.
    pub timestamp: DateTime<Utc>,
    /// When the platform accepted it.
    pub ingested_at: DateTime<Utc>,
    pub payload: &'a serde_json::Value,
    pub metadata: &'a serde_json::Value,
}

/// The variable `event`.
pub fn event_value(parts: &EventParts<'_>) -> Value {
    let text = |text: &str| Value::String(Arc::new(text.to_owned()));
    let values = [
        text(parts.event_id),
        text(parts.event_type),
        text(parts.aggregate_id),
        Value::Timestamp(parts.timestamp.fixed_offset()),
        Value::Timestamp(parts.ingested_at.fixed_offset()),
        to_cel(parts.payload),
        to_cel(parts.metadata),
    ];
    object(EVENT_FIELDS.into_iter().map(str::to_owned).zip(values))
}

/// A JSON value as the interpreter's. Integers stay exact; other numbers are doubles.
pub fn to_cel(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => number
            .as_i64()
            .map(Value::Int)
            .or_else(|| number.as_u64().map(Value::UInt))
            .or_else(|| number.as_f64().map(Value::Float))
            .unwrap_or(Value::Null),
        serde_json::Value::String(text) => Value::String(Arc::new(text.clone())),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.iter().map(to_cel).collect())),
        serde_json::Value::Object(fields) => object(fields.iter().map(|(name, value)| (name.clone(), to_cel(value)))),
    }
}

/// A result as JSON: times as RFC 3339, durations in seconds (`1.5s`), bytes in base64.
pub(super) fn to_json(value: &Value) -> Result<serde_json::Value, EvaluationError> {
    Ok(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::UInt(value) => (*value).into(),
        Value::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => number.into(),
            None if value.is_nan() => return Err(EvaluationError::NotJson("not a number (NaN)")),
            None => return Err(EvaluationError::NotJson("infinite")),
        },
        Value::String(text) => text.as_str().into(),
        Value::Bytes(bytes) => BASE64_STANDARD.encode(bytes.as_slice()).into(),
        Value::Timestamp(at) => at.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true).into(),
        Value::Duration(length) => seconds(*length).into(),
        Value::List(items) => items.iter().map(to_json).collect::<Result<_, _>>()?,
        Value::Map(map) => {
            let field = |(key, value): (&Key, &Value)| Ok((key.to_string(), to_json(value)?));
            map.map.iter().map(field).collect::<Result<serde_json::Map<_, _>, _>>()?.into()
        }
        Value::Opaque(_) => return Err(EvaluationError::NotJson("an optional value (end it with orValue)")),
        Value::Function(..) => return Err(EvaluationError::NotJson("a function")),
    })
}

fn object(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    let fields = fields.into_iter().map(|(name, value)| (Key::String(Arc::new(name)), value));
    Value::Map(Map { map: Arc::new(fields.collect::<HashMap<_, _>>()) })
}

fn seconds(length: chrono::Duration) -> String {
    let sign = if length < chrono::Duration::zero() { "-" } else { "" };
    let (whole, nanos) = (length.num_seconds().unsigned_abs(), length.subsec_nanos().unsigned_abs());
    let fraction = format!("{nanos:09}");
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { format!("{sign}{whole}s") } else { format!("{sign}{whole}.{fraction}s") }
}
