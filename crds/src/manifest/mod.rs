//! Manifests: resources as people write them into files, read as strictly as an API server would.
//!
//! In: a file's text, YAML or JSON, one document or many, or a `List`. Out: typed resources with file and line, and
//! every error with the line of the failing field. What is accepted here is accepted by the API server: the same
//! schema and the same rules are checked, and unknown fields are errors. A bad document never hides its neighbours. Secrets
//! (`v1`) may stand beside the four kinds: no error shows a value of one.

mod check;
mod checks;
mod read;
mod secret;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use secret::Secret;

use crate::registration::{Kind, ResourceKey};
use crate::{EventType, Projection, Topic, WebhookAction};

/// Namespace of a manifest that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub file: String,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One of the four kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    Topic(Box<Topic>),
    EventType(Box<EventType>),
    Projection(Box<Projection>),
    WebhookAction(Box<WebhookAction>),
}

impl Resource {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Topic(_) => Kind::Topic,
            Self::EventType(_) => Kind::EventType,
            Self::Projection(_) => Kind::Projection,
            Self::WebhookAction(_) => Kind::WebhookAction,
        }
    }

    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Topic(resource) => &resource.metadata,
            Self::EventType(resource) => &resource.metadata,
            Self::Projection(resource) => &resource.metadata,
            Self::WebhookAction(resource) => &resource.metadata,
        }
    }

    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Topic(resource) => &mut resource.metadata,
            Self::EventType(resource) => &mut resource.metadata,
            Self::Projection(resource) => &mut resource.metadata,
            Self::WebhookAction(resource) => &mut resource.metadata,
        }
    }

    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    }

    /// Names the resource within a database.
    pub fn key(&self) -> ResourceKey {
        ResourceKey { namespace: self.namespace().to_owned(), kind: self.kind(), name: self.name().to_owned() }
    }

    /// Whether the rules for a change allow it to follow `before`, as the API server would decide; else what breaks them.
    pub fn follows(&self, before: &Self) -> Result<(), String> {
        let result = match (self, before) {
            (Self::Topic(new), Self::Topic(old)) => new.validate_cel_update(old),
            (Self::EventType(new), Self::EventType(old)) => new.validate_cel_update(old),
            (Self::Projection(new), Self::Projection(old)) => new.validate_cel_update(old),
            (Self::WebhookAction(new), Self::WebhookAction(old)) => new.validate_cel_update(old),
            _ => return Err(format!("a {} cannot become a {}", before.kind(), self.kind())),
        };
        result.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}

/// A resource and where it was written.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub resource: Resource,
    pub origin: Origin,
    lines: Lines,
}

impl Manifest {
    /// Where a field was written, by JSON pointer (`/spec/source`); the nearest part around it if it was not.
    pub fn origin_of(&self, pointer: &str) -> Origin {
        Origin { file: self.origin.file.clone(), line: self.lines.of(pointer) }
    }
}

/// Something in a file that is no resource, or no valid one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {}{}{message}", subject(*kind, name.as_deref()), field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default())]
pub struct ManifestError {
    pub origin: Origin,
    /// The kind, as far as it could be read.
    pub kind: Option<Kind>,
    /// metadata.name, as far as it could be read.
    pub name: Option<String>,
    /// The field, for example `spec.source`.
    pub field: Option<String>,
    /// What is wrong with it, and the way out.
    pub message: String,
}

fn subject(kind: Option<Kind>, name: Option<&str>) -> String {
    match (kind, name) {
        (Some(kind), Some(name)) => format!("{kind}/{name}: "),
        (Some(kind), None) => format!("{kind}: "),
        _ => String::new(),
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub manifests: Vec<Manifest>,
    pub secrets: Vec<Secret>,
    pub errors: Vec<ManifestError>,
}

/// Reads a file's text. `file` is only named in origins.
pub fn read(file: &str, text: &str) -> Reading {
    let mut reading = Reading::default();
    for document in read::documents(text) {
        match document {
            Ok(document) => check::document(file, document, &mut reading),
            Err((line, message)) => reading.errors.push(ManifestError {
                origin: Origin { file: file.to_owned(), line },
                kind: None,
                name: None,
                field: None,
                message,
            }),
        }
    }
    reading
}

/// The manifest files of a path in order: the file itself, or all `.yaml`, `.yml` and `.json` files below a folder.
/// Hidden ones are left out.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut entries = std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let manifest = path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known));
        if !hidden && path.is_dir() {
            found.extend(files(&path)?);
        } else if !hidden && manifest {
            found.push(path);
        }
    }
    Ok(found)
}

/// The line of each value of a document, by JSON pointer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(HashMap<String, usize>);

impl Lines {
    /// The line of a value, or of the nearest part around it.
    fn of(&self, pointer: &str) -> usize {
        let mut pointer = pointer;
        loop {
            if let Some(line) = self.0.get(pointer) {
                return *line;
            }
            match pointer.rsplit_once('/') {
                Some((outer, _)) => pointer = outer,
                None => return 1,
            }
        }
    }
}

#[cfg(test)]
mod tests;
