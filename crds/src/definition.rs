//! The definitions of the four kinds for a cluster, as `kubectl apply` takes them.
//!
//! What the derive gives is finished here: explicit nulls are pruned by the API server instead of reaching the rules
//! (no field is nullable, but for values of a Topic's `config`), and a resource that nobody has looked at is not
//! taken for a current one (`status.observedGeneration` starts at -1).

use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::registration::Kind;
use crate::{EventType, Projection, Topic, WebhookAction};

/// The definition of a kind (`CustomResourceDefinition`), as JSON.
pub fn definition(kind: Kind) -> Value {
    let derived = match kind {
        Kind::Topic => Topic::crd(),
        Kind::EventType => EventType::crd(),
        Kind::Projection => Projection::crd(),
        Kind::WebhookAction => WebhookAction::crd(),
    };
    let mut definition = serde_json::to_value(derived).expect("a definition is plain data");
    for version in definition["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        finish(schema, "");
        schema["properties"]["status"]["default"] = json!({"observedGeneration": -1});
    }
    definition
}

/// The schema that resources of a kind are checked against (`openAPIV3Schema`).
pub fn schema(kind: Kind) -> Value {
    definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

/// The definition as YAML, as it is in `crds/generated`.
pub fn yaml(kind: Kind) -> String {
    let text = serde_saphyr::to_string(&definition(kind)).expect("a definition is plain data");
    format!("# Printed by `cornjacket crd {}`: edit crds/src instead.\n{text}", kind.as_str().to_lowercase())
}

/// Drops `nullable` and its traces, and writes whole bounds as integers.
fn finish(schema: &mut Value, name: &str) {
    match schema {
        Value::Object(fields) => {
            if name != "additionalProperties" {
                fields.remove("nullable");
            }
            if let Some(Value::Array(choices)) = fields.get_mut("enum") {
                choices.retain(|choice| !choice.is_null());
            }
            for (keyword, value) in fields {
                match value.as_f64() {
                    #[allow(clippy::cast_possible_truncation, reason = "bounds are whole and small")]
                    Some(bound) if keyword.ends_with("imum") => *value = json!(bound as i64),
                    _ => finish(value, keyword),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| finish(item, name)),
        _ => {}
    }
}

#[cfg(test)]
mod rules;
#[cfg(test)]
mod tests;
