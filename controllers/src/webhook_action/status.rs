//! A WebhookAction's status document. Pure.

use crds::shared::Conditions;
use crds::webhook_action::WebhookActionStatus;
use serde_json::Value;

/// The document: its conditions say that the action does not run.
pub fn document(generation: i64, conditions: Conditions) -> serde_json::Result<Value> {
    serde_json::to_value(WebhookActionStatus {
        observed_generation: Some(generation),
        conditions,
        ..WebhookActionStatus::default()
    })
}
