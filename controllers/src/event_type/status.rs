//! An EventType's status document. Pure.

use crds::event_type::EventTypeStatus;
use crds::registration::Compiled;
use crds::shared::{Conditions, DataPlaneStatus};
use serde_json::Value;

/// The document, with the topic and the version of what is served.
pub fn document(
    spec: Option<&Compiled>,
    generation: i64,
    conditions: Conditions,
    data_plane: Option<DataPlaneStatus>,
) -> serde_json::Result<Value> {
    let mut status =
        EventTypeStatus { observed_generation: Some(generation), conditions, data_plane, ..EventTypeStatus::default() };
    if let Some(Compiled::EventType(spec)) = spec {
        status.topic = Some(spec.topic.clone());
        status.version = spec.versions.iter().filter(|v| !v.deprecated).map(|v| v.version).max();
    }
    serde_json::to_value(status)
}
