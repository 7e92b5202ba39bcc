//! Time series: rows of a series' table, put together in buckets of time, or as they are.

pub mod export;
pub mod fill;
pub mod request;
pub mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Query, QueryError};
use crate::registry::LoadedSeries;

/// A value of a column, as the database writes it in JSON: no number loses a digit.
pub type Value = Box<RawValue>;

/// A bucket of time, or a fill where there was none.
#[derive(Clone, Debug)]
pub struct Point {
    /// When the bucket begins.
    pub time: DateTime<Utc>,
    /// By column, in the order asked for.
    pub values: Vec<(Arc<str>, Value)>,
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len() + 1))?;
        map.serialize_entry("time", &self.time)?;
        for (name, value) in &self.values {
            map.serialize_entry(&**name, value)?;
        }
        map.end()
    }
}

/// A row as it was written.
#[derive(Clone, Debug)]
pub struct Row {
    pub place: Place,
    /// By column, in the order asked for.
    pub values: Vec<(Arc<str>, Value)>,
}

/// Where a row is: rows are in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Place {
    pub aggregate_id: String,
    pub time: DateTime<Utc>,
    pub event_id: Uuid,
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len() + 3))?;
        map.serialize_entry("time", &self.place.time)?;
        map.serialize_entry("aggregate_id", &self.place.aggregate_id)?;
        map.serialize_entry("event_id", &self.place.event_id)?;
        for (name, value) in &self.values {
            map.serialize_entry(&**name, value)?;
        }
        map.end()
    }
}

/// A time series that there is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SeriesType {
    /// The projection type, by which it is asked for.
    pub name: String,
    /// Its table in the schema `timeseries` of the time-series database.
    pub table: String,
    pub columns: Vec<SeriesColumn>,
    /// How long rows are kept, in seconds.
    pub retention_seconds: i64,
    /// running, halted; or pending, where the writer has not taken it up yet.
    pub status: String,
    /// Positions of the event store still to be read when it was last looked at.
    pub behind: i64,
    /// Why it is halted.
    pub message: Option<String>,
}

/// A declared column.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SeriesColumn {
    pub name: String,
    /// Text, Boolean, Integer, BigInt, Double, Numeric, Timestamp, Uuid or Json.
    #[serde(rename = "type")]
    pub column_type: &'static str,
}

/// The series of this name.
///
/// # Errors
/// None is declared.
pub fn named(query: &Query, name: &str) -> Result<Arc<LoadedSeries>, QueryError> {
    let catalog = query.catalog();
    catalog.series.get(name).cloned().ok_or_else(|| {
        let meant = crds::nearest(name, catalog.series.keys().map(String::as_str)).map(str::to_owned);
        QueryError::NoSeries { name: name.to_owned(), meant }
    })
}

/// The series there are, and how far each is.
///
/// # Errors
/// The database is away.
pub async fn all(query: &Query) -> Result<Vec<SeriesType>, QueryError> {
    let catalog = query.catalog();
    if catalog.series.is_empty() {
        return Ok(Vec::new());
    }
    let progress: BTreeMap<String, store::Progress> = store::progress(query.series()).await?;
    let described = |(name, loaded): (&String, &Arc<LoadedSeries>)| {
        let known = progress.get(name).filter(|progress| progress.status != "removed");
        let column = |column: &crds::registration::Column| SeriesColumn {
            name: column.name.clone(),
            column_type: column.column_type.as_str(),
        };
        SeriesType {
            name: name.clone(),
            table: loaded.series.table.clone(),
            columns: loaded.series.columns.iter().map(column).collect(),
            retention_seconds: loaded.series.retention_seconds,
            status: known.map_or_else(|| "pending".to_owned(), |progress| progress.status.clone()),
            behind: known.map_or(0, |progress| progress.behind),
            message: known.and_then(|progress| progress.message.clone()),
        }
    };
    Ok(catalog.series.iter().map(described).collect())
}
