//! EventType: what events of a type look like and where they go.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::registration::Validation;
use crate::shared::{
    Conditions, DataPlaneStatus, DeletionPolicy, Json, ManagementPolicy, Policies, Reconciliation, any_json_list,
    any_json_object, conditions_schema,
};

/// A type of events: what their payload looks like and which topic they go to.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cornjacket.io",
    version = "v1alpha1",
    kind = "EventType",
    plural = "eventtypes",
    namespaced,
    cel,
    status = "EventTypeStatus",
    derive = "PartialEq",
    shortname = "et",
    category = "cornjacket",
    doc = "A type of events: what their payload looks like and which topic they go to.",
    selectable = ".spec.type",
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "TOPIC", type_ = "string", json_path = ".status.topic"),
    printcolumn(name = "VERSION", type_ = "integer", json_path = ".status.version"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    validation = Rule::new(
        "(has(self.spec.type) ? self.spec.type : self.metadata.name) == (has(oldSelf.spec.type) ? oldSelf.spec.type : oldSelf.metadata.name)"
    )
    .message("type cannot change: make a new EventType, and delete this one when nothing sends it any more")
    .field_path(".spec.type")
)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeSpec {
    /// The `event_type` of the events, for example `sensor.reading`. Cannot change. Default: metadata.name.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?$"))]
    pub event_type: Option<String>,
    /// What the events say, for the people who read the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub description: Option<String>,
    /// Who answers for the type: a team or an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub owner: Option<String>,
    /// The Topic that the events go to. Default: the Topic with the longest matching prefix, else the default Topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_ref: Option<TopicRef>,
    /// Versions of the payload's schema. An event is checked against the highest that is not deprecated, unless it names one. None: any payload is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["version".into()]),
        validation = Rule::new("self.all(v, self.exists_one(w, w.version == v.version))").message("each version can be given once"),
        validation = Rule::new("self.size() == 0 || self.exists(v, !has(v.deprecated) || !v.deprecated)")
            .message("at least one version must not be deprecated")
    )]
    pub versions: Option<Vec<EventTypeVersion>>,
    /// What a version must be to its predecessor: `Backward` accepts every payload that the older one accepts, `Forward` the other way round, `Full` both, `None` is not compared. Default: Backward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility: Option<Compatibility>,
    /// What a payload that breaks the schema means: `Enforce` refuses it, `Warn` accepts it and says so, `Off` does not look. Default: Enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// Payloads that show the type. Each must be valid; they are checked before a version is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_json_list")]
    pub examples: Option<Vec<Json>>,
    /// Where events of this type come in by MQTT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topicFilter".into()]))]
    pub mqtt: Option<Vec<MqttSource>>,
    /// `Paused` leaves the resource alone until it is `Active` again. Default: Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciliation: Option<Reconciliation>,
    /// `Observe` reports differences and writes nothing. Default: Manage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_policy: Option<ManagementPolicy>,
    /// Deleting the resource takes the type out of service; the events already stored stay until their retention ends under either policy. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// Names a Topic of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicRef {
    /// metadata.name of the Topic.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One version of the payload's schema.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeVersion {
    /// Number of the version, 1 or more.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub version: i32,
    /// JSON Schema 2020-12 of the payload. `$ref` only within the schema (`#/$defs/…`); at most 64 KiB.
    #[schemars(schema_with = "any_json_object")]
    pub schema: Json,
    /// Keeps the version for events that name it, but no longer for others. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<bool>,
}

/// What a version must be to its predecessor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Compatibility {
    None,
    #[default]
    Backward,
    Forward,
    Full,
}

/// Where events come in by MQTT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MqttSource {
    /// MQTT topic filter, for example `devices/+/reading`.
    #[schemars(length(min = 1, max = 512))]
    pub topic_filter: String,
    /// The aggregate id: text in which `{1}` stands for what the first wildcard matched, `{2}` for the second, and so on.
    #[schemars(length(min = 1, max = 255))]
    pub aggregate_id: String,
}

/// What is known about the type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeStatus {
    /// metadata.generation that the status was computed from; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, SchemaCompiled, Compatible, TopicResolved, Propagated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Conditions,
    /// The last value of the annotation cornjacket.io/reconcile-requested-at that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// How far the data plane has taken over the newest generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlaneStatus>,
    /// The bus topic that the events go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The version that events are checked against unless they name another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
}

impl EventTypeSpec {
    pub fn policies(&self) -> Policies {
        Policies::of(self.reconciliation, self.management_policy, self.deletion_policy)
    }

    pub fn versions(&self) -> &[EventTypeVersion] {
        self.versions.as_deref().unwrap_or_default()
    }

    pub fn examples(&self) -> &[Json] {
        self.examples.as_deref().unwrap_or_default()
    }

    /// The version that an event is checked against when it names none: the highest that is not deprecated.
    pub fn effective_version(&self) -> Option<&EventTypeVersion> {
        self.versions().iter().filter(|v| v.deprecated != Some(true)).max_by_key(|v| v.version)
    }
}

impl EventType {
    /// The `event_type` of the events: `type`, else the resource's own name.
    pub fn event_type(&self) -> &str {
        self.spec.event_type.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}
