//! A Secret among manifests, as Kubernetes has them: what WebhookActions refer to where there is no cluster to ask. Nothing
//! that is said of one shows a value.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretSlice;
use serde_json::{Map, Value};

use super::{DEFAULT_NAMESPACE, Origin};
use crate::language::shown;

/// The kind, and the `apiVersion` that goes with it.
pub(super) const KIND: &str = "Secret";
const API_VERSION: &str = "v1";
/// Fields beside metadata.
const FIELDS: [&str; 7] = ["apiVersion", "kind", "metadata", "data", "stringData", "type", "immutable"];
/// Most bytes of all values together, as in Kubernetes.
const MAX_BYTES: usize = 1024 * 1024;

/// A Secret and where it was written.
#[derive(Clone, Debug)]
pub struct Secret {
    pub namespace: String,
    pub name: String,
    pub origin: Origin,
    /// By key.
    pub values: BTreeMap<String, SecretSlice<u8>>,
}

/// What is wrong at a place of the document.
pub(super) struct Wrong {
    pub(super) pointer: String,
    pub(super) message: String,
}

impl Wrong {
    fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }
}

/// Whether a document is meant to be one.
pub(super) fn is_meant(value: &Value) -> bool {
    value["kind"] == KIND
}

/// Reads everything but metadata, which is checked as that of every manifest. `escape` makes a name part of a pointer.
pub(super) fn read(value: &Value, origin: Origin, escape: impl Fn(&str) -> String) -> Result<Secret, Vec<Wrong>> {
    let mut wrong = Vec::new();
    if value["apiVersion"] != API_VERSION {
        wrong.push(Wrong::at("/apiVersion", format!("a Secret has apiVersion: {API_VERSION}")));
    }
    let fields = value.as_object().into_iter().flat_map(Map::keys);
    for field in fields.filter(|field| !FIELDS.contains(&field.as_str())) {
        let hint = crate::nearest(field, FIELDS);
        let hint =
            hint.map_or_else(|| format!("a Secret has {}", FIELDS.join(", ")), |h| format!("did you mean '{h}'?"));
        wrong.push(Wrong::at(format!("/{}", escape(field)), format!("unknown field: {hint}")));
    }
    let mut values = BTreeMap::new();
    // As in Kubernetes, what is plain text comes last and wins.
    for (field, is_base64) in [("data", true), ("stringData", false)] {
        for (key, value) in entries(value, field, &mut wrong) {
            let at = format!("/{field}/{}", escape(key));
            match bytes(key, value, is_base64) {
                Ok(bytes) => drop(values.insert(key.clone(), bytes)),
                Err(message) => wrong.push(Wrong::at(at, message)),
            }
        }
    }
    let total: usize =
        values.values().map(|value: &SecretSlice<u8>| secrecy::ExposeSecret::expose_secret(value).len()).sum();
    if total > MAX_BYTES {
        wrong.push(Wrong::at("", format!("the values have {total} bytes together: at most {MAX_BYTES} are allowed")));
    }
    let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
    let (name, namespace) =
        (text("name").unwrap_or_default(), text("namespace").unwrap_or(DEFAULT_NAMESPACE.to_owned()));
    if wrong.is_empty() { Ok(Secret { namespace, name, origin, values }) } else { Err(wrong) }
}

fn entries<'a>(value: &'a Value, field: &str, wrong: &mut Vec<Wrong>) -> Vec<(&'a String, &'a Value)> {
    match value.get(field) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(entries)) => entries.iter().collect(),
        Some(_) => {
            wrong.push(Wrong::at(format!("/{field}"), "must be an object of keys and values"));
            Vec::new()
        }
    }
}

fn bytes(key: &str, value: &Value, is_base64: bool) -> Result<SecretSlice<u8>, String> {
    let is_key =
        (1..=253).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !is_key {
        return Err(format!("'{}' is no key: use letters, digits, '-', '_' and '.', at most 253", shown(key)));
    }
    match value {
        Value::String(text) if !is_base64 => Ok(SecretSlice::from(text.clone().into_bytes())),
        Value::String(text) => {
            // Lines of a long value may be broken.
            let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let refused = |_| "its value is not base64: write plain text under stringData".to_owned();
            STANDARD.decode(text).map(SecretSlice::from).map_err(refused)
        }
        _ => Err("its value must be a text: put it in quotes".to_owned()),
    }
}
