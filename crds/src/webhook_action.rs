//! WebhookAction: events that are delivered to an HTTP endpoint.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{
    Conditions, DataPlaneStatus, DeletionPolicy, DurationText, ManagementPolicy, Policies, Reconciliation,
    SecretKeyRef, Source, conditions_schema,
};

/// Events that are delivered to an HTTP endpoint.
#[allow(clippy::duplicated_attributes, reason = "columns share their type")]
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cornjacket.io",
    version = "v1alpha1",
    kind = "WebhookAction",
    plural = "webhookactions",
    namespaced,
    cel,
    status = "WebhookActionStatus",
    derive = "PartialEq",
    shortname = "wha",
    category = "cornjacket",
    doc = "Events that are delivered to an HTTP endpoint.",
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(
        name = "HEALTHY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"EndpointHealthy\")].status"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct WebhookActionSpec {
    /// Which events are delivered.
    pub source: Source,
    /// Expression (CEL) over `event`; only events for which it is true are delivered. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub when: Option<String>,
    /// Where to. Private, loopback, link-local and metadata addresses are refused unless the installation allows them.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s@]+$"))]
    pub url: String,
    /// Headers of each request, beside those of the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(h, self.exists_one(g, g.name.lowerAscii() == h.name.lowerAscii()))")
            .message("each header can be given once")
    )]
    pub headers: Option<Vec<Header>>,
    /// Expression (CEL) over `event` that gives the body. Default: the event as it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub body: Option<String>,
    /// Signs each request (Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature). Default: not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<Signing>,
    /// How long one attempt may take. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// What happens after a failed attempt. Retry-After of the answer is honoured, up to an hour; 410 disables the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How many attempts may start, retries included; what is above it waits. Default: 10 in 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Which deliveries are left out as duplicates. They are listed as `suppressed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deduplication: Option<Deduplication>,
    /// When the endpoint is left alone for a while. An answer of 429, or of 503 with Retry-After, is no failure here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// `PerAggregate` delivers the events of an aggregate one after the other, in order, each when the one before was delivered or given up; `None` does not wait. Default: None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<Ordering>,
    /// `Paused` leaves the resource alone until it is `Active` again. Default: Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciliation: Option<Reconciliation>,
    /// `Observe` reports differences and writes nothing. Default: Manage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_policy: Option<ManagementPolicy>,
    /// `Delete` deletes the records of deliveries with the resource; `Retain` keeps them as long as those of others. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// One header of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.value) != has(self.secretRef)").message("give exactly one of value and secretRef"),
    validation = Rule::new("!self.name.lowerAscii().startsWith('webhook-')")
        .message("headers that start with webhook- belong to the signature")
)]
pub struct Header {
    /// Name of the header.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_|~-]+$"))]
    pub name: String,
    /// Its value, where it is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// The Secret that holds its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// How requests are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signing {
    /// One secret, or two while they are exchanged: the request is then signed with both.
    #[schemars(length(min = 1, max = 2))]
    pub secret_refs: Vec<SecretKeyRef>,
}

/// What happens after a failed attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Attempts in all, the first included. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub max_attempts: Option<i32>,
    /// Waits before the second attempt, the third, and so on; the last is repeated. Default: 1s, 2s, 4s, 8s, 16s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20))]
    pub backoff: Option<Vec<DurationText>>,
    /// `Equal` waits half the time plus a random part of the other half, `Full` a random part of it all, `None` exactly the time. Default: Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
}

/// How much of a wait is random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Jitter {
    #[default]
    Equal,
    Full,
    None,
}

/// How many attempts may start, and how long the others wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Attempts that may start in each `per`, retries included. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub deliveries: Option<i32>,
    /// The time that `deliveries` counts for; it begins with the first of them. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<DurationText>,
    /// Deliveries that may wait, also for a retry, behind an open breaker or for a disabled endpoint; the oldest above it expire. Default: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_waiting: Option<i32>,
    /// How long a delivery may wait in all, from when it was made, before it expires. Default: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<DurationText>,
}

/// Which deliveries are left out as duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deduplication {
    /// Events of one key that were accepted less than this from the first of them are duplicates. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<DurationText>,
    /// Expression (CEL) over `event` that gives the key; with `event.event_id` there are no duplicates. Default: the event type and the aggregate id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub key: Option<String>,
}

/// When the endpoint is left alone for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Failures in a row that open the breaker. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub failures: Option<i32>,
    /// How long it stays open before one delivery is tried; the others are parked meanwhile, not failed. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<DurationText>,
}

/// Whether deliveries wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ordering {
    #[default]
    None,
    PerAggregate,
}

/// What is known about the action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookActionStatus {
    /// metadata.generation that the status was computed from; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, SecretResolved, Propagated, EndpointHealthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Conditions,
    /// The last value of the annotation cornjacket.io/reconcile-requested-at that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// How far the data plane has taken over the newest generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlaneStatus>,
}

impl WebhookActionSpec {
    pub fn policies(&self) -> Policies {
        Policies::of(self.reconciliation, self.management_policy, self.deletion_policy)
    }
}
