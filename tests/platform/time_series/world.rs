//! A platform with time series, and what its tests ask.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::harness::http::{self, Answer};
use crate::harness::{Bus, Database, Platform, Process, eventually, fresh_database};

pub const SOON: Duration = Duration::from_mins(1);

/// Every role runs.
pub struct World {
    pub platform: Platform,
    /// Of the event store, and of what is registered.
    pub pool: PgPool,
    /// Of the time series.
    pub series: PgPool,
    pub ingest: Process,
    pub handle: Process,
    pub query: Process,
    _others: Vec<Process>,
}

/// A manifest of a time series of `meter.reading`, whose payload is not declared.
pub fn manifest(name: &str, spec: &str, table: &str) -> String {
    format!(
        "apiVersion: cornjacket.io/v1alpha1\nkind: Projection\nmetadata: {{name: {name}}}\nspec:\n  \
         source: {{eventTypes: [meter.reading]}}\n{spec}  timeSeries:\n    table: {name}\n{table}"
    )
}

/// The columns of most tests.
pub const COLUMNS: &str = "    columns:\n    - {name: value, type: Double, from: event.payload.value}\n    \
                           - {name: unit, type: Text, from: 'has(event.payload.unit) ? event.payload.unit : null'}\n";

impl World {
    pub async fn start(name: &str) -> Self {
        Self::on(name, Bus::Embedded, None).await
    }

    pub async fn on_bus(name: &str, bus: Bus) -> Self {
        Self::on(name, bus, None).await
    }

    /// With a database of its own for the time series.
    pub async fn apart(name: &str, database: &Database) -> Self {
        Self::on(name, Bus::Embedded, Some(database)).await
    }

    async fn on(name: &str, bus: Bus, series: Option<&Database>) -> Self {
        let name = format!("series-{name}");
        let mut platform = Platform::new(&name, fresh_database().await, bus);
        if let Some(database) = series {
            platform = platform.with_series_database(database);
        }
        let controllers = platform.controllers().ready().await;
        let (ingest, relay) = tokio::join!(platform.ingest().ready(), platform.relay("").ready());
        let (handle, query) = tokio::join!(platform.handle("").ready(), platform.query().ready());
        let pool = platform.database().pool().await;
        let series = match series {
            Some(database) => database.pool().await,
            None => pool.clone(),
        };
        Self { platform, pool, series, ingest, handle, query, _others: vec![controllers, relay] }
    }

    pub fn declare(&self, name: &str, manifest: &str) {
        std::fs::write(self.platform.resources().join(format!("{name}.yaml")), manifest).expect("our own directory");
    }

    /// Declares a series with the columns of most tests, and waits until it is written.
    pub async fn declare_plain(&self, name: &str) {
        self.declare(name, &manifest(name, "", COLUMNS));
        self.until_running(name).await;
    }

    pub async fn until_running(&self, name: &str) {
        self.until_condition(name, "Ready", "True", "").await;
    }

    /// Waits for a condition, of a reason where one is given; gives its message.
    pub async fn until_condition(&self, name: &str, condition: &str, status: &str, reason: &str) -> String {
        eventually(SOON, || async {
            let document: Option<Value> =
                sqlx::query_scalar("SELECT status FROM resource_status WHERE kind = 'Projection' AND name = $1")
                    .bind(name)
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(|e| e.to_string())?;
            let document = document.ok_or("no status")?;
            let conditions = document["conditions"].as_array().ok_or("no conditions")?;
            let is = conditions.iter().find(|c| c["type"] == condition).ok_or("no such condition")?;
            if is["status"] == status && (reason.is_empty() || is["reason"] == reason) {
                Ok(is["message"].as_str().unwrap_or_default().to_owned())
            } else {
                Err(is.to_string())
            }
        })
        .await
    }

    /// Accepts readings: device, time, payload.
    pub async fn post(&self, readings: &[(String, DateTime<Utc>, Value)]) {
        for some in readings.chunks(1000) {
            let event = |(device, time, payload): &(String, DateTime<Utc>, Value)| json!({"event_type": "meter.reading", "aggregate_id": device, "event_time": shown(*time), "payload": payload});
            let events = Value::Array(some.iter().map(event).collect());
            let url = self.ingest.url("/api/v1/events/batch");
            let answer = http::post(&http::client(), &url, &events).await.expect("an answer");
            assert!(answer.status < 300 && answer.body["refused"] == 0, "{}", answer.body);
        }
    }

    /// One reading of one device now.
    pub async fn post_value(&self, device: &str, value: Value) {
        self.post(&[(device.to_owned(), Utc::now(), json!({"value": value}))]).await;
    }

    pub async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM timeseries.\"{table}\"");
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.series).await.unwrap_or(-1)
    }

    pub async fn until_rows(&self, table: &str, wanted: usize) {
        let wanted = i64::try_from(wanted).expect("a count");
        eventually(SOON, || async {
            let is = self.count(table).await;
            if is == wanted { Ok(()) } else { Err(format!("{table} has {is} rows, not {wanted}")) }
        })
        .await;
    }

    pub async fn get(&self, path: &str) -> Answer {
        http::get(&http::client(), &self.query.url(path)).await.expect("an answer")
    }

    pub async fn text(&self, sql: String) -> String {
        let text: Option<String> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.series).await.expect("an answer");
        text.unwrap_or_default()
    }

    /// Bounds of a table's partitions, in order.
    pub async fn partitions(&self, table: &str) -> String {
        self.text(format!(
            "SELECT string_agg(c.relname, ' ' ORDER BY c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
              WHERE i.inhparent = 'timeseries.{table}'::regclass"
        ))
        .await
    }
}

/// As requests have it.
pub fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Some time ago, in whole milliseconds.
pub fn ago(length: TimeDelta) -> DateTime<Utc> {
    let millis = (Utc::now() - length).timestamp_millis();
    DateTime::from_timestamp_millis(millis).expect("a time")
}
