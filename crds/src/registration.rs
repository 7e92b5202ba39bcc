//! The compiled form of a resource: what controllers register and the data plane runs.
//!
//! Everything in it is decided: schemas are resolved, the topic is chosen, expressions were checked. A data-plane
//! role loads it without knowing Kubernetes, and a broken resource never becomes one.

mod time_series;
mod webhook_action;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use time_series::{Column, ColumnType, TimeSeries, sql_name};
pub use webhook_action::{
    CircuitBreaker, Deduplication, Header, HeaderValue, RateLimit, Retry, SecretVersion, WebhookAction,
};

/// The four kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    EventType,
    Topic,
    Projection,
    WebhookAction,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Topic, Self::EventType, Self::Projection, Self::WebhookAction];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventType => "EventType",
            Self::Topic => "Topic",
            Self::Projection => "Projection",
            Self::WebhookAction => "WebhookAction",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no kind.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a kind: use eventtype (et), topic (tp), projection (proj) or webhookaction (wha)")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    /// Accepts the kind, its plural and its short name, in any case, with hyphens or without, and with the group behind it
    /// (`eventtypes`, `event-type`, `et`, `eventtypes.cornjacket.io`).
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let plain = word.to_ascii_lowercase().replace(['-', '_'], "");
        Ok(match plain.strip_suffix(".cornjacket.io").unwrap_or(&plain) {
            "eventtype" | "eventtypes" | "et" => Self::EventType,
            "topic" | "topics" | "tp" => Self::Topic,
            "projection" | "projections" | "proj" => Self::Projection,
            "webhookaction" | "webhookactions" | "wha" => Self::WebhookAction,
            _ => return Err(UnknownKind(word.to_owned())),
        })
    }
}

/// Names one resource within a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    pub namespace: String,
    pub kind: Kind,
    pub name: String,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// One row of the table `registration`, active.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    pub key: ResourceKey,
    /// metadata.generation of the resource it was compiled from.
    pub generation: i64,
    pub spec: Compiled,
}

/// What the data plane runs for a resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Compiled {
    EventType(EventType),
    Topic(Topic),
    Projection(Projection),
    WebhookAction(Box<WebhookAction>),
}

impl Compiled {
    /// SHA-256 (hex) of the compiled form. Object keys are sorted by serde_json, so equal forms have equal hashes.
    pub fn hash(&self) -> String {
        let text = serde_json::to_value(self).map(|v| v.to_string()).unwrap_or_default();
        sha256(&text)
    }
}

/// SHA-256 of a text, as 64 hexadecimal digits.
pub fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A registered event type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventType {
    /// The `event_type` of events, for example `sensor.reading`.
    #[serde(rename = "type")]
    pub event_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The bus topic that its events go to: decided from topicRef, else the prefixes, else the default topic.
    pub topic: String,
    pub validation: Validation,
    /// Ascending by version. Empty: any payload is accepted.
    pub versions: Vec<SchemaVersion>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mqtt: Vec<MqttSource>,
}

/// What a payload that breaks its schema means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Validation {
    /// It is refused.
    #[default]
    Enforce,
    /// It is accepted; the answer, the log and a metric say so.
    Warn,
    /// It is not looked at.
    Off,
}

/// One version of a payload schema (JSON Schema 2020-12).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaVersion {
    pub version: i32,
    pub schema: Value,
    #[serde(default)]
    pub deprecated: bool,
}

/// Where events of a type come in by MQTT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MqttSource {
    pub topic_filter: String,
    pub aggregate_id: String,
}

/// A registered topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Topic {
    pub topic_name: String,
    /// Event-type prefixes routed here (`sensor.`); the longest over all topics wins.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// The catch-all.
    #[serde(default)]
    pub default: bool,
    pub partitions: i32,
    pub replication_factor: i32,
    /// Topic configuration as the broker takes it, for example `retention.ms`.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

/// A registered projection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Projection {
    #[serde(rename = "type")]
    pub projection_type: String,
    pub source: Source,
    /// CEL over `event`: only events for which it is true are folded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// CEL over `event`: the key of the row, a string. Absent: the aggregate id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub fold: Fold,
    pub start_from: StartFrom,
    pub on_error: OnError,
    pub rebuild: Rebuild,
    /// How long a row that nothing updates is kept, in seconds. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_seconds: Option<i64>,
    /// State fields with an index of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<String>,
    /// True where several partitions of a broker would feed one row (a `key` of its own, or sources in several topics):
    /// the event store, which has one order, is read on any bus.
    #[serde(default)]
    pub reads_event_store: bool,
}

impl Projection {
    /// The table, where it is a time series.
    pub fn time_series(&self) -> Option<&TimeSeries> {
        match &self.fold {
            Fold::TimeSeries(series) => Some(series),
            _ => None,
        }
    }

    /// Hash of what decides the rows: a change of anything else needs no rebuild.
    pub fn definition_hash(&self) -> String {
        let mut definition = self.clone();
        definition.start_from = StartFrom::Earliest;
        definition.on_error = OnError::DeadLetter;
        definition.rebuild = Rebuild::BlueGreen;
        definition.retention_seconds = None;
        definition.indexes.clear();
        definition.reads_event_store = false;
        Compiled::Projection(definition).hash()
    }
}

/// Which events a projection reads, or an action delivers: those of the types named, or those whose type starts with one of the prefixes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
}

impl Source {
    pub fn matches(&self, event_type: &str) -> bool {
        self.event_types.iter().any(|t| t == event_type) || self.prefixes.iter().any(|p| event_type.starts_with(p))
    }
}

/// How state comes from events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fold {
    /// The payload of the newest event.
    Latest,
    /// RFC 7396 merge of the payloads.
    Merge,
    /// One CEL expression a field, over `state` and `event`.
    Fields(BTreeMap<String, String>),
    /// No state is kept: each event is a row of a table.
    TimeSeries(TimeSeries),
}

/// Where a new projection starts reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StartFrom {
    /// At the oldest event that the event store still has.
    #[default]
    Earliest,
    /// At the events that come after its registration.
    Latest,
}

/// What an event that cannot be folded means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnError {
    /// It goes to the dead letters and the stream goes on.
    #[default]
    DeadLetter,
    /// The projection stops at it until the definition is mended.
    Halt,
}

/// What a changed definition means for the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Rebuild {
    /// They are built anew beside the live ones and swapped in when caught up.
    #[default]
    BlueGreen,
    /// They are deleted and built anew in place.
    InPlace,
    /// They stay; events from now on are folded by the new definition.
    Never,
}
