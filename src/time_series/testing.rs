//! Definitions and events for unit tests.

use chrono::DateTime;
use crds::registration::{Column, ColumnType, Fold, OnError, Projection, Rebuild, Source, StartFrom, TimeSeries};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::event::StoredEvent;

/// A table with these columns (name, type, expression), a day a partition, kept for a week.
pub fn series(table: &str, columns: &[(&str, ColumnType, &str)]) -> TimeSeries {
    let column = |(name, column_type, from): &(&str, ColumnType, &str)| Column {
        name: (*name).to_owned(),
        column_type: *column_type,
        from: (*from).to_owned(),
    };
    TimeSeries {
        table: table.to_owned(),
        columns: columns.iter().map(column).collect(),
        chunk_seconds: 86_400,
        retention_seconds: 7 * 86_400,
    }
}

/// A projection of all events of the type `sensor.reading`.
pub fn spec(series: TimeSeries) -> Projection {
    Projection {
        projection_type: "readings".to_owned(),
        source: Source { event_types: vec!["sensor.reading".to_owned()], prefixes: Vec::new() },
        filter: None,
        key: None,
        fold: Fold::TimeSeries(series),
        start_from: StartFrom::Earliest,
        on_error: OnError::DeadLetter,
        rebuild: Rebuild::BlueGreen,
        retention_seconds: None,
        indexes: Vec::new(),
        reads_event_store: true,
    }
}

/// The first event of a device.
pub fn event(event_type: &str, payload: &Value) -> StoredEvent {
    StoredEvent {
        shard: 7,
        position: 1,
        event_id: Uuid::from_u128(1),
        event_type: event_type.to_owned(),
        aggregate_id: "device-1".to_owned(),
        timestamp: DateTime::from_timestamp(1_800_000_000, 0).expect("a time"),
        payload: payload.clone(),
        metadata: json!({}),
        ingested_at: DateTime::from_timestamp(1_800_000_001, 0).expect("a time"),
    }
}
