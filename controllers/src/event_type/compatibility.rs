//! Whether one payload schema accepts what another accepts, as far as keywords tell. Pure.
//!
//! Compared are types, values, bounds, required and closed properties, and items, at every depth. References and
//! combinations (`$ref`, `anyOf`, …) are taken as compatible, and so is a description of a property that had none.

use std::collections::BTreeSet;

use crds::event_type::Compatibility;
use serde_json::{Map, Value};

/// Keywords of which a larger value accepts less, and those of which a smaller one does.
const LOWER: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
const UPPER: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];
/// Keywords that accept less than their absence, and whose values cannot be compared.
const OPAQUE: [&str; 4] = ["pattern", "format", "multipleOf", "uniqueItems"];

/// Compares a newer schema with an older one.
///
/// # Errors
/// Names the first place where a payload that must be accepted may not be.
pub fn compare(older: &Value, newer: &Value, mode: Compatibility) -> Result<(), String> {
    let backward = || accepts(newer, older, "").map_err(|why| format!("payloads of the older one may fail: {why}"));
    let forward = || accepts(older, newer, "").map_err(|why| format!("readers of the older one may fail: {why}"));
    match mode {
        Compatibility::None => Ok(()),
        Compatibility::Backward => backward(),
        Compatibility::Forward => forward(),
        Compatibility::Full => backward().and_then(|()| forward()),
    }
}

/// `reader` accepts every payload that `writer` accepts.
fn accepts(reader: &Value, writer: &Value, at: &str) -> Result<(), String> {
    let (reader, writer) = match (reader, writer) {
        (reader, writer) if reader == writer => return Ok(()),
        (Value::Bool(true), _) | (_, Value::Bool(false)) => return Ok(()),
        (Value::Object(reader), Value::Object(writer)) => (reader, writer),
        (Value::Object(reader), _) => (reader, &Map::new()),
        _ => return Err(format!("nothing is accepted at {}", place(at))),
    };
    types(reader, writer, at)?;
    values(reader, writer, at)?;
    bounds(reader, writer, at)?;
    properties(reader, writer, at)?;
    match (reader.get("items"), writer.get("items")) {
        (Some(items), known) => accepts(items, known.unwrap_or(&Value::Bool(true)), &format!("{at}/items")),
        (None, _) => Ok(()),
    }
}

fn place(at: &str) -> &str {
    if at.is_empty() { "the top" } else { at }
}

fn types(reader: &Map<String, Value>, writer: &Map<String, Value>, at: &str) -> Result<(), String> {
    let Some(accepted) = reader.get("type").map(names) else { return Ok(()) };
    let Some(written) = writer.get("type").map(names) else {
        return if writer.contains_key("enum") || writer.contains_key("const") || combines(writer) {
            Ok(())
        } else {
            Err(format!("{} is limited to {}", place(at), listed(&accepted)))
        };
    };
    let refused = written.iter().find(|t| !(accepted.contains(*t) || **t == "integer" && accepted.contains("number")));
    refused.map_or(Ok(()), |t| Err(format!("{} may be {t}, and only {} is accepted", place(at), listed(&accepted))))
}

/// What it accepts is said elsewhere.
fn combines(schema: &Map<String, Value>) -> bool {
    ["$ref", "anyOf", "oneOf", "allOf"].iter().any(|keyword| schema.contains_key(*keyword))
}

fn names(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    }
}

fn listed(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(" or ")
}

fn values(reader: &Map<String, Value>, writer: &Map<String, Value>, at: &str) -> Result<(), String> {
    let Some(accepted) = allowed(reader) else { return Ok(()) };
    let Some(written) = allowed(writer) else {
        return if combines(writer) { Ok(()) } else { Err(format!("{} is limited to certain values", place(at))) };
    };
    let refused = written.iter().find(|value| !accepted.contains(value));
    refused.map_or(Ok(()), |value| Err(format!("{} may be {value}, which is not accepted", place(at))))
}

fn allowed(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        _ => None,
    }
}

fn bounds(reader: &Map<String, Value>, writer: &Map<String, Value>, at: &str) -> Result<(), String> {
    // Values that are listed are not bounded as well.
    if allowed(writer).is_some() || combines(writer) {
        return Ok(());
    }
    let number = |schema: &Map<String, Value>, keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let tighter =
        |keyword: &&&str, worse: fn(f64, f64) -> bool| match (number(reader, keyword), number(writer, keyword)) {
            (Some(accepted), Some(written)) => worse(accepted, written),
            (Some(_), None) => true,
            (None, _) => false,
        };
    let lower = LOWER.iter().find(|keyword| tighter(keyword, |accepted, written| accepted > written));
    let upper = UPPER.iter().find(|keyword| tighter(keyword, |accepted, written| accepted < written));
    let opaque = OPAQUE.iter().find(|k| reader.get(**k).is_some_and(|value| writer.get(**k) != Some(value)));
    let tightened = lower.or(upper).or(opaque);
    tightened.map_or(Ok(()), |keyword| Err(format!("{keyword} of {} is tighter", place(at))))
}

fn properties(reader: &Map<String, Value>, writer: &Map<String, Value>, at: &str) -> Result<(), String> {
    let required = |schema: &'_ Map<String, Value>| -> BTreeSet<String> {
        schema.get("required").map(names).unwrap_or_default().into_iter().map(str::to_owned).collect()
    };
    if let Some(name) = required(reader).difference(&required(writer)).next() {
        return if combines(writer) { Ok(()) } else { Err(format!("{at}/{name} is required")) };
    }
    let none = Map::new();
    let described = |schema: &'_ Map<String, Value>| schema.get("properties").and_then(Value::as_object).cloned();
    let (accepted, written) = (described(reader), described(writer));
    let accepted = accepted.as_ref().unwrap_or(&none);
    let others = reader.get("additionalProperties").unwrap_or(&Value::Bool(true));
    for (name, schema) in written.as_ref().unwrap_or(&none) {
        accepts(accepted.get(name).unwrap_or(others), schema, &format!("{at}/properties/{name}"))?;
    }
    let theirs = writer.get("additionalProperties").unwrap_or(&Value::Bool(true));
    if combines(writer) { Ok(()) } else { accepts(others, theirs, &format!("{at}/additionalProperties")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Older, newer, whether that is backward compatible, and forward.
    fn cases() -> Vec<(Value, Value, bool, bool)> {
        let object = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
        let of = |schema: Value| object(json!({"x": schema}), json!([]));
        vec![
            (json!({}), json!({}), true, true),
            (of(json!({"type": "integer"})), of(json!({"type": "number"})), true, false),
            (of(json!({"type": "number"})), of(json!({"type": ["number", "null"]})), true, false),
            (of(json!({"type": "string"})), of(json!({"type": "number"})), false, false),
            (of(json!({})), of(json!({"type": "number"})), false, true),
            (object(json!({}), json!([])), object(json!({"y": {"type": "string"}}), json!([])), true, true),
            (object(json!({}), json!([])), object(json!({"y": {}}), json!(["y"])), false, true),
            (of(json!({"enum": [1, 2]})), of(json!({"enum": [1, 2, 3]})), true, false),
            (of(json!({"const": 1})), of(json!({"enum": [1, 2]})), true, false),
            (of(json!({"minimum": 0})), of(json!({"minimum": 5})), false, true),
            (of(json!({"maxLength": 5})), of(json!({})), true, false),
            (of(json!({"pattern": "a"})), of(json!({"pattern": "b"})), false, false),
            (json!({"type": "array", "items": {"type": "integer"}}), json!({"type": "array"}), true, false),
            (json!({"type": "object"}), json!({"type": "object", "additionalProperties": false}), false, true),
            (of(json!({"$ref": "#/$defs/a"})), of(json!({"type": "number"})), true, true),
            (json!(true), json!(false), false, true),
        ]
    }

    #[test]
    fn what_accepts_less_is_found_in_either_direction() {
        for (older, newer, backward, forward) in cases() {
            let found = compare(&older, &newer, Compatibility::Backward);
            assert_eq!(found.is_ok(), backward, "backward {older} to {newer}: {found:?}");
            let found = compare(&older, &newer, Compatibility::Forward);
            assert_eq!(found.is_ok(), forward, "forward {older} to {newer}: {found:?}");
            assert_eq!(compare(&older, &newer, Compatibility::Full).is_ok(), backward && forward);
            assert_eq!(compare(&older, &newer, Compatibility::None), Ok(()));
        }
    }

    #[test]
    fn the_difference_names_its_place() {
        let older = json!({"properties": {"a": {"properties": {"b": {"type": "string"}}}}});
        let newer = json!({"properties": {"a": {"properties": {"b": {"type": "number"}}}}});
        let why = compare(&older, &newer, Compatibility::Backward).expect_err("incompatible");
        assert_eq!(
            why,
            "payloads of the older one may fail: /properties/a/properties/b may be string, and only number is accepted"
        );
    }
}
