//! A time series' definition, compiled once when it is loaded; one event to one row: pure.

use chrono::{DateTime, Utc};
use crds::language::expression::{Bindings, Expression, Scope};
use crds::registration::{ColumnType, Projection, Source, TimeSeries};
use serde_json::Value;
use uuid::Uuid;

use super::value::{Cell, ValueError, cell};
use crate::event::{MAX_NAME_CHARS, StoredEvent};
use crate::expression;

/// What one time series does with an event.
#[derive(Debug)]
pub struct Program {
    source: Source,
    filter: Option<Expression>,
    key: Option<Expression>,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    name: String,
    holds: ColumnType,
    from: Expression,
}

/// A row to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub time: DateTime<Utc>,
    pub aggregate_id: String,
    pub event_id: Uuid,
    /// One a declared column.
    pub cells: Vec<Cell>,
}

/// Why an event is no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("{field}: {cause}")]
    Expression { field: String, cause: String },
    #[error("filter: must be true or false, is {0}")]
    FilterNotBool(Value),
    #[error("key: must be a string of 1 to {MAX_NAME_CHARS} characters, is {0}")]
    BadKey(Value),
    #[error("columns.{column}: {cause}")]
    Value { column: String, cause: ValueError },
}

impl Program {
    /// Compiles a registered time series.
    ///
    /// # Errors
    /// Names the field whose expression does not compile, and why.
    pub fn compile(spec: &Projection, series: &TimeSeries) -> Result<Self, String> {
        let optional =
            |field: &str, text: &Option<String>| text.as_deref().map(|text| compile(field, text)).transpose();
        let column = |column: &crds::registration::Column| {
            let from = compile(&format!("columns.{}", column.name), &column.from)?;
            Ok(Column { name: column.name.clone(), holds: column.column_type, from })
        };
        Ok(Self {
            source: spec.source.clone(),
            filter: optional("filter", &spec.filter)?,
            key: optional("key", &spec.key)?,
            columns: series.columns.iter().map(column).collect::<Result<_, String>>()?,
        })
    }

    /// The event types and prefixes it reads.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The row that an event makes; `None` where it makes none.
    ///
    /// # Errors
    /// An expression has no value, or one that its column cannot hold.
    pub fn row(&self, event: &StoredEvent) -> Result<Option<Row>, RowError> {
        if !self.source.matches(&event.event_type) {
            return Ok(None);
        }
        let bindings = Bindings::new(&expression::event(event), None);
        if let Some(filter) = &self.filter {
            match evaluate("filter", filter, &bindings)? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Ok(None),
                other => return Err(RowError::FilterNotBool(other)),
            }
        }
        let aggregate_id = match &self.key {
            None => event.aggregate_id.clone(),
            Some(key) => key_of(evaluate("key", key, &bindings)?)?,
        };
        let cell_of = |column: &Column| {
            let value = evaluate(&format!("columns.{}", column.name), &column.from, &bindings)?;
            cell(column.holds, value).map_err(|cause| RowError::Value { column: column.name.clone(), cause })
        };
        let cells = self.columns.iter().map(cell_of).collect::<Result<_, _>>()?;
        Ok(Some(Row { time: event.timestamp, aggregate_id, event_id: event.event_id, cells }))
    }
}

fn key_of(value: Value) -> Result<String, RowError> {
    match value {
        Value::String(key) if (1..=MAX_NAME_CHARS).contains(&key.chars().count()) && !key.contains('\0') => Ok(key),
        other => Err(RowError::BadKey(other)),
    }
}

fn compile(field: &str, text: &str) -> Result<Expression, String> {
    Expression::compile(text, Scope::Event).map_err(|e| format!("{field}: {e}"))
}

fn evaluate(field: &str, expression: &Expression, bindings: &Bindings) -> Result<Value, RowError> {
    expression.evaluate_in(bindings).map_err(|e| RowError::Expression { field: field.to_owned(), cause: e.to_string() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{event, series, spec};
    use super::*;

    fn compiled(columns: &[(&str, ColumnType, &str)], change: impl Fn(&mut Projection)) -> Program {
        let series = series("t", columns);
        let mut spec = spec(series.clone());
        change(&mut spec);
        Program::compile(&spec, &series).expect("it compiles")
    }

    #[test]
    fn an_event_is_a_row_of_its_values() {
        let columns = [
            ("value", ColumnType::Double, "event.payload.value"),
            ("unit", ColumnType::Text, "has(event.payload.unit) ? event.payload.unit : null"),
        ];
        let program = compiled(&columns, |_| {});
        let event = event("sensor.reading", &json!({"value": 72.5}));
        let row = program.row(&event).expect("a row").expect("a row");
        assert_eq!((row.time, row.event_id), (event.timestamp, event.event_id));
        assert_eq!(row.aggregate_id, event.aggregate_id);
        assert_eq!(row.cells, [Cell::Double(72.5), Cell::Null]);
    }

    #[test]
    fn other_types_and_what_the_filter_drops_make_no_row() {
        let program = compiled(&[("v", ColumnType::Double, "event.payload.value")], |spec| {
            spec.filter = Some("event.payload.value > 10.0".to_owned());
            spec.key = Some("event.payload.room".to_owned());
        });
        let row = |event_type: &str, payload: &Value| program.row(&event(event_type, payload));
        assert_eq!(row("other", &json!({})), Ok(None));
        assert_eq!(row("sensor.reading", &json!({"value": 9.0})), Ok(None));
        let made = row("sensor.reading", &json!({"value": 11.0, "room": "a"})).expect("good").expect("a row");
        assert_eq!(made.aggregate_id, "a");
        let no_key = row("sensor.reading", &json!({"value": 11.0, "room": ""}));
        assert!(matches!(no_key, Err(RowError::BadKey(_))), "{no_key:?}");
    }

    #[test]
    fn an_error_names_the_column_and_what_came_instead() {
        let program = compiled(&[("v", ColumnType::Double, "event.payload.value")], |_| {});
        let wrong = program.row(&event("sensor.reading", &json!({"value": "hot"}))).expect_err("no number");
        assert_eq!(wrong.to_string(), r#"columns.v: "hot" is no Double: make it a number with double(…)"#);
        let missing = program.row(&event("sensor.reading", &json!({}))).expect_err("no value").to_string();
        assert!(missing.starts_with("columns.v: "), "{missing}");
    }
}
