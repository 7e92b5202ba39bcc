//! Buckets that have no value, filled as asked: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::request::{Buckets, Fill};
use super::{Point, Value};

/// The points of an answer, in order of time. `found` are the buckets that have rows.
pub fn filled(found: Vec<Point>, columns: &[Arc<str>], buckets: &Buckets, fill: Fill) -> Vec<Point> {
    if fill == Fill::None {
        return found;
    }
    let mut found: BTreeMap<_, _> = found.into_iter().map(|point| (point.time, point.values)).collect();
    let mut before: Vec<Value> = columns.iter().map(|_| null()).collect();
    let mut points = Vec::with_capacity(usize::try_from(buckets.count).unwrap_or(0));
    for time in buckets.times() {
        let empty = || columns.iter().map(|name| (name.clone(), null())).collect();
        let mut values: Vec<(Arc<str>, Value)> = found.remove(&time).unwrap_or_else(empty);
        for ((_, value), before) in values.iter_mut().zip(&mut before) {
            if value.get() == "null" {
                match fill {
                    Fill::Previous => *value = before.clone(),
                    Fill::Zero => *value = RawValue::from_string("0".to_owned()).unwrap_or_default(),
                    Fill::Null | Fill::None => {}
                }
            } else {
                before.clone_from(value);
            }
        }
        points.push(Point { time, values });
    }
    points
}

/// Also what [`Default`] of a raw value is.
fn null() -> Value {
    Value::default()
}

#[cfg(test)]
mod tests {
    use super::super::request::Range;
    use super::*;

    fn points(fill: Fill) -> String {
        let range = Range::of_all(Some("1970-01-01T00:00:00Z"), Some("1970-01-01T05:00:00Z")).expect("a range");
        let buckets = Buckets::of(range, "1h").expect("five");
        let times: Vec<_> = buckets.times().collect();
        let column: Arc<str> = "v".into();
        let point = |n: usize, value: &str| Point {
            time: times[n],
            values: vec![(column.clone(), RawValue::from_string(value.to_owned()).expect("JSON"))],
        };
        let found = vec![point(1, "7.50"), point(2, "null"), point(4, "8")];
        let filled = filled(found, std::slice::from_ref(&column), &buckets, fill);
        let text = |point: &Point| format!("{}={}", point.time.format("%H"), point.values[0].1.get());
        filled.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn gaps_are_left_or_filled_as_asked() {
        assert_eq!(points(Fill::None), "01=7.50 02=null 04=8");
        assert_eq!(points(Fill::Null), "00=null 01=7.50 02=null 03=null 04=8");
        assert_eq!(points(Fill::Previous), "00=null 01=7.50 02=7.50 03=7.50 04=8");
        assert_eq!(points(Fill::Zero), "00=0 01=7.50 02=0 03=0 04=8");
    }
}
