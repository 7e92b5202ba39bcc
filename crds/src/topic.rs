//! Topic: a topic on the bus, and which events go to it.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{
    Conditions, DataPlaneStatus, DeletionPolicy, DurationText, ManagementPolicy, Policies, Reconciliation,
    conditions_schema,
};

/// A topic on the bus, and the event types that are routed to it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cornjacket.io",
    version = "v1alpha1",
    kind = "Topic",
    plural = "topics",
    namespaced,
    cel,
    status = "TopicStatus",
    derive = "PartialEq",
    shortname = "tp",
    category = "cornjacket",
    doc = "A topic on the bus, and the event types that are routed to it.",
    selectable = ".spec.topicName",
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "TOPIC", type_ = "string", json_path = ".status.topicName"),
    printcolumn(name = "PARTITIONS", type_ = "integer", json_path = ".status.partitions"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    validation = Rule::new(
        "(has(self.spec.topicName) ? self.spec.topicName : self.metadata.name) == (has(oldSelf.spec.topicName) ? oldSelf.spec.topicName : oldSelf.metadata.name)"
    )
    .message("topicName cannot change: make a new Topic, move its consumers, then delete this one")
    .field_path(".spec.topicName")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.partitions) ? self.partitions : 1) >= (has(oldSelf.partitions) ? oldSelf.partitions : 1)")
        .message("partitions cannot decrease: the bus keeps what is written; make a new Topic instead"),
    validation = Rule::new("(has(self.partitions) ? self.partitions : 1) <= (has(oldSelf.partitions) ? oldSelf.partitions : 1) || (has(self.allowRepartition) && self.allowRepartition)")
        .message("more partitions break the order of each aggregate's events once: set allowRepartition: true to accept that"),
    validation = Rule::new("!has(self.retention) || !has(self.config) || !('retention.ms' in self.config)")
        .message("give retention or config['retention.ms'], not both"),
    validation = Rule::new("!has(self.topicName) || !(self.topicName in ['.', '..'])")
        .message("topicName cannot be '.' or '..'")
)]
pub struct TopicSpec {
    /// Name of the topic on the bus. Cannot change. Default: metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub topic_name: Option<String>,
    /// Number of partitions. Never decreases; an increase needs allowRepartition. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub partitions: Option<i32>,
    /// Accepts that an increase of partitions breaks the order of each aggregate's events once. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_repartition: Option<bool>,
    /// Number of brokers that keep a copy. Default: the broker's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replication_factor: Option<i32>,
    /// How long the bus keeps messages, for example `24h`. Default: the broker's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<DurationText>,
    /// Topic configuration as the broker names it, for example `max.message.bytes`. A null value means that the key is not ours to manage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "config_schema")]
    pub config: Option<BTreeMap<String, Option<String>>>,
    /// `Merge` manages the keys named here and leaves all others alone; `Exact` also puts every other key back to the broker's default. Default: Merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_policy: Option<ConfigPolicy>,
    /// Whether a topic that existed before this resource is taken over: `IfIdentical` when it is as described here, `Always`, or `Never`. One that is not is left as it is, and the message names the differences. Default: IfIdentical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption_policy: Option<AdoptionPolicy>,
    /// Starts of event types that are routed here, for example `sensor.`. The longest over all Topics of the namespace wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub prefixes: Option<Vec<String>>,
    /// Makes this the topic of every event type that no prefix and no topicRef routes; one in a namespace. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,
    /// `Paused` leaves the resource alone until it is `Active` again. Default: Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciliation: Option<Reconciliation>,
    /// `Observe` reports differences and writes nothing. Default: Manage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_policy: Option<ManagementPolicy>,
    /// `Delete` deletes the topic and its messages with the resource; `Retain` keeps them. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// What becomes of configuration keys that the resource does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConfigPolicy {
    #[default]
    Merge,
    Exact,
}

/// When a topic that already exists is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdoptionPolicy {
    #[default]
    IfIdentical,
    Always,
    Never,
}

/// What is known about the topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// metadata.generation that the status was computed from; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, BrokerReachable, TopicExists, ConfigApplied, Drifted, Conflict, Propagated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Conditions,
    /// The last value of the annotation cornjacket.io/reconcile-requested-at that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// How far the data plane has taken over the newest generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlaneStatus>,
    /// Name of the topic on the bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_name: Option<String>,
    /// The broker's identity of the topic: another one means that it was deleted and made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Partitions that the topic has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    /// Copies that the topic has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i32>,
    /// Differences between what is described and what the broker has; the first 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = DRIFT_LIMIT))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into()]))]
    pub drift: Vec<Drift>,
}

/// One difference between what is described and what the broker has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Configuration key, `partitions` or `replicationFactor`.
    pub key: String,
    /// What the resource describes; absent where it names no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// What the broker has; absent where it has no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
}

/// Most differences in a status.
pub const DRIFT_LIMIT: usize = 32;
/// Default of `partitions`.
pub const DEFAULT_PARTITIONS: i32 = 1;
/// Default of `replicationFactor` as brokers understand it: their own default.
pub const BROKER_DEFAULT_REPLICATION: i32 = -1;

impl TopicSpec {
    pub fn policies(&self) -> Policies {
        Policies::of(self.reconciliation, self.management_policy, self.deletion_policy)
    }

    pub fn partitions(&self) -> i32 {
        self.partitions.unwrap_or(DEFAULT_PARTITIONS)
    }

    pub fn replication_factor(&self) -> i32 {
        self.replication_factor.unwrap_or(BROKER_DEFAULT_REPLICATION)
    }

    pub fn prefixes(&self) -> &[String] {
        self.prefixes.as_deref().unwrap_or_default()
    }

    pub fn is_default(&self) -> bool {
        self.default.unwrap_or(false)
    }

    /// The configuration to manage: `config` without its nulls, and `retention` as `retention.ms`.
    pub fn managed_config(&self) -> BTreeMap<String, String> {
        let named = self.config.iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        let retention = self.retention.iter().map(|r| ("retention.ms".to_owned(), r.length().as_millis().to_string()));
        named.chain(retention).collect()
    }
}

impl Topic {
    /// Name on the bus: `topicName`, else the resource's own name.
    pub fn topic_name(&self) -> &str {
        self.spec.topic_name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}

fn config_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "nullable": true, "maxLength": 1024}
    })
}
