//! Rows as an array a column, as a statement takes them.

use chrono::{DateTime, Utc};
use crds::registration::{ColumnType, TimeSeries};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use uuid::Uuid;

use super::program::Row;
use super::value::Cell;

/// The rows of one statement.
pub struct Batch {
    times: Vec<DateTime<Utc>>,
    aggregate_ids: Vec<String>,
    event_ids: Vec<Uuid>,
    columns: Vec<Values>,
}

/// The values of one column.
enum Values {
    Text(Vec<Option<String>>),
    Boolean(Vec<Option<bool>>),
    Integer(Vec<Option<i32>>),
    BigInt(Vec<Option<i64>>),
    Double(Vec<Option<f64>>),
    Timestamp(Vec<Option<DateTime<Utc>>>),
    Uuid(Vec<Option<Uuid>>),
}

impl Values {
    fn of(column: ColumnType) -> Self {
        match column {
            ColumnType::Text | ColumnType::Numeric | ColumnType::Json => Self::Text(Vec::new()),
            ColumnType::Boolean => Self::Boolean(Vec::new()),
            ColumnType::Integer => Self::Integer(Vec::new()),
            ColumnType::BigInt => Self::BigInt(Vec::new()),
            ColumnType::Double => Self::Double(Vec::new()),
            ColumnType::Timestamp => Self::Timestamp(Vec::new()),
            ColumnType::Uuid => Self::Uuid(Vec::new()),
        }
    }

    /// A cell is of its column's type: whoever made it saw to that.
    fn push(&mut self, cell: Cell) {
        match (self, cell) {
            (Self::Text(values), Cell::Text(value)) => values.push(Some(value)),
            (Self::Boolean(values), Cell::Boolean(value)) => values.push(Some(value)),
            (Self::Integer(values), Cell::Integer(value)) => values.push(Some(value)),
            (Self::BigInt(values), Cell::BigInt(value)) => values.push(Some(value)),
            (Self::Double(values), Cell::Double(value)) => values.push(Some(value)),
            (Self::Timestamp(values), Cell::Timestamp(value)) => values.push(Some(value)),
            (Self::Uuid(values), Cell::Uuid(value)) => values.push(Some(value)),
            (Self::Text(values), _) => values.push(None),
            (Self::Boolean(values), _) => values.push(None),
            (Self::Integer(values), _) => values.push(None),
            (Self::BigInt(values), _) => values.push(None),
            (Self::Double(values), _) => values.push(None),
            (Self::Timestamp(values), _) => values.push(None),
            (Self::Uuid(values), _) => values.push(None),
        }
    }

    fn bind(self, query: Query<'_, Postgres, PgArguments>) -> Query<'_, Postgres, PgArguments> {
        match self {
            Self::Text(values) => query.bind(values),
            Self::Boolean(values) => query.bind(values),
            Self::Integer(values) => query.bind(values),
            Self::BigInt(values) => query.bind(values),
            Self::Double(values) => query.bind(values),
            Self::Timestamp(values) => query.bind(values),
            Self::Uuid(values) => query.bind(values),
        }
    }
}

impl Batch {
    /// Rows of a series, in its order of columns.
    pub fn of(series: &TimeSeries, rows: impl IntoIterator<Item = Row>) -> Self {
        let columns = series.columns.iter().map(|column| Values::of(column.column_type)).collect();
        let mut batch = Self { times: Vec::new(), aggregate_ids: Vec::new(), event_ids: Vec::new(), columns };
        for row in rows {
            batch.times.push(row.time);
            batch.aggregate_ids.push(row.aggregate_id);
            batch.event_ids.push(row.event_id);
            for (values, cell) in batch.columns.iter_mut().zip(row.cells) {
                values.push(cell);
            }
        }
        batch
    }

    /// Gives a statement its arguments, in the order of [`super::store::statement::insert`].
    pub fn bind(self, query: Query<'_, Postgres, PgArguments>) -> Query<'_, Postgres, PgArguments> {
        let query = query.bind(self.times).bind(self.aggregate_ids).bind(self.event_ids);
        self.columns.into_iter().fold(query, |query, values| values.bind(query))
    }
}
