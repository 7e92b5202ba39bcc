//! What there is to say about manifests, and how it is printed.

use std::fmt;

use crds::manifest::{Manifest, ManifestError, Origin, Secret};
use crds::reason::Reason;
use crds::registration::Kind;
use serde::Serialize;

/// Whether a finding keeps the resource from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Error,
    Warning,
}

/// Something to say about a place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Finding {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

#[derive(Default, Serialize)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    pub(super) files: usize,
    pub(super) resources: usize,
    pub(super) errors: usize,
    pub(super) warnings: usize,
}

impl Finding {
    pub(super) fn new(manifest: &Manifest, severity: Severity, reason: Reason, message: &str) -> Self {
        let (field, message) = split_field(message);
        let Origin { file, line } = manifest.origin_of(&field.map(pointer).unwrap_or_default());
        Self {
            file,
            line,
            severity,
            kind: Some(manifest.resource.kind().as_str()),
            name: Some(manifest.resource.name().to_owned()),
            field: field.map(str::to_owned),
            reason: reason.as_str(),
            message: message.to_owned(),
        }
    }

    /// A Secret that is declared twice.
    pub(super) fn of_secret(secret: &Secret, message: &str) -> Self {
        Self {
            file: secret.origin.file.clone(),
            line: secret.origin.line,
            severity: Severity::Error,
            kind: Some("Secret"),
            name: Some(secret.name.clone()),
            field: None,
            reason: Reason::Conflict.as_str(),
            message: message.to_owned(),
        }
    }
}

impl From<ManifestError> for Finding {
    fn from(error: ManifestError) -> Self {
        Self {
            file: error.origin.file,
            line: error.origin.line,
            severity: Severity::Error,
            kind: error.kind.map(Kind::as_str),
            name: error.name,
            field: error.field,
            reason: Reason::InvalidManifest.as_str(),
            message: error.message,
        }
    }
}

/// `spec.fields.count` and the rest of `spec.fields.count: unknown name 'a'`.
fn split_field(message: &str) -> (Option<&str>, &str) {
    let end = message.find(|c: char| !(c.is_alphanumeric() || "._-[]".contains(c))).unwrap_or(message.len());
    let (field, rest) = message.split_at(end);
    match rest.strip_prefix(": ") {
        Some(rest) if field.starts_with("spec.") => (Some(field), rest),
        _ if field.starts_with("spec.") => (Some(field), message),
        _ => (None, message),
    }
}

/// `/spec/versions/0/schema` of `spec.versions[0].schema`.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace('[', ".").replace(']', "").replace('.', "/"))
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}: {severity}: ", self.file, self.line)?;
        match (self.kind, &self.name) {
            (Some(kind), Some(name)) => write!(f, "{kind}/{name}: ")?,
            (Some(kind), None) => write!(f, "{kind}: ")?,
            _ => {}
        }
        match &self.field {
            Some(field) if !self.message.starts_with(field) => write!(f, "{field}: ")?,
            _ => {}
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, resources, errors, warnings, .. } = self;
        write!(f, "{resources} resource(s) in {files} file(s): {errors} error(s), {warnings} warning(s)")
    }
}
