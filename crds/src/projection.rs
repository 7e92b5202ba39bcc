//! Projection: state that is kept up to date from events.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::registration::{ColumnType, OnError, Rebuild, StartFrom};
use crate::shared::{
    Conditions, DataPlaneStatus, DeletionPolicy, DurationText, ManagementPolicy, Policies, Reconciliation, Source,
    conditions_schema,
};

/// State that is kept up to date from events, one row a key.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "cornjacket.io",
    version = "v1alpha1",
    kind = "Projection",
    plural = "projections",
    namespaced,
    cel,
    status = "ProjectionStatus",
    derive = "PartialEq",
    shortname = "proj",
    category = "cornjacket",
    doc = "State that is kept up to date from events, one row a key.",
    selectable = ".spec.type",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "TYPE", type_ = "string", json_path = ".status.type"),
    printcolumn(name = "CAUGHT-UP", type_ = "string", json_path = ".status.conditions[?(@.type==\"CaughtUp\")].status"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "REBUILT", type_ = "integer", json_path = ".status.rebuild.percent", priority = 1),
    printcolumn(
        name = "MESSAGE",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    validation = Rule::new(
        "(has(self.spec.type) ? self.spec.type : self.metadata.name) == (has(oldSelf.spec.type) ? oldSelf.spec.type : oldSelf.metadata.name)"
    )
    .message("type cannot change: make a new Projection, move its readers, then delete this one")
    .field_path(".spec.type")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.latest), has(self.merge), has(self.fields), has(self.timeSeries)].filter(given, given).size() == 1")
        .message("give exactly one of latest, merge, fields and timeSeries"),
    validation = Rule::new("!has(oldSelf.timeSeries) || has(self.timeSeries)")
        .message("timeSeries cannot become another kind of projection: make a new Projection"),
    validation = Rule::new("!has(self.timeSeries) || has(oldSelf.timeSeries)")
        .message("timeSeries cannot be added to a projection of another kind: make a new Projection"),
    validation = Rule::new("!has(self.timeSeries) || !has(self.retention)")
        .message("a time series has timeSeries.retention: remove retention"),
    validation = Rule::new("!has(self.timeSeries) || !has(self.indexes)")
        .message("indexes are on fields of a state, and a time series has none: remove indexes"),
    validation = Rule::new("!has(self.timeSeries) || !has(self.rebuild)")
        .message("a time series is not rebuilt: remove rebuild, or make a new Projection with another table")
)]
pub struct ProjectionSpec {
    /// The `projection_type` that queries name, for example `sensor_state`. Cannot change. Default: metadata.name.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub projection_type: Option<String>,
    /// Which events it reads.
    pub source: Source,
    /// Expression (CEL) over `event`; only events for which it is true are read. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub filter: Option<String>,
    /// Expression (CEL) over `event` that gives the row's key, a string. Default: event.aggregate_id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub key: Option<String>,
    /// The state is the payload of the newest event. Write `latest: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Latest>,
    /// The state is the merge (RFC 7396) of the payloads in order. Write `merge: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
    /// One expression (CEL) a field, over `state` (what it was) and `event`; each event is folded exactly once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields_schema")]
    pub fields: Option<BTreeMap<String, String>>,
    /// The events are rows of a table of its own, with typed columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_series: Option<TimeSeries>,
    /// Fields of the state that queries filter by, each with an index. An index speeds such filters up; it makes updates of the rows of every projection in the database dearer, so declare those that are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["field".into()]))]
    pub indexes: Option<Vec<Index>>,
    /// Where a new projection starts: `Earliest` at the oldest event that is still stored, `Latest` at those still to come. Default: Earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<StartFrom>,
    /// What an event that cannot be folded means: `DeadLetter` puts it aside and goes on, `Halt` stops the projection there. Default: DeadLetter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// How long a row that nothing updates is kept, for example `7d`. Default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<DurationText>,
    /// What a changed definition means: `BlueGreen` replays it beside the live rows and swaps when caught up, `InPlace` deletes and replays, `Never` keeps the rows and folds on. Default: BlueGreen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<Rebuild>,
    /// What may be done to tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_policy: Option<MigrationPolicy>,
    /// Handler instances that this projection asks for; the platform runs as many as the projection that asks for most. Default: what the installation is set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: Option<i32>,
    /// `Paused` leaves the resource alone until it is `Active` again. Default: Active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciliation: Option<Reconciliation>,
    /// `Observe` reports differences and writes nothing. Default: Manage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_policy: Option<ManagementPolicy>,
    /// `Delete` deletes the rows with the resource; `Retain` keeps them. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// Takes no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Latest {}

/// Takes no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Merge {}

/// A table of typed rows, one an event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeSeries {
    /// Name of the table in the schema `timeseries` of the time-series database. Cannot change.
    #[schemars(length(min = 1, max = 48), regex(pattern = r"^[a-z][a-z0-9_]*$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("table cannot change: make a new Projection"))]
    pub table: String,
    /// Columns beside `time`, `aggregate_id` (or what `key` gives) and `event_id`, which every such table has. A column that is added is filled from then on; dropping one, or changing its type, loses data and waits for an approval.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new("self.all(c, self.exists_one(d, d.name == c.name))").message("each column can be given once")
    )]
    pub columns: Vec<Column>,
    /// Time that one chunk (or partition) of the table spans, 1h to 366d. A change is for chunks to come. Default: 1d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_interval: Option<DurationText>,
    /// How long rows are kept after the time of their event; at most 1000 times chunkInterval. Older events are not written. Default: 7d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<DurationText>,
}

/// One typed column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// Name of the column.
    #[schemars(length(min = 1, max = 48), regex(pattern = r"^[a-z][a-z0-9_]*$"))]
    pub name: String,
    /// Type of the column in PostgreSQL: `Text`, `Boolean`, `Integer`, `BigInt`, `Double` (double precision), `Numeric`, `Timestamp` (with time zone), `Uuid` or `Json` (jsonb).
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Expression (CEL) over `event` that gives the value. Null leaves the column empty; a value of another type is an error, as onError says.
    #[schemars(length(min = 1, max = 4096))]
    pub from: String,
}

/// An index on a field of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Name of the field at the top of the state.
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
}

/// What may be done to tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationPolicy {
    /// Statements that lose data: `Deny`, `RequireApproval` (by the annotation cornjacket.io/approve with the plan's hash), or `Allow`. Default: RequireApproval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive: Option<Destructive>,
}

/// Whether statements that lose data may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Destructive {
    Deny,
    #[default]
    RequireApproval,
    Allow,
}

/// What is known about the projection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionStatus {
    /// metadata.generation that the status was computed from; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, DatabaseReachable, MigrationsApplied, ApprovalRequired, Propagated, CaughtUp.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Conditions,
    /// The last value of the annotation cornjacket.io/reconcile-requested-at that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// How far the data plane has taken over the newest generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlaneStatus>,
    /// The `projection_type` that queries name.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub projection_type: Option<String>,
    /// Hash of the migration plan that waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// How far its rows are built, while they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<RebuildStatus>,
    /// Handler instances that run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Label selector of those instances, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

/// How far rows are built of stored events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebuildStatus {
    /// Where the rows are built: `Beside` those served, which they replace when they have caught up; `InPlace`, where readers see them grow.
    pub state: RebuildState,
    /// How much of the stored events is read, in percent, rounded down to tens: the status is written ten times and not with every event.
    pub percent: i32,
}

/// Where rows are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RebuildState {
    Beside,
    InPlace,
}

impl ProjectionSpec {
    pub fn policies(&self) -> Policies {
        Policies::of(self.reconciliation, self.management_policy, self.deletion_policy)
    }
}

impl Projection {
    /// The `projection_type` that queries name: `type`, else the resource's own name.
    pub fn projection_type(&self) -> &str {
        self.spec.projection_type.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }
}

fn fields_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 4096}
    })
}
