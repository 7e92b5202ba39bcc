//! One table is away for five seconds, as in a clumsy migration: everything waits, and nothing is lost.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::{Kind, Running, turn};
use crate::harness::{eventually, fresh_database};

async fn a_table_is_away_for_five_seconds(kind: Kind, table: &str) {
    let mut turn = turn().await;
    let bus = turn.bus(kind);
    let running = Running::start(&format!("table-{table}-{kind:?}"), fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    let rename = async |from: String, to: String| {
        eventually(Duration::from_secs(10), || {
            let statement = format!("ALTER TABLE {from} RENAME TO {to}");
            let pool = &pool;
            async move { sqlx::query(AssertSqlSafe(statement)).execute(pool).await }
        })
        .await;
    };
    rename(table.to_owned(), format!("{table}_away")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    rename(format!("{table}_away"), table.to_owned()).await;
    running.load.more(100).await;
    running.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_are_away_for_five_seconds_on_the_embedded_bus() {
    a_table_is_away_for_five_seconds(Kind::Embedded, "projections").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_are_away_for_five_seconds_on_kafka() {
    a_table_is_away_for_five_seconds(Kind::Kafka, "projections").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_are_away_for_five_seconds_on_the_embedded_bus() {
    a_table_is_away_for_five_seconds(Kind::Embedded, "bus_cursor").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_away_for_five_seconds_on_kafka() {
    a_table_is_away_for_five_seconds(Kind::Kafka, "bus_offset").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_store_is_away_for_five_seconds_on_the_embedded_bus() {
    a_table_is_away_for_five_seconds(Kind::Embedded, "event_store").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_store_is_away_for_five_seconds_on_kafka() {
    a_table_is_away_for_five_seconds(Kind::Kafka, "event_store").await;
}
