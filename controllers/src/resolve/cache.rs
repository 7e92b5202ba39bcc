//! What was compiled in the look before: a resource is compiled again when something that its form depends on has changed.

use std::collections::HashMap;
use std::mem;

use crds::condition::Finding;
use crds::registration::{Compiled, ResourceKey};
use crds::{EventType, Projection, Topic, WebhookAction};

use super::{Failure, Form};
use crate::event_type::resolve::Destination;
use crate::resource::Resource;

/// Owned by who looks again and again. It holds what the last look compiled, and nothing of resources that are gone.
#[derive(Default)]
pub struct Cache {
    entries: HashMap<ResourceKey, Entry>,
    /// Entries of the look before which this look has not come to yet.
    last: HashMap<ResourceKey, Entry>,
    compilations: u64,
}

/// What a form takes from other resources.
#[derive(Debug, PartialEq)]
pub(super) enum Others {
    Nothing,
    /// Where the events of an EventType go.
    Destination(Result<Destination, Failure>),
    /// Whether the events of a Projection come by several topics.
    SeveralTopics(bool),
}

/// A form, or why there is none; and what was found on the way.
pub(super) type Compilation = (Result<Form, Failure>, Vec<Finding>);

/// A compilation, and everything that it depends on.
struct Entry {
    /// Its spec; name and kind are in the key.
    resource: Resource,
    /// Hash of what was registered before.
    before: Option<String>,
    others: Others,
    compilation: Compilation,
}

impl Cache {
    /// How many compilations there were, ever.
    pub fn compilations(&self) -> u64 {
        self.compilations
    }

    pub(super) fn begin_look(&mut self) {
        self.last = mem::take(&mut self.entries);
    }

    /// What is not declared any more is forgotten.
    pub(super) fn end_look(&mut self) {
        self.last = HashMap::new();
    }

    /// The form for these inputs. `resource` is compared before it is copied.
    pub(super) fn get(
        &mut self,
        key: &ResourceKey,
        resource: &Resource,
        before: Option<&str>,
        others: Others,
        compile: impl FnOnce(&mut Vec<Finding>) -> Result<Compiled, Failure>,
    ) -> Compilation {
        let is_current = |entry: &Entry| {
            entry.before.as_deref() == before && entry.others == others && same_spec(&entry.resource, resource)
        };
        let entry = match self.last.remove(key) {
            Some(entry) if is_current(&entry) => entry,
            _ => {
                self.compilations += 1;
                let mut findings = Vec::new();
                let compilation = (compile(&mut findings).map(Form::from), findings);
                let (resource, before) = (spec_of(key, resource), before.map(str::to_owned));
                Entry { resource, before, others, compilation }
            }
        };
        let compilation = entry.compilation.clone();
        self.entries.insert(key.clone(), entry);
        compilation
    }
}

fn same_spec(one: &Resource, other: &Resource) -> bool {
    match (one, other) {
        (Resource::Topic(one), Resource::Topic(other)) => one.spec == other.spec,
        (Resource::EventType(one), Resource::EventType(other)) => one.spec == other.spec,
        (Resource::Projection(one), Resource::Projection(other)) => one.spec == other.spec,
        (Resource::WebhookAction(one), Resource::WebhookAction(other)) => one.spec == other.spec,
        _ => false,
    }
}

/// Without status and metadata, of which a form takes nothing but the name.
fn spec_of(key: &ResourceKey, resource: &Resource) -> Resource {
    let name = &key.name;
    match resource {
        Resource::Topic(topic) => Resource::Topic(Box::new(Topic::new(name, topic.spec.clone()))),
        Resource::EventType(kind) => Resource::EventType(Box::new(EventType::new(name, kind.spec.clone()))),
        Resource::Projection(kind) => Resource::Projection(Box::new(Projection::new(name, kind.spec.clone()))),
        Resource::WebhookAction(kind) => Resource::WebhookAction(Box::new(WebhookAction::new(name, kind.spec.clone()))),
    }
}
