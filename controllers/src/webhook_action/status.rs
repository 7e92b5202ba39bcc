//! A WebhookAction's status document. Pure.

use crds::shared::{Conditions, DataPlaneStatus};
use crds::webhook_action::WebhookActionStatus;
use serde_json::Value;

/// The document. Of the endpoint nothing is said: who delivers to it will know.
pub fn document(
    generation: i64,
    conditions: Conditions,
    data_plane: Option<DataPlaneStatus>,
) -> serde_json::Result<Value> {
    serde_json::to_value(WebhookActionStatus {
        observed_generation: Some(generation),
        conditions,
        data_plane,
        ..WebhookActionStatus::default()
    })
}
