//! The compiled form of a time series: a table with typed columns, one row an event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A table of typed rows. Everything is decided: defaults are applied, names were checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeSeries {
    /// Name of the table in [`TimeSeries::SCHEMA`].
    pub table: String,
    /// The declared columns, behind the fixed ones.
    pub columns: Vec<Column>,
    /// Time that a partition (or chunk) spans, in seconds.
    pub chunk_seconds: i64,
    /// How long rows are kept after the time of their event, in seconds.
    pub retention_seconds: i64,
}

impl TimeSeries {
    /// The schema of such tables: nothing else of the platform is in it.
    pub const SCHEMA: &'static str = "timeseries";
    /// The columns that every such table has, in front of those declared: the event's time, its aggregate (or what `key`
    /// gives), its id.
    pub const FIXED: [&'static str; 3] = ["time", "aggregate_id", "event_id"];

    /// A table of the schema, as SQL takes it.
    pub fn sql_table(name: &str) -> String {
        format!("{}.{}", Self::SCHEMA, sql_name(name))
    }
}

/// One typed column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// CEL over `event`.
    pub from: String,
}

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ColumnType {
    Text,
    Boolean,
    Integer,
    BigInt,
    Double,
    Numeric,
    Timestamp,
    Uuid,
    Json,
}

impl ColumnType {
    /// As manifests and answers have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "Text",
            Self::Boolean => "Boolean",
            Self::Integer => "Integer",
            Self::BigInt => "BigInt",
            Self::Double => "Double",
            Self::Numeric => "Numeric",
            Self::Timestamp => "Timestamp",
            Self::Uuid => "Uuid",
            Self::Json => "Json",
        }
    }

    /// As PostgreSQL's `format_type` has it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
            Self::Double => "double precision",
            Self::Numeric => "numeric",
            Self::Timestamp => "timestamp with time zone",
            Self::Uuid => "uuid",
            Self::Json => "jsonb",
        }
    }

    /// Whether values can be added up.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::BigInt | Self::Double | Self::Numeric)
    }

    /// Whether one value is less than another in a way that people would expect.
    pub fn is_ordered(self) -> bool {
        self.is_number() || matches!(self, Self::Text | Self::Timestamp)
    }
}

/// A name as SQL takes it, whatever is in it.
pub fn sql_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
