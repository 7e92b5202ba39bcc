//! What a request asks of a series: read, checked against its columns, and bounded. Pure.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Days, SecondsFormat, TimeDelta, Utc};
use crds::registration::{Column, ColumnType, TimeSeries};
use crds::shared::DurationText;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::query::QueryError;

/// Most points of one answer.
pub const MAX_POINTS: i64 = 10_000;

/// From (inclusive) and to (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

impl Range {
    /// The last day, where nothing else is said.
    pub fn of_a_day(from: Option<&str>, to: Option<&str>, now: DateTime<Utc>) -> Result<Self, QueryError> {
        let to = to.map(|text| time("to", text)).transpose()?.unwrap_or(now);
        let day_before = to.checked_sub_days(Days::new(1)).unwrap_or(to);
        Self::checked(from.map(|text| time("from", text)).transpose()?.unwrap_or(day_before), to)
    }

    /// Everything, where nothing else is said.
    pub fn of_all(from: Option<&str>, to: Option<&str>) -> Result<Self, QueryError> {
        let from = time("from", from.unwrap_or("0001-01-01T00:00:00Z"))?;
        Self::checked(from, time("to", to.unwrap_or("9999-12-31T00:00:00Z"))?)
    }

    fn checked(from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Self, QueryError> {
        if from < to {
            return Ok(Self { from, to });
        }
        let rule = format!("must be before to, which is {}", shown(to));
        Err(QueryError::parameter("from", &shown(from), rule))
    }
}

fn time(name: &str, text: &str) -> Result<DateTime<Utc>, QueryError> {
    let rule = "must be a time such as 2026-01-31T12:00:00Z (a + is written %2B)";
    let read = DateTime::parse_from_rfc3339(text).map(|at| at.to_utc());
    // PostgreSQL keeps microseconds, and years up to 294276.
    read.map_err(|_| QueryError::parameter(name, text, rule))
}

fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// How the values of a bucket become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    Avg,
    Min,
    Max,
    Sum,
    /// Values that are there.
    Count,
    /// The newest value that is there.
    Last,
    /// How much values rise a second.
    Rate,
}

impl FromStr for Aggregate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "sum" => Self::Sum,
            "count" => Self::Count,
            "last" => Self::Last,
            "rate" => Self::Rate,
            _ => return Err("must be avg, min, max, sum, count, last or rate"),
        })
    }
}

impl Aggregate {
    /// Whether it means something for values of this type.
    fn takes(self, column: ColumnType) -> bool {
        match self {
            Self::Avg | Self::Sum | Self::Rate => column.is_number(),
            Self::Min | Self::Max => column.is_ordered(),
            Self::Count | Self::Last => true,
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Self::Avg | Self::Sum | Self::Rate => "is for Integer, BigInt, Double and Numeric",
            Self::Min | Self::Max => "is for numbers, Text and Timestamp",
            Self::Count | Self::Last => "is for every type",
        }
    }
}

/// What becomes of a bucket without a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// One without rows is left out.
    #[default]
    None,
    /// It is there, with null.
    Null,
    /// It has the value of the bucket before it; null before the first.
    Previous,
    /// It has 0.
    Zero,
}

impl FromStr for Fill {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::None,
            "null" => Self::Null,
            "previous" => Self::Previous,
            "zero" => Self::Zero,
            _ => return Err("must be none, null, previous or zero"),
        })
    }
}

/// Buckets on multiples of a step since 1970 (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    pub range: Range,
    pub step: TimeDelta,
    /// When the first one begins: at or before the range does.
    pub first: DateTime<Utc>,
    pub count: i64,
}

impl Buckets {
    /// # Errors
    /// There would be too many of them.
    pub fn of(range: Range, text: &str) -> Result<Self, QueryError> {
        let refused = |rule: String| QueryError::parameter("step", text, rule);
        let length: DurationText =
            text.parse().map_err(|_| refused("must be a time such as 30s, 5m, 1h or 1d".into()))?;
        let micros = i64::try_from(length.length().as_micros()).unwrap_or(i64::MAX);
        let (from, to) = (range.from.timestamp_micros(), range.to.timestamp_micros());
        let first = from - from.rem_euclid(micros);
        // Rounded up: the last bucket may reach beyond the range.
        let count = (to.saturating_sub(first).saturating_sub(1)) / micros + 1;
        if count > MAX_POINTS {
            let least = u64::try_from((to - from) / MAX_POINTS / 1_000_000 + 1).unwrap_or(u64::MAX);
            return Err(refused(format!(
                "makes {count} points between from and to, and an answer has at most {MAX_POINTS}: give a step of {} or \
                 more, or a shorter range",
                whole(least)
            )));
        }
        let first = DateTime::from_timestamp_micros(first).ok_or_else(|| refused("reaches too far back".into()))?;
        Ok(Self { range, step: TimeDelta::microseconds(micros), first, count })
    }

    /// When each begins.
    pub fn times(&self) -> impl Iterator<Item = DateTime<Utc>> {
        let (first, step) = (self.first, self.step.num_microseconds().unwrap_or(i64::MAX));
        (0..self.count).filter_map(move |n| first.checked_add_signed(TimeDelta::microseconds(n.checked_mul(step)?)))
    }
}

/// Seconds in the largest unit that holds them whole, rounded up.
fn whole(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds.div_ceil(60)),
        7200..172_800 => format!("{}h", seconds.div_ceil(3600)),
        _ => format!("{}d", seconds.div_ceil(86_400)),
    }
}

/// The columns of a request: those named, separated by commas; else all that the aggregate means something for.
///
/// # Errors
/// The series has no such column, or the aggregate means nothing for it.
pub fn columns(
    series: &TimeSeries,
    named: Option<&str>,
    aggregate: Option<Aggregate>,
) -> Result<Vec<Column>, QueryError> {
    let takes = |column: &Column| aggregate.is_none_or(|aggregate| aggregate.takes(column.column_type));
    let known = || series.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(named) = named else {
        let all: Vec<Column> = series.columns.iter().filter(|column| takes(column)).cloned().collect();
        if let (Some(aggregate), true) = (aggregate, all.is_empty()) {
            let rule = format!("{}, and the series has no such column: it has {}", aggregate.needs(), known());
            return Err(QueryError::parameter("agg", word(aggregate), rule));
        }
        return Ok(all);
    };
    let mut columns: Vec<Column> = Vec::new();
    for name in named.split(',').map(str::trim) {
        let refused = |rule: String| QueryError::parameter("column", name, rule);
        let column = series.columns.iter().find(|column| column.name == name);
        let column = column.ok_or_else(|| refused(format!("is no column of the series: it has {}", known())))?;
        if let (Some(aggregate), false) = (aggregate, takes(column)) {
            let is = column.column_type.as_str();
            return Err(refused(format!("is {is}, and {} {}", word(aggregate), aggregate.needs())));
        }
        if columns.contains(column) {
            return Err(refused("is given a second time: give it once".to_owned()));
        }
        columns.push(column.clone());
    }
    Ok(columns)
}

fn word(aggregate: Aggregate) -> &'static str {
    match aggregate {
        Aggregate::Avg => "avg",
        Aggregate::Min => "min",
        Aggregate::Max => "max",
        Aggregate::Sum => "sum",
        Aggregate::Count => "count",
        Aggregate::Last => "last",
        Aggregate::Rate => "rate",
    }
}

/// Longest time for a page of an export.
pub const PAGE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> TimeSeries {
        let column = |(name, column_type): &(&str, ColumnType)| Column {
            name: (*name).to_owned(),
            column_type: *column_type,
            from: "1".to_owned(),
        };
        let columns = [("value", ColumnType::Double), ("unit", ColumnType::Text), ("n", ColumnType::BigInt)];
        TimeSeries {
            table: "t".to_owned(),
            columns: columns.iter().map(column).collect(),
            chunk_seconds: 86_400,
            retention_seconds: 604_800,
        }
    }

    fn range(from: &str, to: &str) -> Range {
        Range::of_all(Some(from), Some(to)).expect("a range")
    }

    fn names(named: Option<&str>, aggregate: Option<Aggregate>) -> Result<Vec<String>, String> {
        let columns = columns(&series(), named, aggregate).map_err(|e| e.to_string())?;
        Ok(columns.into_iter().map(|column| column.name).collect())
    }

    #[test]
    fn buckets_lie_on_the_epoch_and_cover_the_range() {
        let day = range("2026-01-01T10:30:00Z", "2026-01-01T12:00:00Z");
        let buckets = Buckets::of(day, "1h").expect("two");
        let times: Vec<String> = buckets.times().map(shown).collect();
        assert_eq!(times, ["2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"]);
        let longer = range("2026-01-01T10:30:00Z", "2026-01-01T12:00:00.000001Z");
        assert_eq!(Buckets::of(longer, "1h").expect("three").count, 3);
        assert_eq!(Buckets::of(range("1969-12-31T23:59:59Z", "1970-01-01T00:00:01Z"), "1h").expect("two").count, 2);
    }

    #[test]
    fn too_many_points_are_refused_with_the_way_out() {
        let day = range("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let refused = Buckets::of(day, "1s").expect_err("86 400").to_string();
        assert_eq!(
            refused,
            "step: '1s' makes 86400 points between from and to, and an answer has at most 10000: give a step of 9s or \
             more, or a shorter range"
        );
        assert!(Buckets::of(day, "9s").is_ok());
        let all = Range::of_all(None, None).expect("a range");
        assert!(Buckets::of(all, "1ms").expect_err("many").to_string().contains("give a step of"));
        for text in ["", "0s", "1 h", "5", "1w"] {
            assert!(Buckets::of(day, text).expect_err(text).to_string().contains("must be a time such as"), "{text}");
        }
    }

    #[test]
    fn columns_are_those_that_an_aggregate_means_something_for() {
        assert_eq!(names(None, None).expect("all"), ["value", "unit", "n"]);
        assert_eq!(names(None, Some(Aggregate::Avg)).expect("numbers"), ["value", "n"]);
        assert_eq!(names(None, Some(Aggregate::Last)).expect("all"), ["value", "unit", "n"]);
        assert_eq!(names(Some("n, value"), Some(Aggregate::Max)).expect("as named"), ["n", "value"]);
        let refused = names(Some("unit"), Some(Aggregate::Rate)).expect_err("a text");
        assert_eq!(refused, "column: 'unit' is Text, and rate is for Integer, BigInt, Double and Numeric");
        let unknown = names(Some("vale"), None).expect_err("unknown");
        assert_eq!(unknown, "column: 'vale' is no column of the series: it has value, unit, n");
        assert!(names(Some("n,n"), None).expect_err("twice").contains("second time"));
    }

    #[test]
    fn a_range_has_an_order_and_a_default() {
        let now = DateTime::from_timestamp(86_400, 0).expect("a time");
        let day = Range::of_a_day(None, None, now).expect("a day");
        assert_eq!((day.from.timestamp(), day.to.timestamp()), (0, 86_400));
        let refused = Range::of_a_day(Some("1970-01-03T00:00:00Z"), None, now).expect_err("backwards").to_string();
        assert!(refused.contains("must be before to, which is 1970-01-02T00:00:00Z"), "{refused}");
        assert!(Range::of_a_day(Some("yesterday"), None, now).is_err());
    }
}
