//! How a table is cut along time: by PostgreSQL itself, or by TimescaleDB, which makes and drops chunks by itself. Everything
//! else is the same for both.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use crds::registration::TimeSeries;
use sqlx::PgPool;

use super::partitions::{self, Partition, Span};
use super::store::partitions as store;
use crate::database::within;

/// Longest time for partitions to be made or dropped; what waits for a lock is given up long before.
const DEADLINE: Duration = Duration::from_mins(1);

/// As the table was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Partitioned,
    Hypertable,
}

impl Layout {
    /// As `series_table` has it.
    pub fn named(name: &str) -> Self {
        if name == "hypertable" { Self::Hypertable } else { Self::Partitioned }
    }
}

/// The partitions of one table, as they were looked at last.
pub struct Partitions {
    pool: PgPool,
    table: String,
    chunk: TimeDelta,
    layout: Layout,
    /// `None`: to be looked at anew.
    known: Option<Vec<Partition>>,
}

impl Partitions {
    pub fn new(pool: PgPool, series: &TimeSeries, layout: Layout) -> Self {
        let chunk = TimeDelta::seconds(series.chunk_seconds);
        Self { pool, table: series.table.clone(), chunk, layout, known: None }
    }

    /// Sees to it that rows of these times have a place. Returns how many partitions were made for it.
    pub async fn ensure(&mut self, times: &[DateTime<Utc>]) -> Result<usize, sqlx::Error> {
        if self.layout == Layout::Hypertable || times.is_empty() {
            return Ok(0);
        }
        let known = match self.known.take() {
            Some(known) => known,
            None => within(DEADLINE, store::read(&self.pool, &self.table)).await?,
        };
        if partitions::missing(&known, times.iter().copied(), self.chunk).is_empty() {
            self.known = Some(known);
            return Ok(0);
        }
        let chunk = self.chunk;
        let plan = |there: &[Partition]| -> Vec<Span> { partitions::missing(there, times.iter().copied(), chunk) };
        within(DEADLINE, store::make(&self.pool, &self.table, &plan)).await
    }

    /// Drops what holds only rows from before a time. Returns how many partitions (or chunks) that were.
    pub async fn drop_before(&mut self, oldest: DateTime<Utc>) -> Result<usize, sqlx::Error> {
        if self.layout == Layout::Hypertable {
            return within(DEADLINE, store::drop_chunks(&self.pool, &self.table, oldest)).await;
        }
        let there = within(DEADLINE, store::read(&self.pool, &self.table)).await?;
        let past = partitions::past(&there, oldest);
        for partition in &past {
            within(DEADLINE, store::drop(&self.pool, &partition.name)).await?;
        }
        Ok(past.len())
    }
}
