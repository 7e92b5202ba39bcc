//! One table is away for five seconds, as in a clumsy migration: everything waits, and nothing is lost.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool};

use super::verify::are_folded;
use super::{Kind, Running, turn};
use crate::harness::{eventually, fresh_database};

const AWAY: Duration = Duration::from_secs(5);

/// Takes tables away, one after the other.
async fn tables_are_away_for_five_seconds(kind: Kind, tables: &[&str]) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let running = Running::start(&format!("table-{}-{kind:?}", tables[0]), fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    for table in tables {
        rename(&pool, table, &format!("{table}_away")).await;
        tokio::time::sleep(AWAY).await;
        rename(&pool, &format!("{table}_away"), table).await;
        running.load.more(100).await;
        let accepted = running.load.counts();
        eventually(Duration::from_secs(10), || are_folded(&pool, &accepted)).await;
    }
    let outcome = running.load.finish().await;
    let refused = &outcome.refused;
    assert!(refused.keys().all(|status| [503, 429].contains(status)), "answers while away: {refused:?}");
    super::verify(&pool, &outcome).await;
}

async fn rename(pool: &PgPool, from: &str, to: &str) {
    eventually(Duration::from_secs(10), || {
        let statement = format!("ALTER TABLE {from} RENAME TO {to}");
        async move { sqlx::query(AssertSqlSafe(statement)).execute(pool).await }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_are_away_for_five_seconds_on_the_embedded_bus() {
    tables_are_away_for_five_seconds(Kind::Embedded, &["projections"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_are_away_for_five_seconds_on_kafka() {
    tables_are_away_for_five_seconds(Kind::Kafka, &["projections"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_are_away_for_five_seconds_on_the_embedded_bus() {
    tables_are_away_for_five_seconds(Kind::Embedded, &["bus_cursor"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_away_for_five_seconds_on_kafka() {
    tables_are_away_for_five_seconds(Kind::Kafka, &["bus_offset"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_store_is_away_for_five_seconds_on_the_embedded_bus() {
    tables_are_away_for_five_seconds(Kind::Embedded, &["event_store"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_store_is_away_for_five_seconds_on_kafka() {
    tables_are_away_for_five_seconds(Kind::Kafka, &["event_store"]).await;
}

/// The others that events pass on their way.
const OTHERS: [&str; 4] = ["outbox", "outbox_shard", "projection_progress", "registration"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_other_table_is_away_for_five_seconds_on_the_embedded_bus() {
    tables_are_away_for_five_seconds(Kind::Embedded, &OTHERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_other_table_is_away_for_five_seconds_on_kafka() {
    tables_are_away_for_five_seconds(Kind::Kafka, &OTHERS).await;
}
