//! Answers by buckets, against a straightforward computation.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::world::{World, ago, shown};
use crate::harness::http;

/// One reading: device, time in milliseconds, value.
type Reading = (String, i64, Option<f64>);

const MINUTE: i64 = 60_000;

/// Readings of two devices over three hours with gaps, nulls, falls and a time that two share.
fn readings(begin: i64) -> Vec<Reading> {
    let mut readings = Vec::new();
    let mut seed: i64 = 7;
    for minute in 0..180_i64 {
        for device in ["a", "b"] {
            seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
            let in_gap = (65..95).contains(&minute) || seed % 5 == 0;
            if in_gap {
                continue;
            }
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let value = (seed % 17 != 0).then_some((seed % 1000) as f64 / 4.0);
            readings.push((device.to_owned(), begin + minute * MINUTE + seed % 50_000, value));
        }
    }
    readings
}

/// What one bucket says of values in order of time, those without a value left out.
fn aggregated(agg: &str, values: &[(i64, f64)]) -> Option<f64> {
    let numbers = || values.iter().map(|(_, value)| *value);
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let count = values.len() as f64;
    match agg {
        "count" => Some(count),
        _ if values.is_empty() => None,
        "avg" => Some(numbers().sum::<f64>() / count),
        "sum" => Some(numbers().sum()),
        "min" => numbers().reduce(f64::min),
        "max" => numbers().reduce(f64::max),
        _ => values.last().map(|(_, value)| *value),
    }
}

/// Increase and milliseconds of the pairs whose later reading is in a bucket.
fn rates(readings: &[Reading], step: i64) -> BTreeMap<i64, Option<f64>> {
    let mut sums: BTreeMap<i64, (f64, i64)> = BTreeMap::new();
    let mut before: BTreeMap<&str, (i64, f64)> = BTreeMap::new();
    for (device, at, value) in readings {
        let sum = sums.entry(at - at.rem_euclid(step)).or_default();
        let Some(value) = value else { continue };
        if let Some((then, was)) = before.insert(device, (*at, *value)) {
            sum.0 += if *value >= was { value - was } else { *value };
            sum.1 += at - then;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let rate = |(increase, millis): (f64, i64)| (millis > 0).then(|| increase / (millis as f64 / 1000.0));
    sums.into_iter().map(|(bucket, sum)| (bucket, rate(sum))).collect()
}

/// The points that an answer should have: time in milliseconds and value.
fn expected(readings: &[Reading], agg: &str, fill: &str, (from, to): (i64, i64), step: i64) -> Vec<(i64, Option<f64>)> {
    let mut inside: Vec<Reading> = readings.iter().filter(|r| from <= r.1 && r.1 < to).cloned().collect();
    inside.sort_by_key(|reading| reading.1);
    let mut buckets: BTreeMap<i64, Vec<(i64, f64)>> = BTreeMap::new();
    for (_, at, value) in &inside {
        let bucket = buckets.entry(at - at.rem_euclid(step)).or_default();
        bucket.extend(value.map(|value| (*at, value)));
    }
    let found: BTreeMap<i64, Option<f64>> = if agg == "rate" {
        rates(&inside, step)
    } else {
        buckets.iter().map(|(bucket, values)| (*bucket, aggregated(agg, values))).collect()
    };
    if fill == "none" {
        return found.into_iter().collect();
    }
    let mut before = None;
    let mut points = Vec::new();
    let mut bucket = from - from.rem_euclid(step);
    while bucket < to {
        let value = found.get(&bucket).copied().flatten();
        points.push((
            bucket,
            match fill {
                "previous" => value.or(before),
                "zero" => value.or(Some(0.0)),
                _ => value,
            },
        ));
        before = value.or(before);
        bucket += step;
    }
    points
}

fn points(answer: &Value, column: &str) -> Vec<(i64, Option<f64>)> {
    let point = |point: &Value| {
        let time: DateTime<Utc> = point["time"].as_str().and_then(|text| text.parse().ok()).expect("a time");
        (time.timestamp_millis(), point[column].as_f64())
    };
    answer["points"].as_array().map(|points| points.iter().map(point).collect()).unwrap_or_default()
}

fn same(is: &[(i64, Option<f64>)], wanted: &[(i64, Option<f64>)]) -> bool {
    let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1.0),
        (a, b) => a == b,
    };
    is.len() == wanted.len() && is.iter().zip(wanted).all(|(is, wanted)| is.0 == wanted.0 && close(is.1, wanted.1))
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_hold_what_a_straightforward_computation_gives() {
    let world = World::start("buckets").await;
    world.declare_plain("buckets").await;
    let begin = ago(TimeDelta::hours(20)).timestamp_millis();
    let readings = readings(begin);
    let post = |(device, at, value): &Reading| {
        let time = DateTime::from_timestamp_millis(*at).expect("a time");
        (device.clone(), time, json!({"value": value, "unit": "kWh"}))
    };
    world.post(&readings.iter().map(post).collect::<Vec<_>>()).await;
    world.until_rows("buckets", readings.len()).await;
    let range = (begin + 7 * MINUTE + 500, begin + 170 * MINUTE);
    let time = |millis: i64| shown(DateTime::from_timestamp_millis(millis).expect("a time"));
    for (step, millis) in [("10m", 10 * MINUTE), ("1h", 60 * MINUTE), ("7m30s", 450_000)] {
        for agg in ["avg", "min", "max", "sum", "count", "last", "rate"] {
            for fill in ["none", "null", "previous", "zero"] {
                for device in [None, Some("a")] {
                    let of = device.map(|device| format!("&aggregate_id={device}")).unwrap_or_default();
                    let path = format!(
                        "/api/v1/timeseries/buckets?from={}&to={}&step={step}&agg={agg}&fill={fill}&column=value{of}",
                        time(range.0),
                        time(range.1)
                    );
                    let answer = world.get(&path).await;
                    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
                    let own: Vec<Reading> =
                        readings.iter().filter(|r| device.is_none_or(|device| r.0 == device)).cloned().collect();
                    let (is, wanted) = (points(&answer.body, "value"), expected(&own, agg, fill, range, millis));
                    assert!(wanted.len() > 2, "{path}");
                    assert!(same(&is, &wanted), "{path}\n{is:?}\n{wanted:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_finds_the_row_of_an_event_that_it_waits_for() {
    let world = World::start("own").await;
    world.declare_plain("own").await;
    let client = http::client();
    for value in 1..=10 {
        let event = json!({"event_type": "meter.reading", "aggregate_id": "a", "payload": {"value": value}});
        let accepted = http::post(&client, &world.ingest.url("/api/v1/events"), &event).await.expect("an answer");
        let id = accepted.body["event_id"].as_str().expect("an id");
        let answer = world
            .get(&format!("/api/v1/timeseries/own?step=1d&agg=max&column=value&after_event={id}&timeout=20s"))
            .await;
        let last = answer.body["points"].as_array().and_then(|points| points.last()).expect("a point");
        assert_eq!(last["value"].as_f64(), Some(f64::from(value)), "{}", answer.body);
    }
    let unknown = world.get("/api/v1/timeseries/own?after_event=0190b6c8-7f00-7000-8000-000000000001").await;
    assert_eq!(unknown.status, 404, "{}", unknown.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_columns_pages_and_refusals() {
    let world = World::start("asked").await;
    world.declare_plain("asked").await;
    let now = ago(TimeDelta::minutes(10));
    let reading =
        |n: i64| (format!("d{}", n % 3), now + TimeDelta::seconds(n), json!({"value": n, "unit": format!("u{n}")}));
    world.post(&(0..50).map(reading).collect::<Vec<_>>()).await;
    world.until_rows("asked", 50).await;

    let answer = world.get("/api/v1/timeseries/asked?step=1d&agg=last&aggregate_id=d1&column=unit,value").await;
    let last = answer.body["points"].as_array().and_then(|points| points.last()).expect("a point").clone();
    assert_eq!((&last["unit"], last["value"].as_f64()), (&json!("u49"), Some(49.0)), "{}", answer.body);
    let series = world.get("/api/v1/timeseries").await;
    assert_eq!(series.body["series"][0]["name"], "asked", "{}", series.body);
    assert_eq!(series.body["series"][0]["columns"][0], json!({"name": "value", "type": "Double"}));
    assert_eq!(series.body["series"][0]["status"], "running");

    // Pages have every row once, in order.
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = world.get(&format!("/api/v1/timeseries/asked?limit=7&cursor={cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let rows = page.body["rows"].as_array().expect("rows").clone();
        assert!(rows.len() <= 7);
        seen.extend(rows.iter().map(|row| (row["aggregate_id"].to_string(), row["time"].to_string())));
        match page.body["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen.len(), 50);
    assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");

    for (query, status, said) in [
        ("asked?step=1s", 400, "at most 10000: give a step of 9s or more"),
        ("asked?step=1h&agg=avg&column=unit", 400, "'unit' is Text, and avg is for"),
        ("asked?step=1h&agg=median", 400, "must be avg, min, max, sum, count, last or rate"),
        ("asked?step=1h&fill=linear", 400, "must be none, null, previous or zero"),
        ("asked?agg=avg", 400, "needs step"),
        ("asked?step=1h&limit=5", 400, "does not go with step"),
        ("asked?column=valu", 400, "it has value, unit"),
        ("asked?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "must be before to"),
        ("asked?limit=1001", 400, "from 1 to 1000"),
        ("askd?step=1h", 404, "did you mean asked?"),
        ("../projections/asked/d1", 404, "is a time series and keeps no state: GET /api/v1/timeseries/asked"),
    ] {
        let answer = world.get(&format!("/api/v1/timeseries/{query}")).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.body);
        assert!(answer.body["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{query}: {}", answer.body);
    }
}
