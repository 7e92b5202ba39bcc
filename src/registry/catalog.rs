//! What this process runs: an immutable snapshot of the registrations, compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::language::schema::PayloadSchema;
use crds::registration::{EventType, Projection, ResourceKey, TimeSeries, Topic, WebhookAction};
use crds::routing;

use crate::actions;
use crate::projection::Program;
use crate::time_series;

/// A snapshot of everything registered. Readers take the newest from a `watch` channel and keep it for one unit of
/// work, so that a change never shows in the middle of it.
#[derive(Default)]
pub struct Catalog {
    /// False before the first load: nothing is known then of what is declared.
    pub loaded: bool,
    /// By `event_type`.
    pub event_types: BTreeMap<String, Arc<LoadedEventType>>,
    /// In order of their resource names.
    pub topics: Vec<Topic>,
    /// By projection type.
    pub projections: BTreeMap<String, Arc<LoadedProjection>>,
    /// By the name of their resource.
    pub actions: BTreeMap<String, Arc<LoadedAction>>,
    /// Projections that are time series, by projection type: none of them is among those above.
    pub series: BTreeMap<String, Arc<LoadedSeries>>,
}

impl Catalog {
    /// The bus topic of an event type: the registered type's, else the longest prefix's, else the default topic.
    pub fn topic_for(&self, event_type: &str) -> Option<&str> {
        if let Some(loaded) = self.event_types.get(event_type) {
            return Some(&loaded.spec.topic);
        }
        routing::route(&self.topics, event_type).map(|topic| topic.topic_name.as_str())
    }
}

/// An event type, ready to validate with.
pub struct LoadedEventType {
    pub key: ResourceKey,
    pub generation: i64,
    pub hash: String,
    pub spec: EventType,
    /// By version.
    pub schemas: BTreeMap<i32, PayloadSchema>,
}

/// The schema that an event is to be checked against.
pub struct EffectiveSchema<'a> {
    pub version: i32,
    pub schema: &'a PayloadSchema,
    pub deprecated: bool,
}

/// An event names a schema version that its type does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema version {requested} of '{event_type}' does not exist: it has {known}")]
pub struct UnknownVersion {
    pub event_type: String,
    pub requested: i32,
    /// The versions that exist, for people: `1, 2` or `none`.
    pub known: String,
}

impl LoadedEventType {
    /// The schema of the version asked for, else of the highest one that is not deprecated (of the highest, where all
    /// are). `None` where the type has no schema.
    ///
    /// # Errors
    /// The version asked for does not exist.
    pub fn schema_for(&self, requested: Option<i32>) -> Result<Option<EffectiveSchema<'_>>, UnknownVersion> {
        let version = match requested {
            Some(version) => Some(version),
            None => effective_version(&self.spec),
        };
        let Some(version) = version else { return Ok(None) };
        match self.schemas.get(&version) {
            Some(schema) => {
                let deprecated = self.spec.versions.iter().any(|v| v.version == version && v.deprecated);
                Ok(Some(EffectiveSchema { version, schema, deprecated }))
            }
            None => Err(UnknownVersion {
                event_type: self.spec.event_type.clone(),
                requested: version,
                known: known_versions(&self.schemas),
            }),
        }
    }
}

fn effective_version(spec: &EventType) -> Option<i32> {
    let current = spec.versions.iter().filter(|v| !v.deprecated).map(|v| v.version).max();
    current.or_else(|| spec.versions.iter().map(|v| v.version).max())
}

fn known_versions(schemas: &BTreeMap<i32, PayloadSchema>) -> String {
    if schemas.is_empty() {
        return "none".to_owned();
    }
    schemas.keys().map(i32::to_string).collect::<Vec<_>>().join(", ")
}

/// A projection, ready to fold with.
pub struct LoadedProjection {
    pub key: ResourceKey,
    pub generation: i64,
    /// Hash of the whole registration (what is acknowledged); [`Projection::definition_hash`] decides about a rebuild.
    pub hash: String,
    pub spec: Projection,
    pub program: Arc<Program>,
}

/// A webhook action, compiled; the values of its Secrets are still to be opened.
pub struct LoadedAction {
    pub key: ResourceKey,
    pub generation: i64,
    pub hash: String,
    pub spec: WebhookAction,
    pub program: Arc<actions::Program>,
}

/// A time series, ready to make rows with.
pub struct LoadedSeries {
    pub key: ResourceKey,
    pub generation: i64,
    /// Hash of the whole registration.
    pub hash: String,
    pub spec: Projection,
    /// The table, as in the spec.
    pub series: TimeSeries,
    pub program: time_series::Program,
}
