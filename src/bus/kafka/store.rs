//! SQL of a Kafka consumer group: offsets are kept in PostgreSQL, beside the effects.

use sqlx::{PgConnection, PgPool};

use super::record::Partition;
use super::watermarks::Offsets;
use crate::event::SHARDS;

/// How far the group has come in one partition.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Place {
    pub topic: String,
    pub partition: i32,
    /// The next offset to read.
    pub next_offset: i64,
    /// Per shard, the last position applied from this partition.
    pub positions: Vec<i64>,
}

/// The group's places in partitions. A partition never read before starts at 0: where its oldest message is a later one,
/// that is a gap.
pub(super) async fn resume(pool: &PgPool, group: &str, partitions: &[Partition]) -> Result<Vec<Place>, sqlx::Error> {
    let (topics, numbers): (Vec<&str>, Vec<i32>) = partitions.iter().map(|(topic, number)| (&**topic, *number)).unzip();
    sqlx::query_as(
        "INSERT INTO bus_offset (consumer_group, topic, partition, next_offset)
         SELECT $1, p.topic, p.partition, 0 FROM unnest($2::text[], $3::int[]) AS p (topic, partition) ORDER BY 2, 3
         ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET updated_at = now()
         RETURNING topic, partition, next_offset, positions",
    )
    .bind(group)
    .bind(topics)
    .bind(numbers)
    .fetch_all(pool)
    .await
}

/// The next offset to read of every partition that the group has met.
pub async fn offsets(pool: &PgPool, group: &str) -> Result<Offsets, sqlx::Error> {
    let rows: Vec<(String, i32, i64)> =
        sqlx::query_as("SELECT topic, partition, next_offset FROM bus_offset WHERE consumer_group = $1")
            .bind(group)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().map(|(topic, partition, next)| ((topic, partition), next)).collect())
}

/// Locks the places of partitions, in one order, until the transaction ends. Another owner's batch is waited for.
pub(super) async fn lock(
    connection: &mut PgConnection,
    group: &str,
    partitions: &[(&str, i32)],
) -> Result<Vec<Place>, sqlx::Error> {
    let (topics, numbers): (Vec<&str>, Vec<i32>) = partitions.iter().copied().unzip();
    sqlx::query_as(
        "SELECT topic, partition, next_offset, positions FROM bus_offset
          WHERE consumer_group = $1 AND (topic, partition) IN (SELECT * FROM unnest($2::text[], $3::int[]))
          ORDER BY topic, partition FOR UPDATE",
    )
    .bind(group)
    .bind(topics)
    .bind(numbers)
    .fetch_all(connection)
    .await
}

/// Moves a partition's place.
pub(super) async fn advance(connection: &mut PgConnection, group: &str, place: &Place) -> Result<(), sqlx::Error> {
    debug_assert_eq!(place.positions.len(), SHARDS);
    sqlx::query(
        "UPDATE bus_offset SET next_offset = $4, positions = $5, updated_at = now()
          WHERE consumer_group = $1 AND topic = $2 AND partition = $3",
    )
    .bind(group)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(place.next_offset)
    .bind(&place.positions)
    .execute(connection)
    .await?;
    Ok(())
}
