//! Registrations for unit tests.

use std::collections::BTreeMap;

use crds::registration::{EventType, Kind, ResourceKey, Validation};

use super::LoadedEventType;

/// An event type that takes any payload.
pub fn event_type(name: &str) -> LoadedEventType {
    let key = ResourceKey { namespace: "default".to_owned(), kind: Kind::EventType, name: name.to_owned() };
    let spec = EventType {
        event_type: name.to_owned(),
        description: None,
        owner: None,
        topic: "events".to_owned(),
        validation: Validation::Enforce,
        versions: Vec::new(),
        examples: Vec::new(),
        mqtt: Vec::new(),
    };
    LoadedEventType { key, generation: 1, hash: String::new(), spec, schemas: BTreeMap::new() }
}
