//! Which partitions rows need, and which are past their retention: pure.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

/// From (inclusive) and to (exclusive).
pub type Span = (DateTime<Utc>, DateTime<Utc>);

/// How many partitions are made ahead of the one that now is in.
pub const AHEAD: i32 = 2;

/// A partition that exists.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Partition {
    pub name: String,
    pub begins: DateTime<Utc>,
    pub ends: DateTime<Utc>,
}

/// The spans that are missing for rows of these times. Spans lie on multiples of the chunk since 1970; where partitions of
/// another length are in the way, they fill what is free between them.
pub fn missing(there: &[Partition], times: impl IntoIterator<Item = DateTime<Utc>>, chunk: TimeDelta) -> Vec<Span> {
    let mut spans: BTreeSet<Span> = BTreeSet::new();
    for time in times {
        let is_in = |span: &Span| span.0 <= time && time < span.1;
        if spans.range(..=(time, DateTime::<Utc>::MAX_UTC)).next_back().is_some_and(is_in) {
            continue;
        }
        if there.iter().any(|partition| is_in(&(partition.begins, partition.ends))) {
            continue;
        }
        if let Some(span) = free(there, time, chunk) {
            spans.insert(span);
        }
    }
    spans.into_iter().collect()
}

/// The span of the grid that a time is in, as far as no partition has it.
fn free(there: &[Partition], time: DateTime<Utc>, chunk: TimeDelta) -> Option<Span> {
    let begins = DateTime::from_timestamp(aligned(time.timestamp(), chunk.num_seconds()), 0)?;
    let ends = begins.checked_add_signed(chunk)?;
    let before = there.iter().map(|p| p.ends).filter(|end| *end <= time).max();
    let behind = there.iter().map(|p| p.begins).filter(|begin| *begin > time).min();
    Some((before.map_or(begins, |end| end.max(begins)), behind.map_or(ends, |begin| begin.min(ends))))
}

/// The multiple of `step` at or before.
pub fn aligned(seconds: i64, step: i64) -> i64 {
    seconds - seconds.rem_euclid(step)
}

/// Times whose partitions are to be there before rows come: now, and some chunks ahead.
pub fn ahead(now: DateTime<Utc>, chunk: TimeDelta) -> Vec<DateTime<Utc>> {
    (0..=AHEAD).filter_map(|n| now.checked_add_signed(chunk * n)).collect()
}

/// Those all of whose rows are older than the retention.
pub fn past(there: &[Partition], oldest: DateTime<Utc>) -> Vec<&Partition> {
    there.iter().filter(|partition| partition.ends <= oldest).collect()
}

/// The name of a partition: it begins then.
pub fn name(table: &str, begins: DateTime<Utc>) -> String {
    format!("{table}_{}", begins.format("%Y%m%d%H%M%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn partition(from: i64, to: i64) -> Partition {
        Partition { name: String::new(), begins: at(from), ends: at(to) }
    }

    fn spans(there: &[Partition], times: &[i64], chunk: i64) -> Vec<(i64, i64)> {
        let times = times.iter().map(|t| at(*t));
        let made = missing(there, times, TimeDelta::seconds(chunk));
        made.into_iter().map(|(from, to)| (from.timestamp(), to.timestamp())).collect()
    }

    #[test]
    fn rows_that_are_late_or_early_get_a_partition_on_the_grid() {
        assert_eq!(spans(&[], &[5, HOUR - 1], HOUR), [(0, HOUR)]);
        assert_eq!(spans(&[], &[HOUR, 0], HOUR), [(0, HOUR), (HOUR, 2 * HOUR)]);
        assert_eq!(spans(&[], &[-1], HOUR), [(-HOUR, 0)], "before 1970");
        assert_eq!(spans(&[partition(0, HOUR)], &[5, HOUR + 5], HOUR), [(HOUR, 2 * HOUR)]);
    }

    #[test]
    fn a_chunk_of_another_length_fills_what_is_free() {
        let there = [partition(2 * HOUR, 3 * HOUR), partition(5 * HOUR, 6 * HOUR)];
        assert_eq!(spans(&there, &[4 * HOUR], 24 * HOUR), [(3 * HOUR, 5 * HOUR)]);
        assert_eq!(spans(&there, &[0, 7 * HOUR], 24 * HOUR), [(0, 2 * HOUR), (6 * HOUR, 24 * HOUR)]);
        assert_eq!(spans(&there, &[2 * HOUR, 6 * HOUR - 1], 24 * HOUR), []);
    }

    #[test]
    fn no_two_spans_overlap_whatever_the_order_of_times() {
        for times in [[1, 90_000, 50], [90_000, 1, 50], [50, 90_000, 1]] {
            assert_eq!(spans(&[], &times, 86_400), [(0, 86_400), (86_400, 172_800)]);
        }
    }

    #[test]
    fn a_partition_is_past_when_its_youngest_row_is() {
        let there = [partition(0, HOUR), partition(HOUR, 2 * HOUR)];
        let names = |oldest| past(&there, at(oldest)).len();
        assert_eq!((names(HOUR - 1), names(HOUR), names(2 * HOUR)), (0, 1, 2));
        assert_eq!(name("t", at(86_400)), "t_19700102000000");
        assert_eq!(ahead(at(10), TimeDelta::seconds(HOUR)).last(), Some(&at(2 * HOUR + 10)));
    }
}
