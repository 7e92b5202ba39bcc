//! What all four kinds have in common: policies, status, and references.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::duration::{DurationError, DurationText};

/// API group of every kind.
pub const GROUP: &str = "cornjacket.io";
/// The only version so far.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` as manifests write it.
pub const API_VERSION: &str = "cornjacket.io/v1alpha1";
/// Changing the value of this annotation reconciles the resource now.
pub const RECONCILE_REQUESTED_AT: &str = "cornjacket.io/reconcile-requested-at";
/// Holds the hash of the migration plan that someone has approved.
pub const APPROVE: &str = "cornjacket.io/approve";

/// Whether the resource is worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reconciliation {
    #[default]
    Active,
    Paused,
}

/// Whether the outside world is changed or only compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ManagementPolicy {
    #[default]
    Manage,
    Observe,
}

/// What deleting the resource means for what it describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

/// The three policies of a resource, defaults applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    pub reconciliation: Reconciliation,
    pub management: ManagementPolicy,
    pub deletion: DeletionPolicy,
}

impl Policies {
    pub(crate) fn of(
        reconciliation: Option<Reconciliation>,
        management: Option<ManagementPolicy>,
        deletion: Option<DeletionPolicy>,
    ) -> Self {
        Self {
            reconciliation: reconciliation.unwrap_or_default(),
            management: management.unwrap_or_default(),
            deletion: deletion.unwrap_or_default(),
        }
    }
}

/// A key of a Secret in the namespace of the resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
    /// Key within the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub key: String,
}

impl SecretKeyRef {
    /// Whether the schema of this release holds, which an object may be older than: a name becomes part of a URL.
    pub fn is_valid(&self) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let (name, key) = (self.name.as_bytes(), self.key.as_bytes());
        (1..=253).contains(&name.len())
            && name.iter().all(|&b| plain(b) || b == b'.' || b == b'-')
            && name.first().zip(name.last()).is_some_and(|(&first, &last)| plain(first) && plain(last))
            && (1..=253).contains(&key.len())
            && key.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
    }
}

/// Which events are read: exactly one of the two lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.eventTypes) != has(self.prefixes)").message("give exactly one of eventTypes and prefixes"))]
pub struct Source {
    /// Event types, for example `sensor.reading`. They need not be registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 255)))]
    pub event_types: Option<Vec<String>>,
    /// Starts of event types, for example `sensor.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 255)))]
    pub prefixes: Option<Vec<String>>,
}

/// How far the data plane has taken over the newest generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataPlaneStatus {
    /// Hash of the compiled form that the instances should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_hash: Option<String>,
    /// Live instances that run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_replicas: Option<i32>,
    /// Live instances that have to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_replicas: Option<i32>,
}

/// Schema of a list of metav1.Condition, bounded as Kubernetes' own types are.
pub(crate) fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the state, as metav1.Condition.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "Name of the condition."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0,
                    "description": "metadata.generation that the condition was computed from."},
                "lastTransitionTime": {"type": "string", "format": "date-time",
                    "description": "When the status last changed."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one word of a closed list."},
                "message": {"type": "string", "maxLength": 32768,
                    "description": "The cause, and what to do about it."}
            }
        }
    })
}

/// Schema of a list of at most 32 JSON values, kept as they are.
pub(crate) fn any_json_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 32, "items": {"x-kubernetes-preserve-unknown-fields": true}})
}

/// Schema of a JSON object whose fields are kept as they are.
pub(crate) fn any_json_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A JSON value in a resource.
pub type Json = Value;

/// Conditions of a resource.
pub type Conditions = Vec<Condition>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_to_a_secret_is_a_name_and_a_key_and_no_way_elsewhere() {
        let is_valid = |name: &str, key: &str| SecretKeyRef { name: name.into(), key: key.into() }.is_valid();
        for (name, key) in [("a", "b"), ("hooks.example", "tls.crt"), ("a-1", "A_b-c.D")] {
            assert!(is_valid(name, key), "{name} {key}");
        }
        let long = "a".repeat(254);
        for name in ["", "../configmaps/a", "a/b", "a?b", "a%2fb", "A", "-a", "a.", "a\n", &long] {
            assert!(!is_valid(name, "b"), "{name}");
        }
        for key in ["", "a/b", "a b", "ä", &long] {
            assert!(!is_valid("a", key), "{key}");
        }
    }
}
