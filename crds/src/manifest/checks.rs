//! A definition's schema in the forms that manifests are checked with; made once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jsonschema::{Draft, PatternOptions, Validator};
use kube::core::cel::{CompiledSchema, compile_schema};
use serde_json::{Map, Value, json};

use crate::registration::Kind;

/// What resources of a kind are checked with.
pub(super) struct Checks {
    /// The definition's schema.
    pub(super) schema: Value,
    /// Types, bounds, patterns, required fields.
    pub(super) structure: Validator,
    /// The rules in CEL.
    pub(super) rules: CompiledSchema,
}

pub(super) static CHECKS: LazyLock<BTreeMap<Kind, Checks>> = LazyLock::new(|| {
    let checks = |kind| {
        let schema = crate::definition::schema(kind);
        let structure = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .with_pattern_options(PatternOptions::regex())
            .build(&json_schema(&schema))
            .expect("a definition's schema is a JSON Schema");
        let rules = compile_schema(&schema);
        (kind, Checks { schema, structure, rules })
    };
    Kind::ALL.into_iter().map(checks).collect()
});

/// Drops explicit nulls where the schema does not keep them, as the API server does.
pub(super) fn prune_nulls(value: &mut Value, schema: &Value) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| prune_nulls(item, &schema["items"])),
        Value::Object(fields) => {
            let of = |name: &str| match &schema["additionalProperties"] {
                Value::Null => &schema["properties"][name],
                map => map,
            };
            fields.retain(|name, value| !value.is_null() || of(name)["nullable"] == true);
            fields.iter_mut().for_each(|(name, value)| prune_nulls(value, of(name)));
        }
        _ => {}
    }
}

/// A definition's schema as plain JSON Schema: `nullable` becomes a type.
fn json_schema(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let mut fields: Map<_, _> = fields.iter().map(|(name, value)| (name.clone(), json_schema(value))).collect();
            if fields.remove("nullable") == Some(json!(true)) {
                let only = fields.get("type").cloned().unwrap_or_default();
                fields.insert("type".to_owned(), json!([only, "null"]));
            }
            Value::Object(fields)
        }
        Value::Array(items) => items.iter().map(json_schema).collect(),
        other => other.clone(),
    }
}
