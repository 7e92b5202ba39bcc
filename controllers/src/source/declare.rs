//! From the text of manifests to declared resources with generations. Pure.
//!
//! What a file that cannot be read declared before counts as declared and broken, never as removed.

use std::collections::{BTreeMap, HashMap};

use crds::manifest::{self, ManifestError, Secret};
use crds::reason::Reason;
use crds::registration::{ResourceKey, sha256};

use super::directory::Files;
use crate::plan::Registrations;
use crate::resource::{Declared, Resource, Unreadable};
use crate::status::StatusRow;

/// A resource found in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub key: ResourceKey,
    /// Path and line.
    pub origin: String,
    /// SHA-256 (hex) of what is declared.
    pub hash: String,
    pub resource: Result<Resource, Unreadable>,
}

/// Everything that a directory declares.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub found: Vec<Found>,
    /// Where in `found` each is.
    places: HashMap<ResourceKey, usize>,
    /// What actions may refer to.
    pub secrets: Vec<Secret>,
    /// What is wrong with files rather than with single resources, for the log.
    pub complaints: Vec<String>,
}

/// A declared resource and the hash that its generation stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    pub declared: Declared,
    pub hash: String,
}

/// Reads all files. `before` says what was declared where.
pub fn read(files: &Files, namespace: &str, before: &BTreeMap<ResourceKey, StatusRow>) -> Reading {
    let mut reading = Reading::default();
    let mut broken = Vec::new();
    for (path, text) in files {
        match text {
            Ok(text) => reading.add_file(path, text, namespace, &mut broken),
            Err(why) => broken.push(Broken { path, why: why.clone(), hash: sha256(why) }),
        }
    }
    for file in broken {
        reading.complaints.push(format!("{}: {}", file.path, file.why));
        reading.keep_declared(&file, before);
    }
    reading
}

/// A file of which not everything could be told apart.
struct Broken<'a> {
    path: &'a str,
    why: String,
    hash: String,
}

impl Reading {
    fn add_file<'a>(&mut self, path: &'a str, text: &str, namespace: &str, broken: &mut Vec<Broken<'a>>) {
        let manifest::Reading { manifests, secrets, errors } = manifest::read(path, text);
        for manifest in manifests {
            let (kind, name) = (manifest.resource.kind(), manifest.resource.name().to_owned());
            let origin = manifest.origin.to_string();
            if manifest.resource.namespace() == namespace {
                let key = ResourceKey { namespace: namespace.to_owned(), kind, name };
                self.add(Found { key, origin, hash: hash_of(&manifest.resource), resource: Ok(manifest.resource) });
            } else {
                let theirs = manifest.resource.namespace();
                self.complaints.push(foreign(&origin, &format!("{kind} {name}"), theirs, namespace));
            }
        }
        for secret in secrets {
            self.add_secret(secret, namespace);
        }
        for error in errors {
            let why = problem(&error);
            match (error.kind, error.name) {
                (Some(kind), Some(name)) => {
                    let key = ResourceKey { namespace: namespace.to_owned(), kind, name };
                    let resource = Err(Unreadable { reason: Reason::InvalidSpec, message: why });
                    self.add_problem(Found { key, origin: error.origin.to_string(), hash: sha256(text), resource });
                }
                _ => broken.push(Broken { path, why, hash: sha256(text) }),
            }
        }
    }

    fn add_secret(&mut self, secret: Secret, namespace: &str) {
        let (name, origin) = (format!("Secret {}", secret.name), secret.origin.to_string());
        if secret.namespace != namespace {
            return self.complaints.push(foreign(&origin, &name, &secret.namespace, namespace));
        }
        match self.secrets.iter().find(|other| other.name == secret.name) {
            None => self.secrets.push(secret),
            Some(first) => {
                let complaint = format!("{name} is declared twice: {} counts, {origin} does not", first.origin);
                self.complaints.push(complaint);
            }
        }
    }

    fn add(&mut self, found: Found) {
        match self.places.get(&found.key) {
            None => self.push(found),
            Some(first) => {
                let first = &self.found[*first].origin;
                let complaint = format!("{} is declared twice: {first} counts, {} does not", found.key, found.origin);
                self.complaints.push(complaint);
            }
        }
    }

    fn push(&mut self, found: Found) {
        self.places.insert(found.key.clone(), self.found.len());
        self.found.push(found);
    }

    /// One resource may have several problems: they are one message.
    fn add_problem(&mut self, found: Found) {
        let same = self.places.get(&found.key).map(|place| &mut self.found[*place]);
        let same = same.filter(|other| file_of(&other.origin) == file_of(&found.origin));
        match (same.map(|other| &mut other.resource), &found.resource) {
            (Some(Err(known)), Err(more)) => known.message = format!("{}; {}", known.message, more.message),
            _ => self.add(found),
        }
    }

    /// What a broken file declared before, unless another declares it now.
    fn keep_declared(&mut self, file: &Broken<'_>, before: &BTreeMap<ResourceKey, StatusRow>) {
        for (key, row) in before.iter().filter(|(_, row)| file_of(&row.origin) == file.path) {
            if self.places.contains_key(key) {
                continue;
            }
            let message = format!("{}: {}; mend the file", file.path, file.why);
            self.push(Found {
                key: key.clone(),
                origin: row.origin.clone(),
                hash: file.hash.clone(),
                resource: Err(Unreadable { reason: Reason::InvalidManifest, message }),
            });
        }
    }
}

fn foreign(origin: &str, what: &str, theirs: &str, namespace: &str) -> String {
    format!("{origin}: {what} is for the namespace '{theirs}' and this is '{namespace}': it is left out")
}

fn problem(error: &ManifestError) -> String {
    let field = error.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
    format!("line {}: {field}{}", error.origin.line, error.message)
}

/// Of what is declared, whatever its layout in the file.
fn hash_of(resource: &Resource) -> String {
    let spec = match resource {
        Resource::Topic(resource) => serde_json::to_value(&resource.spec),
        Resource::EventType(resource) => serde_json::to_value(&resource.spec),
        Resource::Projection(resource) => serde_json::to_value(&resource.spec),
        Resource::WebhookAction(resource) => serde_json::to_value(&resource.spec),
    };
    sha256(&spec.map(|spec| spec.to_string()).unwrap_or_default())
}

/// Gives every resource its generation: it rises whenever the hash differs from the last one seen.
pub fn number(
    found: Vec<Found>,
    before: &BTreeMap<ResourceKey, StatusRow>,
    registered: &Registrations,
) -> Vec<Numbered> {
    let numbered = |found: Found| {
        let last_registered = registered.get(&found.key).map_or(0, |row| row.generation);
        let generation = match before.get(&found.key) {
            Some(row) if row.spec_hash == found.hash => row.generation,
            Some(row) => row.generation.max(last_registered) + 1,
            None => last_registered + 1,
        };
        let Found { key, origin, hash, resource } = found;
        Numbered { declared: Declared { key, generation, created: None, origin, resource }, hash }
    };
    found.into_iter().map(numbered).collect()
}

/// The file of an origin (`path:line`).
fn file_of(origin: &str) -> &str {
    origin.rsplit_once(':').map_or(origin, |(path, _)| path)
}

#[cfg(test)]
mod tests;
