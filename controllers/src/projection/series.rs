//! A time series' compiled form: defaults applied, names and lengths checked. Pure.

use std::time::Duration;

use crds::projection::{Column, TimeSeries};
use crds::reason::Reason;
use crds::registration;
use crds::shared::DurationText;

use crate::resolve::Failure;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const WEEK: Duration = Duration::from_hours(7 * 24);
/// Longest time that a partition spans.
const LONGEST_CHUNK: Duration = Duration::from_hours(366 * 24);
/// Most partitions within the retention: each costs a plan something.
const PARTITIONS: u64 = 1000;
/// What PostgreSQL has in every table.
const SYSTEM: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
/// Digits at the end of a partition's name: when it begins.
const STAMP: usize = 14;

/// Compiles what a Projection says of its table. The expressions are checked elsewhere.
pub fn compile(declared: &TimeSeries) -> Result<registration::TimeSeries, Failure> {
    check_table(&declared.table)?;
    for (index, column) in declared.columns.iter().enumerate() {
        check_column(&format!("spec.timeSeries.columns[{index}].name"), &column.name)?;
    }
    let chunk = length(declared.chunk_interval.as_ref(), DAY);
    if !(HOUR..=LONGEST_CHUNK).contains(&chunk) || chunk.subsec_nanos() > 0 {
        let given = declared.chunk_interval.as_ref().map_or_else(String::new, ToString::to_string);
        return Err(refused(format!(
            "spec.timeSeries.chunkInterval: '{given}' must be from 1h to 366d, in whole seconds"
        )));
    }
    let retention = length(declared.retention.as_ref(), WEEK);
    check_retention(retention, chunk, declared)?;
    Ok(registration::TimeSeries {
        table: declared.table.clone(),
        columns: declared.columns.iter().map(compiled).collect(),
        chunk_seconds: seconds(chunk),
        retention_seconds: seconds(retention),
    })
}

fn compiled(column: &Column) -> registration::Column {
    registration::Column { name: column.name.clone(), column_type: column.column_type, from: column.from.clone() }
}

/// A table with the name of another's partition could not be told from it.
fn check_table(table: &str) -> Result<(), Failure> {
    let stamped = table.len() > STAMP + 1
        && table.as_bytes()[table.len() - STAMP - 1] == b'_'
        && table.bytes().rev().take(STAMP).all(|byte| byte.is_ascii_digit());
    if stamped {
        let message = format!(
            "spec.timeSeries.table: '{table}' ends as a partition's name does (_ and {STAMP} digits): give another"
        );
        return Err(refused(message));
    }
    Ok(())
}

fn check_column(place: &str, name: &str) -> Result<(), Failure> {
    if registration::TimeSeries::FIXED.contains(&name) {
        return Err(refused(format!("{place}: '{name}' is in every time series already: give another name")));
    }
    if SYSTEM.contains(&name) {
        return Err(refused(format!(
            "{place}: '{name}' is a column that PostgreSQL has in every table: give another name"
        )));
    }
    Ok(())
}

fn check_retention(retention: Duration, chunk: Duration, declared: &TimeSeries) -> Result<(), Failure> {
    let given = declared.retention.as_ref().map_or_else(|| "7d".to_owned(), ToString::to_string);
    if retention < HOUR {
        return Err(refused(format!("spec.timeSeries.retention: '{given}' must be 1h or more")));
    }
    let partitions = retention.as_secs().div_ceil(chunk.as_secs());
    if partitions > PARTITIONS {
        let least = retention.as_secs().div_ceil(PARTITIONS).div_ceil(3600);
        return Err(refused(format!(
            "spec.timeSeries.retention: '{given}' makes {partitions} partitions of chunkInterval, at most {PARTITIONS} \
             are allowed: set chunkInterval to {least}h or more"
        )));
    }
    Ok(())
}

fn length(given: Option<&DurationText>, default: Duration) -> Duration {
    given.map_or(default, DurationText::length)
}

fn seconds(length: Duration) -> i64 {
    i64::try_from(length.as_secs()).unwrap_or(i64::MAX)
}

fn refused(message: String) -> Failure {
    Failure::new(Reason::InvalidSpec, message)
}

#[cfg(test)]
mod tests {
    use crds::projection::ColumnType;

    use super::*;

    fn declared(table: &str, column: &str, chunk: Option<&str>, retention: Option<&str>) -> TimeSeries {
        let text = |text: Option<&str>| text.map(|text| text.parse().expect("a duration"));
        TimeSeries {
            table: table.to_owned(),
            columns: vec![Column {
                name: column.to_owned(),
                column_type: ColumnType::Double,
                from: "event.payload.value".to_owned(),
            }],
            chunk_interval: text(chunk),
            retention: text(retention),
        }
    }

    fn refusal(of: &TimeSeries) -> String {
        compile(of).expect_err("refused").message
    }

    #[test]
    fn what_is_not_given_is_a_day_and_a_week() {
        let series = compile(&declared("readings", "value", None, None)).expect("good");
        assert_eq!((series.chunk_seconds, series.retention_seconds), (86_400, 7 * 86_400));
        let series = compile(&declared("readings", "value", Some("12h"), Some("30d"))).expect("good");
        assert_eq!((series.chunk_seconds, series.retention_seconds), (43_200, 30 * 86_400));
    }

    #[test]
    fn names_that_mean_something_else_are_refused_with_the_way_out() {
        for name in ["time", "aggregate_id", "event_id", "ctid", "xmin"] {
            let message = refusal(&declared("t", name, None, None));
            assert!(message.starts_with(&format!("spec.timeSeries.columns[0].name: '{name}'")), "{message}");
            assert!(message.ends_with("give another name"), "{message}");
        }
        assert!(refusal(&declared("t_20260101000000", "v", None, None)).contains("as a partition's name does"));
        for fine in ["t_2026010100000", "t20260101000000", "t_20260101000000_", "select"] {
            assert!(compile(&declared(fine, "v", None, None)).is_ok(), "{fine}");
        }
    }

    #[test]
    fn lengths_are_bounded_and_partitions_few() {
        for chunk in ["59m", "367d", "3600001ms"] {
            assert!(refusal(&declared("t", "v", Some(chunk), None)).contains("must be from 1h to 366d"), "{chunk}");
        }
        assert!(refusal(&declared("t", "v", None, Some("59m"))).contains("must be 1h or more"));
        let message = refusal(&declared("t", "v", Some("1h"), Some("42d")));
        assert!(message.contains("'42d' makes 1008 partitions") && message.ends_with("to 2h or more"), "{message}");
        assert!(compile(&declared("t", "v", Some("2h"), Some("42d"))).is_ok());
    }
}
