use super::*;

fn series(columns: &[(&str, ColumnType)]) -> TimeSeries {
    let column = |(name, column_type): &(&str, ColumnType)| Column {
        name: (*name).to_owned(),
        column_type: *column_type,
        from: "1".to_owned(),
    };
    let columns = columns.iter().map(column).collect();
    TimeSeries { table: "t".to_owned(), columns, chunk_seconds: 86_400, retention_seconds: 604_800 }
}

fn there(columns: &[(&str, ColumnType)]) -> Tables {
    let types = columns.iter().map(|(name, column_type)| ((*name).to_owned(), column_type.sql().to_owned()));
    let found = Found {
        projection_type: "p".to_owned(),
        chunk_seconds: 86_400,
        ours: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
        columns: types.collect(),
        ..Found::default()
    };
    Tables { tables: BTreeMap::from([("t".to_owned(), found)]), ..Tables::default() }
}

fn only(series: &TimeSeries, there: &Tables) -> Step {
    let mut steps = plan("p", series, there).expect("its own").steps;
    assert_eq!(steps.len(), 1, "{steps:?}");
    steps.remove(0)
}

const V: (&str, ColumnType) = ("v", ColumnType::Double);
const U: (&str, ColumnType) = ("u", ColumnType::Text);

#[test]
fn a_table_is_made_in_one_step_by_which_it_is_known() {
    let step = only(&series(&[V, U]), &Tables::default());
    assert_eq!((step.class, step.way), (Class::Additive, Way::Transaction));
    assert!(step.statement.contains("\"u\" text) PARTITION BY RANGE (\"time\"); CREATE INDEX"), "{}", step.statement);
    assert!(
        step.statement.contains("(\"aggregate_id\", \"time\", \"event_id\") INCLUDE (\"v\")"),
        "{}",
        step.statement
    );
    assert!(
        step.statement.contains("VALUES ('t', 'p', 'partitioned', ARRAY['v', 'u']::text[], 86400)"),
        "{}",
        step.statement
    );
    assert!(plan("p", &series(&[V, U]), &there(&[V, U])).is_ok_and(|plan| plan.steps.is_empty()));
}

#[test]
fn timescale_cuts_a_table_where_it_is_installed() {
    let step = only(&series(&[U]), &Tables { timescale: true, ..Tables::default() });
    assert!(step.statement.contains("SELECT create_hypertable('timeseries.\"t\"', 'time',"), "{}", step.statement);
    assert!(!step.statement.contains("PARTITION BY") && !step.statement.contains("INCLUDE"), "{}", step.statement);
    let mut hyper = there(&[V]);
    if let Some(found) = hyper.tables.get_mut("t") {
        (found.hypertable, found.chunk_seconds) = (true, 3600);
    }
    assert!(only(&series(&[V]), &hyper).statement.contains("set_chunk_time_interval('timeseries.\"t\"', 86400 *"));
}

#[test]
fn a_column_more_loses_nothing_and_one_less_does() {
    let step = only(&series(&[V, U]), &there(&[V]));
    assert_eq!(step.class, Class::Additive);
    assert!(step.statement.starts_with("ALTER TABLE timeseries.\"t\" ADD COLUMN \"u\" text; "), "{}", step.statement);
    let step = only(&series(&[V]), &there(&[V, U]));
    assert_eq!((step.class, step.purpose.as_str()), (Class::Destructive, "drop the column 'u' with all its values"));
    let step = only(&series(&[("v", ColumnType::Text)]), &there(&[V]));
    assert_eq!(step.class, Class::Destructive);
    assert!(
        step.statement.starts_with("ALTER TABLE timeseries.\"t\" DROP COLUMN \"v\", ADD COLUMN \"v\" text; "),
        "{}",
        step.statement
    );
}

#[test]
fn columns_of_somebody_else_are_left_alone() {
    let mut tables = there(&[V, U]);
    if let Some(found) = tables.tables.get_mut("t") {
        found.ours.remove("u");
    }
    assert!(plan("p", &series(&[V]), &tables).is_ok_and(|plan| plan.steps.is_empty()));
}

#[test]
fn the_same_change_after_the_way_back_is_another() {
    let hash = |changes: i32| {
        let mut tables = there(&[V, U]);
        if let Some(found) = tables.tables.get_mut("t") {
            found.changes = changes;
        }
        plan("p", &series(&[V]), &tables).expect("its own").hash()
    };
    assert_eq!(hash(0), hash(0));
    assert_ne!(hash(0), hash(2));
}

#[test]
fn what_loses_data_is_run_only_where_it_may_and_nothing_where_nothing_is_to_be_written() {
    let run = |series: TimeSeries, writes, may_lose| {
        let wanted = Wanted { projection_type: "p".to_owned(), series, writes, may_lose };
        to_run(&[wanted], &there(&[V, U])).len()
    };
    assert_eq!(run(series(&[V]), true, false), 0);
    assert_eq!(run(series(&[V]), true, true), 1);
    assert_eq!(run(series(&[V, U, ("w", ColumnType::Uuid)]), true, false), 1);
    assert_eq!(run(series(&[V, U, ("w", ColumnType::Uuid)]), false, true), 0);
    assert_eq!(run(series(&[V, U]), true, true), 0);
}

#[test]
fn the_retained_table_of_another_projection_is_not_written_to() {
    let taken = plan("q", &series(&[V]), &there(&[V])).expect_err("taken");
    assert_eq!((taken.table.as_str(), taken.owner.as_str()), ("t", "p"));
}
