//! What the other tests rely on.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::harness::{OwnPostgres, eventually, fresh_database, shared_kafka, topic_prefix};

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

#[tokio::test]
async fn the_shared_broker_takes_topics() {
    let brokers = shared_kafka().await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = format!("{}-events", topic_prefix());
    let wanted = [NewTopic::new(&topic, 3, TopicReplication::Fixed(1))];
    let made = admin.create_topics(&wanted, &AdminOptions::new()).await.unwrap();
    assert_eq!(made, [Ok(topic)]);
}
