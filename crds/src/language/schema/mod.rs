//! Payload schemas: JSON Schema 2020-12, compiled once, run for every event.
//!
//! In: a schema as JSON. Out: the violations of a payload. References stay within the schema, nothing is ever fetched;
//! size, depth, patterns and the work that references multiply are bounded; patterns run in linear time; formats are
//! asserted.

mod check;
mod part;

use jsonschema::{Draft, PatternOptions, ValidationError, ValidationOptions, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shown;

/// The largest schema, in bytes of its compact text.
pub const SIZE_LIMIT: usize = 64 << 10;
/// How deeply a schema may be nested.
pub const DEPTH_LIMIT: usize = 64;
/// The longest pattern, in bytes.
pub const PATTERN_LIMIT: usize = 1024;
/// The largest compiled form of a pattern, in bytes.
const PATTERN_SIZE_LIMIT: usize = 1 << 20;
/// How large a schema may become when each reference is replaced by what it names.
const EXPANDED_LIMIT: u64 = 100_000;
/// Violations that one validation reports.
const VIOLATIONS_LIMIT: usize = 20;

/// Why a JSON value is no payload schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("the schema has {0} bytes: at most {SIZE_LIMIT} are allowed")]
    TooLarge(usize),
    #[error("{pointer}: the schema is nested more than {DEPTH_LIMIT} levels deep")]
    TooDeep { pointer: String },
    #[error("the schema must be an object, for example {{\"type\": \"object\"}}")]
    NotAnObject,
    #[error("$schema is '{}': only {DIALECT} is supported; leave it out", shown(.0), DIALECT = check::DIALECT)]
    Dialect(String),
    #[error(
        "{pointer}: '{}' points outside the schema, and nothing is fetched: put it into $defs and write #/$defs/…",
        shown(reference)
    )]
    RemoteReference { pointer: String, reference: String },
    #[error("{pointer}: '{}' names nothing in the schema", shown(reference))]
    DanglingReference { pointer: String, reference: String },
    #[error("{pointer}: the reference leads back to itself without looking at a part of the value")]
    EndlessReference { pointer: String },
    #[error("references multiply the schema to more than {EXPANDED_LIMIT} parts")]
    TooCostly,
    #[error("{pointer}: the pattern has {length} bytes: at most {PATTERN_LIMIT} are allowed")]
    PatternTooLong { pointer: String, length: usize },
    #[error("{pointer}: {message}")]
    Invalid { pointer: String, message: String },
}

/// One way in which a payload breaks its schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// JSON pointer to the value, `""` for the payload itself.
    pub pointer: String,
    /// The keyword of the schema, for example `required`.
    pub rule: String,
    /// The value as JSON, cut to 120 characters.
    pub value: String,
    /// What is wrong, in a sentence.
    pub message: String,
}

/// A compiled schema.
#[derive(Debug)]
pub struct PayloadSchema {
    validator: Validator,
}

impl PayloadSchema {
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        check::check(schema)?;
        let validator = options().build(schema).map_err(|e| invalid(&e))?;
        Ok(Self { validator })
    }

    /// Whether the payload is valid.
    pub fn accepts(&self, payload: &Value) -> bool {
        self.validator.is_valid(payload)
    }

    /// The ways in which a payload breaks the schema, at most 20; none if it is valid.
    pub fn validate(&self, payload: &Value) -> Vec<Violation> {
        if self.validator.is_valid(payload) {
            return Vec::new();
        }
        self.validator.iter_errors(payload).take(VIOLATIONS_LIMIT).map(|error| violation(&error)).collect()
    }
}

/// How schemas are compiled: nothing is fetched, formats are asserted, patterns run in linear time.
fn options() -> ValidationOptions<'static> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_SIZE_LIMIT))
}

fn invalid(error: &ValidationError<'_>) -> SchemaError {
    SchemaError::Invalid {
        pointer: format!("schema{}", error.instance_path()),
        message: misspelt_type(error).unwrap_or_else(|| shown(&error.to_string())),
    }
}

/// The commonest mistake; the library says of it only that no branch of an `anyOf` fits.
fn misspelt_type(error: &ValidationError<'_>) -> Option<String> {
    const TYPES: [&str; 7] = ["string", "number", "integer", "boolean", "object", "array", "null"];
    let word = error.instance().as_str().filter(|_| error.instance_path().to_string().ends_with("/type"))?;
    let hint = crate::nearest(word, TYPES).map_or_else(String::new, |near| format!(": did you mean '{near}'?"));
    Some(format!("'{}' is no type of JSON Schema, which are {}{hint}", shown(word), TYPES.join(", ")))
}

fn violation(error: &ValidationError<'_>) -> Violation {
    let value = shown(&error.instance().to_string());
    let message = match error.kind() {
        // The value is an object here; only what is missing matters.
        jsonschema::error::ValidationErrorKind::Required { property } => {
            format!("{} is required", property.as_str().unwrap_or_default())
        }
        _ => error.masked_with(value.as_str()).to_string(),
    };
    Violation {
        pointer: error.instance_path().to_string(),
        rule: error.kind().keyword().to_owned(),
        message: message.chars().take(500).collect(),
        value,
    }
}

#[cfg(test)]
mod tests;
