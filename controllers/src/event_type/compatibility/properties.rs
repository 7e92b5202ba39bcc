//! Objects: required, described and other properties, their names, and what depends on them.
//!
//! A property that the writer does not describe, where it says nothing of others (`additionalProperties`), is taken as
//! not written when the reader begins to describe it: otherwise no optional property could ever be added.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::document::Sub;
use super::types::Types;
use super::walk::{Comparison, is_kept};
use super::written::Written;

impl Comparison {
    pub(super) fn objects<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        self.required(reader, written);
        self.described(reader, written);
        self.patterns(reader, written);
        self.others(reader, written);
        self.names(reader, written);
        self.dependencies(reader, written);
        if reader.get("unevaluatedProperties").is_some() && reader.additional().is_none() {
            self.undecided(reader, "unevaluatedProperties", written);
        }
    }

    fn required<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        for name in strings(reader.get("required")) {
            if !written.requires(name) {
                self.differs(reader.place("required"), format!("'{name}' optional"), format!("'{name}' required"));
            }
        }
    }

    /// Properties that one of the two names.
    fn described<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let theirs = written.parts.iter().filter_map(|part| part.map("properties"));
        let names: BTreeSet<&String> = reader.map("properties").into_iter().chain(theirs).flat_map(Map::keys).collect();
        for name in names {
            let property = match self.property(written, name) {
                Some(property) => property,
                None if self.strict || is_open(written) || written.requires(name) => Written::anything(),
                None => continue,
            };
            for schema in self.readers(reader, name) {
                self.one(reader, &schema, written, &property, name);
            }
        }
    }

    /// A schema of the reader that holds for a property.
    fn one<'a>(
        &mut self,
        reader: &Sub<'a>,
        schema: &Sub<'a>,
        written: &Written<'a>,
        property: &Written<'a>,
        name: &str,
    ) {
        let unknown = reader.entry("properties", name).is_none() && schema.is_nothing();
        let theirs = written.parts.iter().find_map(|part| part.entry("properties", name));
        match theirs.filter(|_| unknown) {
            // The reader has no place of its own for a property that it does not know.
            Some(theirs) if !self.is_empty(property) => {
                let keyword = schema.at.rsplit('/').next().unwrap_or_default();
                self.differs(theirs.at, property.describe(), format!("refused ({keyword}: false)"));
            }
            Some(_) => {}
            None => self.accepts(schema, property),
        }
    }

    /// What the writer says of a property; none if nothing.
    pub(super) fn property<'a>(&mut self, written: &Written<'a>, name: &str) -> Option<Written<'a>> {
        let mut property = Written::anything();
        let mut described = false;
        for part in &written.parts {
            for schema in self.readers(part, name) {
                described = true;
                property.add(&schema);
            }
        }
        described.then_some(property)
    }

    /// The schemas that hold for a property.
    fn readers<'a>(&mut self, schema: &Sub<'a>, name: &str) -> Vec<Sub<'a>> {
        let mut found: Vec<Sub<'a>> = schema.entry("properties", name).into_iter().collect();
        let mut others = found.is_empty();
        for pattern in schema.map("patternProperties").into_iter().flat_map(Map::keys) {
            if self.matches(pattern, name) != Some(false) {
                others = false;
                found.extend(schema.entry("patternProperties", pattern));
            }
        }
        found.extend(schema.additional().filter(|_| others));
        found
    }

    /// Properties that the reader describes by patterns.
    fn patterns<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        for pattern in reader.map("patternProperties").into_iter().flat_map(Map::keys) {
            let Some(schema) = reader.entry("patternProperties", pattern) else { continue };
            let theirs: Vec<Sub<'a>> =
                written.parts.iter().filter_map(|part| part.entry("patternProperties", pattern)).collect();
            if !theirs.is_empty() {
                let all = theirs.iter().fold(Written::anything(), |all, one| all.and(one));
                self.accepts(&schema, &all);
            } else if self.strict || is_open(written) || written.parts.iter().any(describes_others) {
                // Names with this pattern may have another one of the writer's as well, or none.
                self.unnamed(&schema, written, |_| true);
            }
        }
    }

    /// Properties that the reader does not describe.
    fn others<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let Some(schema) = reader.additional() else { return };
        let known = reader.map("patternProperties");
        self.unnamed(&schema, written, |pattern| known.is_none_or(|known| !known.contains_key(pattern)));
    }

    /// Properties that the writer does not name: those with one of its patterns (as far as they matter), and others.
    fn unnamed<'a>(&mut self, schema: &Sub<'a>, written: &Written<'a>, matters: impl Fn(&str) -> bool) {
        for part in &written.parts {
            let patterns = part.map("patternProperties").into_iter().flat_map(Map::keys);
            for pattern in patterns.filter(|pattern| matters(pattern)) {
                if let Some(theirs) = part.entry("patternProperties", pattern) {
                    self.accepts(schema, &Written::of(&theirs));
                }
            }
        }
        let others: Vec<Sub<'a>> = written.parts.iter().filter_map(Sub::additional).collect();
        let all = others.iter().fold(Written::anything(), |all, one| all.and(one));
        self.accepts(schema, &all);
    }

    fn names<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        let Some(schema) = reader.child("propertyNames") else { return };
        let Some(names) = closed(written) else {
            let theirs: Vec<Sub<'a>> = written.parts.iter().filter_map(|part| part.child("propertyNames")).collect();
            let all = theirs.iter().fold(Written::anything(), |all, one| all.and(one));
            return self.accepts(&schema, &all.within(Types::STRING));
        };
        for name in names {
            let refused = schema.compiled().is_none_or(|compiled| !compiled.accepts(&Value::from(name.as_str())));
            let written = self.property(written, name).unwrap_or_else(Written::anything);
            if refused && !self.is_empty(&written) {
                self.differs(reader.place("propertyNames"), format!("'{name}'"), "refused".to_owned());
            }
        }
    }

    fn dependencies<'a>(&mut self, reader: &Sub<'a>, written: &Written<'a>) {
        for (name, needed) in reader.map("dependentRequired").into_iter().flatten() {
            let kept = |needed: &str| {
                written.requires(needed)
                    || written
                        .parts
                        .iter()
                        .filter_map(|part| part.map("dependentRequired")?.get(name))
                        .any(|theirs| strings(Some(theirs)).any(|theirs| theirs == needed))
            };
            if let Some(missing) = strings(Some(needed)).find(|needed| !kept(needed))
                && !self.never_has(written, name)
            {
                let place = format!("{}/{name}", reader.place("dependentRequired"));
                self.differs(place, format!("'{missing}' optional"), format!("'{missing}' required with '{name}'"));
            }
        }
        for name in reader.map("dependentSchemas").into_iter().flat_map(Map::keys) {
            if is_kept("dependentSchemas", reader, written) || self.never_has(written, name) {
                continue;
            }
            let theirs = written.parts.iter().filter_map(|part| part.entry("dependentSchemas", name));
            let theirs: Vec<Sub<'a>> = theirs.collect();
            let all = theirs.iter().fold(written.clone(), |all, one| all.and(one));
            if let Some(schema) = reader.entry("dependentSchemas", name) {
                self.accepts(&schema, &all);
            }
        }
    }

    fn never_has(&mut self, written: &Written<'_>, name: &str) -> bool {
        self.property(written, name).is_some_and(|property| self.is_empty(&property))
    }
}

/// The writer says that properties may be anything, or what they are by a word that depends on more than one schema.
fn is_open(written: &Written<'_>) -> bool {
    written.is_anything() || written.all("unevaluatedProperties").next().is_some()
}

fn describes_others(part: &Sub<'_>) -> bool {
    part.map("patternProperties").is_some() || part.additional().is_some()
}

/// All names there can be, where others are refused.
fn closed<'a>(written: &Written<'a>) -> Option<Vec<&'a String>> {
    let closes = |part: &&Sub<'a>| {
        part.additional().is_some_and(|others| others.is_nothing()) && part.map("patternProperties").is_none()
    };
    let part = written.parts.iter().find(closes)?;
    Some(part.map("properties").into_iter().flat_map(Map::keys).collect())
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
