//! What goes into a resolution: the resources that are declared, wherever they come from.

use chrono::{DateTime, Utc};
pub use crds::manifest::Resource;
use crds::registration::ResourceKey;
use crds::shared::Policies;

/// A resource as declared, or why what is declared under its name cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    pub key: ResourceKey,
    /// Rises whenever the spec changes.
    pub generation: i64,
    /// When it was made, where the source knows: the oldest keeps a name that two claim.
    pub created: Option<DateTime<Utc>>,
    /// Where it was read, for people: file and line, or the cluster.
    pub origin: String,
    pub resource: Result<Resource, Unreadable>,
}

/// What is declared under a name is no resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub reason: crds::reason::Reason,
    /// The cause, and what to do about it.
    pub message: String,
}

/// The three policies, defaults applied.
pub fn policies(resource: &Resource) -> Policies {
    match resource {
        Resource::Topic(resource) => resource.spec.policies(),
        Resource::EventType(resource) => resource.spec.policies(),
        Resource::Projection(resource) => resource.spec.policies(),
        Resource::WebhookAction(resource) => resource.spec.policies(),
    }
}

/// The name that no two resources of a kind may share; an action has none.
pub fn claim(resource: &Resource) -> Option<&str> {
    match resource {
        Resource::Topic(resource) => Some(resource.topic_name()),
        Resource::EventType(resource) => Some(resource.event_type()),
        Resource::Projection(resource) => Some(resource.projection_type()),
        Resource::WebhookAction(_) => None,
    }
}
