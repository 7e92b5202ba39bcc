//! What a payload schema may say: checked before it is compiled, so that compiling and running it stay cheap.

use std::collections::HashMap;

use serde_json::Value;

use super::{DEPTH_LIMIT, EXPANDED_LIMIT, PATTERN_LIMIT, SIZE_LIMIT, SchemaError};

pub(super) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Keywords whose value maps names to schemas.
const MAPS_OF_SCHEMAS: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
/// Keywords whose value is data, not a schema.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "required"];
/// Keywords that apply a schema to the same value, so that a cycle through them would never end.
const IN_PLACE: [&str; 7] = ["allOf", "anyOf", "oneOf", "not", "if", "then", "else"];

/// Everything that is checked before the schema is compiled.
pub(super) fn check(schema: &Value) -> Result<(), SchemaError> {
    let Value::Object(fields) = schema else { return Err(SchemaError::NotAnObject) };
    let size = schema.to_string().len();
    if size > SIZE_LIMIT {
        return Err(SchemaError::TooLarge(size));
    }
    if let Some(dialect) = fields.get("$schema").and_then(Value::as_str)
        && dialect.trim_end_matches('#') != DIALECT
    {
        return Err(SchemaError::Dialect(dialect.to_owned()));
    }
    Walk { root: schema }.schema(schema, "schema", 0)?;
    let mut expansion = Expansion { root: schema, sizes: HashMap::new(), open: Vec::new() };
    expansion.size(schema, "schema", false)?;
    Ok(())
}

struct Walk<'a> {
    root: &'a Value,
}

impl Walk<'_> {
    fn schema(&self, schema: &Value, pointer: &str, depth: usize) -> Result<(), SchemaError> {
        if depth > DEPTH_LIMIT {
            return Err(SchemaError::TooDeep { pointer: pointer.to_owned() });
        }
        if let Value::Array(items) = schema {
            return items
                .iter()
                .enumerate()
                .try_for_each(|(i, s)| self.schema(s, &format!("{pointer}/{i}"), depth + 1));
        }
        let Value::Object(fields) = schema else { return Ok(()) };
        for (keyword, value) in fields {
            let at = format!("{pointer}/{keyword}");
            match (keyword.as_str(), value) {
                ("$ref" | "$dynamicRef", Value::String(reference)) => self.reference(reference, at)?,
                ("pattern", Value::String(pattern)) => check_pattern(pattern, at)?,
                (map, Value::Object(named)) if MAPS_OF_SCHEMAS.contains(&map) => {
                    for (name, schema) in named {
                        let at = format!("{at}/{name}");
                        if map == "patternProperties" {
                            check_pattern(name, at.clone())?;
                        }
                        self.schema(schema, &at, depth + 2)?;
                    }
                }
                (data, _) if DATA.contains(&data) => {}
                _ => self.schema(value, &at, depth + 1)?,
            }
        }
        Ok(())
    }

    fn reference(&self, reference: &str, pointer: String) -> Result<(), SchemaError> {
        let reference_text = || reference.to_owned();
        match reference.strip_prefix('#') {
            None => Err(SchemaError::RemoteReference { pointer, reference: reference_text() }),
            // An anchor: the compiler knows it or not.
            Some(anchor) if !anchor.is_empty() && !anchor.starts_with('/') => Ok(()),
            Some(path) => match target(self.root, path) {
                Some(_) => Ok(()),
                None => Err(SchemaError::DanglingReference { pointer, reference: reference_text() }),
            },
        }
    }
}

fn check_pattern(pattern: &str, pointer: String) -> Result<(), SchemaError> {
    match pattern.len() {
        0..=PATTERN_LIMIT => Ok(()),
        length => Err(SchemaError::PatternTooLong { pointer, length }),
    }
}

/// What a JSON pointer, perhaps percent-encoded, names.
fn target<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    root.pointer(
        &path.replace("%25", "%").replace("%24", "$").replace("%5E", "^").replace("%22", "\"").replace("%20", " "),
    )
}

/// How large the schema is with each reference replaced by what it names.
struct Expansion<'a> {
    root: &'a Value,
    /// By target of a reference.
    sizes: HashMap<String, u64>,
    /// References being followed, each with whether the path to it from the one before steps into a part of the value.
    open: Vec<(String, bool)>,
}

impl<'a> Expansion<'a> {
    /// `inner`: a part of the value has been stepped into since the last reference.
    fn size(&mut self, schema: &'a Value, pointer: &str, inner: bool) -> Result<u64, SchemaError> {
        let mut total = 1_u64;
        match schema {
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    total = add(total, self.size(item, &format!("{pointer}/{i}"), inner)?)?;
                }
            }
            Value::Object(fields) => {
                for (keyword, value) in fields {
                    let at = format!("{pointer}/{keyword}");
                    let size = match (keyword.as_str(), value) {
                        ("$ref" | "$dynamicRef", Value::String(reference)) => self.followed(reference, at, inner)?,
                        ("$defs" | "definitions", _) => 1,
                        (data, _) if DATA.contains(&data) => 1,
                        (in_place, _) if IN_PLACE.contains(&in_place) => self.size(value, &at, inner)?,
                        _ => self.size(value, &at, true)?,
                    };
                    total = add(total, size)?;
                }
            }
            _ => {}
        }
        Ok(total)
    }

    fn followed(&mut self, reference: &str, pointer: String, inner: bool) -> Result<u64, SchemaError> {
        if let Some(size) = self.sizes.get(reference) {
            return Ok(*size);
        }
        let Some(schema) = reference.strip_prefix('#').and_then(|path| target(self.root, path)) else { return Ok(1) };
        if let Some(first) = self.open.iter().position(|(open, _)| open == reference) {
            // A cycle ends where each round looks at a smaller part of the value.
            let steps_in = inner || self.open[first + 1..].iter().any(|(_, inner)| *inner);
            return if steps_in { Ok(1) } else { Err(SchemaError::EndlessReference { pointer }) };
        }
        self.open.push((reference.to_owned(), inner));
        let size = self.size(schema, &pointer, false)?;
        self.open.pop();
        self.sizes.insert(reference.to_owned(), size);
        Ok(size)
    }
}

fn add(total: u64, size: u64) -> Result<u64, SchemaError> {
    match total.saturating_add(size) {
        sum if sum > EXPANDED_LIMIT => Err(SchemaError::TooCostly),
        sum => Ok(sum),
    }
}
