//! Tables of time series. Pure.
//!
//! A table is made in one step and changed in one: what an approval was asked for is done at once, or not at all. Adding a
//! column rewrites no row. Dropping one, or changing its type, loses what is in it.

use std::collections::{BTreeMap, BTreeSet};

use crds::registration::{Column, ColumnType, TimeSeries, sql_name};

use super::{Class, Ledger, Plan, Step, Way, literal};

/// Most columns that the index answers about by itself.
const COVERED: usize = 8;

/// What a registered time series asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub projection_type: String,
    pub series: TimeSeries,
    /// False where nothing may be written: under `Observe`, and while the resource is paused.
    pub writes: bool,
    /// Whether a step that loses data may be taken: it was approved, or need not be.
    pub may_lose: bool,
}

/// A table that the platform made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The projection whose rows it holds.
    pub projection_type: String,
    /// Cut into chunks by TimescaleDB.
    pub hypertable: bool,
    pub chunk_seconds: i64,
    /// How often its columns were changed.
    pub changes: i32,
    /// The columns that were made for a definition.
    pub ours: BTreeSet<String>,
    /// The type of each column, as PostgreSQL writes it.
    pub columns: BTreeMap<String, String>,
}

/// What the time-series database has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub tables: BTreeMap<String, Found>,
    pub ledger: Ledger,
    /// Whether TimescaleDB is installed in it.
    pub timescale: bool,
}

/// The table holds the rows of another projection, which is no longer declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.timeSeries.table: '{table}' holds rows of the projection '{owner}', which were retained: give another table, or \
     declare '{owner}' once more with deletionPolicy: Delete and delete it"
)]
pub struct Taken {
    pub table: String,
    pub owner: String,
}

/// What is outstanding for a time series; no steps: its table is as declared.
pub fn plan(projection_type: &str, series: &TimeSeries, there: &Tables) -> Result<Plan, Taken> {
    let steps = match there.tables.get(&series.table) {
        None => vec![create(projection_type, series, there.timescale)],
        Some(found) if found.projection_type != projection_type => {
            return Err(Taken { table: series.table.clone(), owner: found.projection_type.clone() });
        }
        Some(found) => change(series, found).into_iter().chain(rechunk(series, found)).collect(),
    };
    Ok(Plan { projection_type: projection_type.to_owned(), steps })
}

/// The plans that may be carried out now.
pub fn to_run(wanted: &[Wanted], there: &Tables) -> Vec<Plan> {
    let planned = wanted.iter().filter(|wanted| wanted.writes).filter_map(|wanted| {
        let plan = plan(&wanted.projection_type, &wanted.series, there).ok()?;
        (!plan.is_destructive() || wanted.may_lose).then_some(plan)
    });
    planned.filter(|plan| !plan.steps.is_empty()).collect()
}

fn create(projection_type: &str, series: &TimeSeries, timescale: bool) -> Step {
    let table = TimeSeries::sql_table(&series.table);
    let columns: Vec<String> = series.columns.iter().map(defined).collect();
    let made = format!(
        "CREATE TABLE {table} (\"time\" timestamp with time zone NOT NULL, \"aggregate_id\" text COLLATE \"C\" NOT NULL, \
         \"event_id\" uuid NOT NULL, {})",
        columns.join(", ")
    );
    let cut = if timescale {
        format!(
            "; SELECT create_hypertable({}, 'time', chunk_time_interval => {} * INTERVAL '1 second', \
             create_default_indexes => false)",
            literal(&table),
            series.chunk_seconds
        )
    } else {
        " PARTITION BY RANGE (\"time\")".to_owned()
    };
    let layout = if timescale { "hypertable" } else { "partitioned" };
    let statement = format!(
        "{made}{cut}; {}; COMMENT ON TABLE {table} IS {}; \
         INSERT INTO series_table (table_name, projection_type, layout, columns, chunk_seconds) \
         VALUES ({}, {}, '{layout}', {}, {}) \
         ON CONFLICT (table_name) DO UPDATE SET projection_type = EXCLUDED.projection_type, layout = EXCLUDED.layout, \
         columns = EXCLUDED.columns, chunk_seconds = EXCLUDED.chunk_seconds, made_at = now()",
        index(series),
        literal(&format!("Time series of the projection {projection_type}")),
        literal(&series.table),
        literal(projection_type),
        names(series),
        series.chunk_seconds,
    );
    Step {
        name: format!("create table {}", series.table),
        statement,
        class: Class::Additive,
        way: Way::Transaction,
        purpose: format!("create the table {}.{}", TimeSeries::SCHEMA, series.table),
    }
}

/// Columns that differ, in one statement.
fn change(series: &TimeSeries, found: &Found) -> Option<Step> {
    let is = |column: &Column| found.columns.get(&column.name).map(String::as_str);
    let retyped = |column: &&Column| is(column).is_some_and(|is| is != column.column_type.sql());
    let declared = |name: &String| series.columns.iter().any(|column| column.name == *name);
    let (mut parts, mut purposes) = (Vec::new(), Vec::new());
    for name in found.ours.iter().filter(|name| found.columns.contains_key(*name) && !declared(name)) {
        parts.push(format!("DROP COLUMN {}", sql_name(name)));
        purposes.push(format!("drop the column '{name}' with all its values"));
    }
    for column in series.columns.iter().filter(retyped) {
        let (name, is) = (&column.name, is(column).unwrap_or_default());
        parts.push(format!("DROP COLUMN {}", sql_name(name)));
        parts.push(format!("ADD COLUMN {}", defined(column)));
        purposes.push(format!(
            "make the column '{name}' {}: its values, which are {is}, are lost",
            column.column_type.sql()
        ));
    }
    let class = if parts.is_empty() { Class::Additive } else { Class::Destructive };
    for column in series.columns.iter().filter(|column| is(column).is_none()) {
        parts.push(format!("ADD COLUMN {}", defined(column)));
        purposes.push(format!("add the column '{}'", column.name));
    }
    if parts.is_empty() {
        return None;
    }
    let table = TimeSeries::sql_table(&series.table);
    // A column that goes takes an index along that has it.
    let statement = format!(
        "ALTER TABLE {table} {}; {}; UPDATE series_table SET changes = changes + 1, columns = {} WHERE table_name = {}",
        parts.join(", "),
        index(series),
        names(series),
        literal(&series.table),
    );
    Some(Step {
        // Numbered: who approved a change has not approved the same once more after the way back.
        name: format!("change {} of table {}: {}", found.changes + 1, series.table, parts.join(", ")),
        statement,
        class,
        way: Way::Transaction,
        purpose: purposes.join(", "),
    })
}

/// PostgreSQL's own partitions are made by the writer, as long as is declared then.
fn rechunk(series: &TimeSeries, found: &Found) -> Option<Step> {
    if !found.hypertable || found.chunk_seconds == series.chunk_seconds {
        return None;
    }
    let table = TimeSeries::sql_table(&series.table);
    let statement = format!(
        "SELECT set_chunk_time_interval({}, {} * INTERVAL '1 second'); \
         UPDATE series_table SET chunk_seconds = {1} WHERE table_name = {}",
        literal(&table),
        series.chunk_seconds,
        literal(&series.table)
    );
    Some(Step {
        name: format!("chunks of table {} span {} s", series.table, series.chunk_seconds),
        statement,
        class: Class::Additive,
        way: Way::Transaction,
        purpose: format!("let chunks of {} span {} s from now on", series.table, series.chunk_seconds),
    })
}

/// Rows of one aggregate in order of time; the numbers of a day are read from the index alone.
fn index(series: &TimeSeries) -> String {
    let small =
        |column: &&Column| matches!(column.column_type, ColumnType::Integer | ColumnType::BigInt | ColumnType::Double);
    let covered: Vec<String> =
        series.columns.iter().filter(small).take(COVERED).map(|column| sql_name(&column.name)).collect();
    let include = if covered.is_empty() { String::new() } else { format!(" INCLUDE ({})", covered.join(", ")) };
    format!(
        "CREATE INDEX IF NOT EXISTS {} ON {} (\"aggregate_id\", \"time\", \"event_id\"){include}",
        sql_name(&format!("{}_by_aggregate", series.table)),
        TimeSeries::sql_table(&series.table)
    )
}

fn defined(column: &Column) -> String {
    format!("{} {}", sql_name(&column.name), column.column_type.sql())
}

fn names(series: &TimeSeries) -> String {
    let names: Vec<String> = series.columns.iter().map(|column| literal(&column.name)).collect();
    format!("ARRAY[{}]::text[]", names.join(", "))
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
