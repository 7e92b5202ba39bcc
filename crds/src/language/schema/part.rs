//! One part of a schema, compiled by itself.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{PayloadSchema, SchemaError, invalid, options};

/// What the document is called while one of its parts is compiled.
const NAME: &str = "urn:cornjacket:schema";

/// What is written otherwise in the fragment of a URI.
const FRAGMENT: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'~').remove(b'-').remove(b'_').remove(b'.');

impl PayloadSchema {
    /// Compiles what a JSON pointer names within a schema that compiles as a whole; references in it keep their meaning.
    pub fn compile_part(schema: &Value, pointer: &str) -> Result<Self, SchemaError> {
        let Some(part) = schema.pointer(pointer) else {
            let message = "names nothing in the schema".to_owned();
            return Err(SchemaError::Invalid { pointer: format!("schema{pointer}"), message });
        };
        let bundle;
        let alone = if refers(part) {
            let mut document = schema.clone();
            document["$id"] = json!(NAME);
            bundle = json!({"$ref": format!("{NAME}#{}", utf8_percent_encode(pointer, &FRAGMENT)), "$defs": {"document": document}});
            &bundle
        } else {
            part
        };
        let validator = options().build(alone).map_err(|e| invalid(&e))?;
        Ok(Self { validator })
    }
}

/// Whether references, which count from the top of the document, are somewhere in it.
fn refers(part: &Value) -> bool {
    match part {
        Value::Object(fields) => {
            fields.contains_key("$ref") || fields.contains_key("$dynamicRef") || fields.values().any(refers)
        }
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}
