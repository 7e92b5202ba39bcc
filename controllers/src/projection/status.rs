//! What a Projection's status says about its rows. Pure.

use crds::condition::{ConditionType, Finding, Status};
use crds::projection::ProjectionStatus;
use crds::reason::Reason;
use crds::registration::Compiled;
use crds::shared::{Conditions, DataPlaneStatus};
use serde_json::Value;

use crate::status::Progress;

/// Whether the rows have caught up with the events.
pub fn findings(progress: Option<&Progress>) -> Vec<Finding> {
    let caught_up =
        |status: Status, reason, message: &str| vec![Finding::new(ConditionType::CaughtUp, status, reason, message)];
    let Some(progress) = progress else { return Vec::new() };
    match progress.status.as_str() {
        "live" => caught_up(Status::True, Reason::CaughtUp, "fed by the bus"),
        "halted" => {
            let why = progress.message.as_deref().unwrap_or("an event could not be folded");
            caught_up(Status::False, Reason::Halted, &format!("halted: {why}; mend the definition to go on"))
        }
        _ => {
            caught_up(Status::False, Reason::CatchingUp, "reading stored events; until then readers see what was there")
        }
    }
}

/// The status document.
pub fn document(
    spec: Option<&Compiled>,
    generation: i64,
    conditions: Conditions,
    data_plane: Option<DataPlaneStatus>,
) -> serde_json::Result<Value> {
    let projection_type = match spec {
        Some(Compiled::Projection(spec)) => Some(spec.projection_type.clone()),
        _ => None,
    };
    serde_json::to_value(ProjectionStatus {
        observed_generation: Some(generation),
        conditions,
        data_plane,
        projection_type,
        ..ProjectionStatus::default()
    })
}
