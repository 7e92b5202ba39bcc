//! Sources of projections that nothing among the manifests goes into. They run, and may be meant for event types that
//! are declared elsewhere or not at all; most often they are misspelt.

use std::collections::BTreeMap;

use crds::manifest::{Manifest, Resource};
use crds::reason::Reason;
use crds::registration::ResourceKey;

use super::finding::{Finding, Severity};

/// A warning for each event type and prefix of a projection's source that no EventType and no prefix of a Topic of its
/// namespace has to do with.
pub(super) fn unknown(key: &ResourceKey, manifest: &Manifest, all: &BTreeMap<ResourceKey, Manifest>) -> Vec<Finding> {
    let Resource::Projection(projection) = &manifest.resource else { return Vec::new() };
    let near: Vec<&Manifest> = all.iter().filter(|(k, _)| k.namespace == key.namespace).map(|(_, m)| m).collect();
    let source = &projection.spec.source;
    let known = |name: &str| near.iter().any(|m| sends(&m.resource, |sent| sent == name, |p| name.starts_with(p)));
    let under = |prefix: &str| {
        near.iter().any(|m| {
            let meets = |p: &str| p.starts_with(prefix) || prefix.starts_with(p);
            sends(&m.resource, |sent| sent.starts_with(prefix), meets)
        })
    };
    let types = source.event_types.iter().flatten().enumerate().filter(|(_, name)| !known(name));
    let types = types.map(|(at, name)| format!("spec.source.eventTypes[{at}]: no EventType '{name}' is among the manifests, and no Topic has a prefix of it: is it misspelt?"));
    let prefixes = source.prefixes.iter().flatten().enumerate().filter(|(_, prefix)| !under(prefix));
    let prefixes = prefixes.map(|(at, prefix)| format!("spec.source.prefixes[{at}]: no EventType among the manifests begins with '{prefix}', and no Topic has such a prefix: is it misspelt?"));
    let warning = |message: String| Finding {
        reason: "UnknownSource",
        ..Finding::new(manifest, Severity::Warning, Reason::InvalidSpec, &message)
    };
    types.chain(prefixes).map(warning).collect()
}

/// Whether a resource stands for events: an EventType whose type, or a Topic one of whose prefixes, is asked for.
fn sends(resource: &Resource, event_type: impl Fn(&str) -> bool, prefix: impl Fn(&str) -> bool) -> bool {
    match resource {
        Resource::EventType(resource) => event_type(resource.event_type()),
        Resource::Topic(resource) => resource.spec.prefixes.iter().flatten().any(|p| prefix(p)),
        _ => false,
    }
}
