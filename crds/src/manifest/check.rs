//! From documents to resources: everything an API server would check, and the names of misspelt fields.

use kube::core::cel::Validator as RuleValidator;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::checks::{CHECKS, Checks, prune_nulls};
use super::read::{Document, escape};
use super::{Lines, Manifest, ManifestError, Origin, Reading, Resource, secret};
use crate::language::shown;
use crate::registration::Kind;
use crate::shared::API_VERSION;

/// Fields of metadata that a manifest may have: those of people, and those of an exported object.
const METADATA: [&str; 14] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// Checks one document, or each item of a list, into the reading.
pub(super) fn document(file: &str, document: Document, reading: &mut Reading) {
    let Document { value, lines } = document;
    let is_list = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && value["items"].is_array();
    if !is_list {
        return Check { file, at: String::new(), lines: &lines, kind: None, name: None, reading }.resource(value);
    }
    let items = value.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    for (index, item) in items.into_iter().enumerate() {
        Check { file, at: format!("/items/{index}"), lines: &lines, kind: None, name: None, reading }.resource(item);
    }
}

struct Check<'a> {
    file: &'a str,
    /// Pointer of the resource within its document.
    at: String,
    lines: &'a Lines,
    kind: Option<Kind>,
    name: Option<String>,
    reading: &'a mut Reading,
}

impl Check<'_> {
    fn resource(mut self, mut value: Value) {
        let errors_before = self.reading.errors.len();
        if secret::is_meant(&value) {
            return self.secret(&value);
        }
        let Some(kind) = self.kind_of(&value) else { return };
        self.name = value["metadata"]["name"].as_str().map(shown);
        // As the API server does, where status is a subresource.
        value.as_object_mut().and_then(|fields| fields.remove("status"));
        let checks = &CHECKS[&kind];
        prune_nulls(&mut value, &checks.schema);
        self.metadata(&value);
        self.unknown_fields(&value, &checks.schema, "");
        self.structure(&value, checks);
        if self.reading.errors.len() > errors_before {
            return;
        }
        self.rules(&value, checks);
        if self.reading.errors.len() > errors_before {
            return;
        }
        match typed(kind, value) {
            Ok(resource) => self.accept(resource),
            Err(error) => self.error("", &error.to_string()),
        }
    }

    fn secret(&mut self, value: &Value) {
        let errors_before = self.reading.errors.len();
        self.metadata(value);
        match secret::read(value, self.origin(""), escape) {
            Ok(secret) if self.reading.errors.len() == errors_before => self.reading.secrets.push(secret),
            Ok(_) => {}
            Err(wrong) => wrong.iter().for_each(|wrong| self.error(&wrong.pointer, &wrong.message)),
        }
    }

    fn kind_of(&mut self, value: &Value) -> Option<Kind> {
        let Value::Object(fields) = value else {
            self.error("", "a manifest is an object with apiVersion, kind, metadata and spec");
            return None;
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let known = Kind::ALL.map(Kind::as_str).into_iter().chain([secret::KIND]);
        let kind = text("kind").and_then(|word| Kind::ALL.into_iter().find(|kind| kind.as_str() == word));
        if kind.is_none() {
            let hint = text("kind").and_then(|word| crate::nearest(word, known.clone()));
            let all = || format!("use one of {}", known.collect::<Vec<_>>().join(", "));
            let hint = hint.map_or_else(all, |h| format!("did you mean {h}?"));
            self.error("/kind", &format!("{}: {hint}", quoted(fields.get("kind"))));
            return None;
        }
        self.kind = kind;
        if text("apiVersion") != Some(API_VERSION) {
            let found = quoted(fields.get("apiVersion"));
            self.error("/apiVersion", &format!("{found}: write apiVersion: {API_VERSION}"));
            return None;
        }
        kind
    }

    fn metadata(&mut self, value: &Value) {
        let Some(Value::Object(metadata)) = value.get("metadata") else {
            return self.error("/metadata", "is missing: write metadata with a name");
        };
        for field in metadata.keys().filter(|field| !METADATA.contains(&field.as_str())) {
            self.unknown(&format!("/metadata/{}", escape(field)), field, &METADATA);
        }
        match metadata.get("name").and_then(Value::as_str) {
            None => self.error("/metadata", "name is missing"),
            Some(name) if !is_name(name, 253, true) => self.error(
                "/metadata/name",
                &format!("'{}' is no name: use lower-case letters, digits, '-' and '.', at most 253", shown(name)),
            ),
            Some(_) => {}
        }
        if let Some(namespace) = metadata.get("namespace")
            && !namespace.as_str().is_some_and(|name| is_name(name, 63, false))
        {
            let found = quoted(Some(namespace));
            self.error(
                "/metadata/namespace",
                &format!("{found} is no name: use lower-case letters, digits and '-', at most 63"),
            );
        }
    }

    fn unknown_fields(&mut self, value: &Value, schema: &Value, pointer: &str) {
        if schema["x-kubernetes-preserve-unknown-fields"] == true || pointer == "/metadata" {
            return;
        }
        match value {
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.unknown_fields(item, &schema["items"], &format!("{pointer}/{i}"));
                }
            }
            Value::Object(fields) if !schema["additionalProperties"].is_object() => {
                let known = schema["properties"].as_object();
                for (name, value) in fields {
                    let at = format!("{pointer}/{}", escape(name));
                    match known.and_then(|known| known.get(name)) {
                        Some(schema) => self.unknown_fields(value, schema, &at),
                        None if pointer.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") => {}
                        None => {
                            let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                            self.unknown(&at, name, &names);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn unknown(&mut self, pointer: &str, name: &str, known: &[&str]) {
        let hint = match crate::nearest(name, known.iter().copied()) {
            Some(nearest) => format!(": did you mean '{nearest}'?"),
            None if known.is_empty() => ": it takes no settings".to_owned(),
            None => format!(": it can have {}", known.join(", ")),
        };
        self.error(pointer, &format!("unknown field{hint}"));
    }

    fn structure(&mut self, value: &Value, checks: &Checks) {
        for error in checks.structure.iter_errors(value).take(20) {
            let found = shown(&without_password(&error.instance().to_string()));
            let message = match error.kind() {
                jsonschema::error::ValidationErrorKind::Required { property } => {
                    format!("{} is missing", property.as_str().unwrap_or_default())
                }
                _ => error.masked_with(found.as_str()).to_string(),
            };
            self.error(&error.instance_path().to_string(), &message);
        }
    }

    fn rules(&mut self, value: &Value, checks: &Checks) {
        let Err(errors) = RuleValidator::new().validate_compiled(&checks.rules, value, None) else { return };
        for error in &errors {
            let path = error.field_path.trim_start_matches('.').replace('[', ".").replace(']', "");
            let pointer = if path.is_empty() { path } else { format!("/{}", path.replace('.', "/")) };
            self.error(&pointer, &error.message);
        }
    }

    fn accept(&mut self, resource: Resource) {
        let mut lines = Lines::default();
        for (pointer, line) in &self.lines.0 {
            if let Some(inner) = pointer.strip_prefix(self.at.as_str()) {
                lines.0.insert(inner.to_owned(), *line);
            }
        }
        let origin = self.origin("");
        self.reading.manifests.push(Manifest { resource, origin, lines });
    }

    fn error(&mut self, pointer: &str, message: &str) {
        let field = pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~");
        self.reading.errors.push(ManifestError {
            origin: self.origin(pointer),
            kind: self.kind,
            name: self.name.clone(),
            field: (!field.is_empty()).then_some(field),
            message: message.to_owned(),
        });
    }

    fn origin(&self, pointer: &str) -> Origin {
        Origin { file: self.file.to_owned(), line: self.lines.of(&format!("{}{pointer}", self.at)) }
    }
}

fn typed(kind: Kind, value: Value) -> Result<Resource, serde_json::Error> {
    fn boxed<T: DeserializeOwned>(value: Value) -> Result<Box<T>, serde_json::Error> {
        serde_json::from_value(value).map(Box::new)
    }
    Ok(match kind {
        Kind::Topic => Resource::Topic(boxed(value)?),
        Kind::EventType => Resource::EventType(boxed(value)?),
        Kind::Projection => Resource::Projection(boxed(value)?),
        Kind::WebhookAction => Resource::WebhookAction(boxed(value)?),
    })
}

/// A URL that names a user is refused, and may name a password as well, which is not repeated.
fn without_password(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}…{}", &text[..scheme + 3], &text[at..]),
        _ => text.to_owned(),
    }
}

fn quoted(value: Option<&Value>) -> String {
    match value {
        None => "is missing".to_owned(),
        Some(Value::String(text)) => format!("'{}'", shown(text)),
        Some(other) => shown(&other.to_string()),
    }
}

fn is_name(name: &str, longest: usize, dots: bool) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=longest).contains(&name.len())
        && name.bytes().all(|b| plain(b) || b == b'-' || (dots && b == b'.'))
        && name.split('.').all(|part| part.bytes().next().is_some_and(plain) && part.bytes().last().is_some_and(plain))
}
