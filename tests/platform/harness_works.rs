//! What the other tests rely on.

use std::time::Duration;

use crate::harness::{OwnPostgres, eventually, fresh_database};

#[tokio::test]
async fn every_test_has_a_database_of_its_own() {
    let (one, other) = (fresh_database().await, fresh_database().await);
    sqlx::query("CREATE TABLE mine (i int)").execute(&one.pool().await).await.unwrap();
    let there: bool =
        sqlx::query_scalar("SELECT to_regclass('mine') IS NOT NULL").fetch_one(&other.pool().await).await.unwrap();
    assert!(!there);
}

#[tokio::test]
async fn a_cluster_of_ones_own_keeps_its_data_over_a_crash() {
    let mut cluster = OwnPostgres::start_new("harness-crash");
    let database = cluster.fresh_database().await;
    let pool = database.pool().await;
    sqlx::query("CREATE TABLE kept (i int)").execute(&pool).await.unwrap();
    cluster.crash();
    cluster.start();
    eventually(Duration::from_secs(5), || sqlx::query("SELECT * FROM kept").execute(&pool)).await;
}
