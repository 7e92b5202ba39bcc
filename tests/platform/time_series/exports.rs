//! Exports: every row once, as it comes, in the format that is asked for.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::world::{World, ago, shown};
use crate::harness::http;

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_every_row_once_in_either_format() {
    let world = World::start("export").await;
    world.declare_plain("export").await;
    let begin = ago(TimeDelta::hours(30));
    // More than two pages, over two partitions.
    let reading =
        |n: i64| (format!("d{}", n % 11), begin + TimeDelta::seconds(n * 20), json!({"value": n, "unit": "a,\"b\""}));
    world.post(&(0..5000).map(reading).collect::<Vec<_>>()).await;
    world.until_rows("export", 5000).await;

    let client = http::client();
    let url = world.query.url("/api/v1/timeseries/export/export");
    let answer = client.get(&url).send().await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    assert_eq!(answer.headers().get("content-length"), None, "it is a stream");
    let text = answer.text().await.expect("whole");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    let mut values: Vec<i64> = rows.iter().filter_map(|row| row["value"].as_i64()).collect();
    values.sort_unstable();
    assert_eq!(values, (0..5000).collect::<Vec<_>>());
    let places: Vec<_> = rows.iter().map(|row| (row["aggregate_id"].to_string(), row["time"].to_string())).collect();
    assert!(places.is_sorted());

    let csv =
        client.get(&url).header("accept", "text/csv").query(&[("aggregate_id", "d3")]).send().await.expect("an answer");
    assert_eq!(csv.headers()["content-type"], "text/csv; charset=utf-8");
    let text = csv.text().await.expect("whole");
    let lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines[0], "time,aggregate_id,event_id,value,unit");
    assert_eq!(lines.len() - 1, (0..5000).filter(|n| n % 11 == 3).count());
    assert!(lines[1].contains(",d3,") && lines[1].ends_with(",3,\"a,\"\"b\"\"\""), "{}", lines[1]);

    let to = shown(begin + TimeDelta::seconds(200));
    let some = client.get(&url).query(&[("to", to.as_str()), ("format", "csv"), ("column", "value")]).send().await;
    let text = some.expect("an answer").text().await.expect("whole");
    assert_eq!(text.lines().count(), 11, "{text}");

    let refused = client.get(&url).header("accept", "application/xml").send().await.expect("an answer");
    assert_eq!(refused.status(), 406);
    let unknown =
        http::get(&client, &world.query.url("/api/v1/timeseries/export/export?format=xml")).await.expect("an answer");
    assert_eq!(unknown.status, 400, "{}", unknown.body);
}
