//! Notes, now and then, how far the projections that the group feeds have come: `applied_through`. One that leaves the
//! group's batches later (a gap, another bus, another topic, removed and back) reads the event store from there on.
//!
//! What is noted is never more than what the rows hold. Embedded bus: the group's cursors, which move in the transaction
//! that writes the rows. Kafka: a shard's events are spread over partitions, of which most are silent, so that the last
//! position of a partition says little. Instead: (1) up to which position everything is published; (2) after that, where
//! every partition ends; (3) once the group has read all of them up to there, it has read up to those positions. A
//! projection that is live by then was so all the while, or was handed over meanwhile, which was further still: whoever
//! lost something left.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{BusChoice, route, store};
use crate::bus::embedded::store as event_store;
use crate::bus::kafka::{self, Offsets, Watermarks};
use crate::bus::{BusError, DEFAULT_TOPIC, EVENT_HANDLER};
use crate::database::within;
use crate::operate::Gate;
use crate::registry::Catalog;

/// How often it is noted.
const EVERY: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(20);
/// In rounds: ends that the group has not reached by then are looked up anew.
const PATIENCE: u32 = 12;

pub(super) struct Applied {
    pool: PgPool,
    ingestion: PgPool,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// Kafka, where that is the bus.
    watermarks: Option<Watermarks>,
    /// Open while a broker answers; on the embedded bus always.
    gate: Gate,
    mark: Option<Mark>,
    /// What was noted last: while nothing is published, no broker is asked.
    noted: Vec<i64>,
}

/// Positions that the group has read once it has come to these ends.
struct Mark {
    positions: Vec<i64>,
    ends: Offsets,
    age: u32,
}

impl Applied {
    pub fn new(
        pool: PgPool,
        ingestion: PgPool,
        bus: &BusChoice,
        catalog: watch::Receiver<Arc<Catalog>>,
        gate: Gate,
    ) -> Result<Self, BusError> {
        let watermarks = match bus {
            BusChoice::Embedded => {
                gate.open();
                None
            }
            BusChoice::Kafka(settings) => Some(Watermarks::new(settings)?),
        };
        Ok(Self { pool, ingestion, catalog, watermarks, gate, mark: None, noted: Vec::new() })
    }

    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let Some(ended) = stop.run_until_cancelled(within(DEADLINE, self.round())).await else { break };
            let failed = ended.err();
            if let Some(error) = failed.as_ref().filter(|_| !failing) {
                warn!(%error, "cannot note how far projections have come: trying again until it can");
            }
            failing = failed.is_some();
        }
        Ok(())
    }

    async fn round(&mut self) -> Result<(), BusError> {
        let projections: Vec<(String, String)> = {
            let catalog = self.catalog.borrow();
            catalog.projections.iter().map(|(name, loaded)| (name.clone(), loaded.spec.definition_hash())).collect()
        };
        let positions = match self.watermarks.clone() {
            None => Some(self.cursors().await?),
            Some(watermarks) => {
                self.ask(&watermarks).await?;
                self.read_through(&watermarks).await?
            }
        };
        if let Some(positions) = positions {
            let advanced = store::advance_applied(&self.pool, &positions, &projections).await?;
            debug!(advanced, "noted how far projections have come");
            self.noted = positions;
        }
        Ok(())
    }

    /// Embedded bus: how far the group has come.
    async fn cursors(&self) -> Result<Vec<i64>, BusError> {
        let heads = event_store::heads(&self.ingestion).await?;
        let cursors = event_store::EVENT_HANDLER.positions(&self.pool).await?;
        show(heads.iter().zip(&cursors).map(|(head, cursor)| head - cursor));
        Ok(cursors)
    }

    /// Kafka: whether a broker answers.
    async fn ask(&self, watermarks: &Watermarks) -> Result<(), BusError> {
        let asked = watermarks.ask(DEFAULT_TOPIC.to_owned()).await;
        match &asked {
            Ok(()) => self.gate.open(),
            Err(_) => self.gate.close("no Kafka broker answers"),
        }
        asked
    }

    /// Kafka: positions up to which the group has read everything, if some are known now.
    async fn read_through(&mut self, watermarks: &Watermarks) -> Result<Option<Vec<i64>>, BusError> {
        if self.mark.as_ref().is_none_or(|mark| mark.age >= PATIENCE) {
            self.mark = self.look(watermarks).await?;
        }
        let Some(mark) = &mut self.mark else { return Ok(None) };
        mark.age += 1;
        let read = kafka::offsets(&self.pool, EVENT_HANDLER).await?;
        show(mark.ends.iter().map(|(partition, end)| end - read.get(partition).copied().unwrap_or(0)));
        Ok(has_read(&read, &mark.ends).then(|| self.mark.take().map(|mark| mark.positions)).flatten())
    }

    async fn look(&self, watermarks: &Watermarks) -> Result<Option<Mark>, BusError> {
        // In this order: what is published by now is below ends that are looked up later.
        let read = kafka::offsets(&self.pool, EVENT_HANDLER).await?;
        let positions = event_store::published(&self.ingestion).await?;
        if positions == self.noted {
            return Ok(None);
        }
        let ends = watermarks.ends(self.topics(&read).await?).await?;
        Ok(holds(&ends, &read).then_some(Mark { positions, ends, age: 0 }))
    }

    /// Every topic that may hold events which the group has not read, and those that it has read.
    async fn topics(&self, read: &Offsets) -> Result<Vec<String>, BusError> {
        let readable = route::readable(&mut *self.pool.acquire().await?, EVENT_HANDLER).await?;
        let catalog = self.catalog.borrow();
        let registered = catalog.topics.iter().map(|topic| topic.topic_name.clone());
        let met = read.keys().map(|(topic, _)| topic.clone());
        let all = readable.into_iter().chain(registered).chain(met).chain([DEFAULT_TOPIC.to_owned()]);
        Ok(all.collect::<BTreeSet<_>>().into_iter().collect())
    }
}

/// How far the group is behind, in events, by the parts of the bus.
#[expect(clippy::cast_precision_loss, reason = "a gauge; far below 2^52")]
fn show(behind: impl Iterator<Item = i64>) {
    gauge!("cornjacket_handler_behind_events").set(behind.map(|events| events.max(0)).sum::<i64>() as f64);
}

/// Whether what was read is in these topics: a topic that is gone, or was made again and is shorter now, may have taken
/// messages with it that the group has not read, and says nothing of what it has.
fn holds(ends: &Offsets, read: &Offsets) -> bool {
    read.iter().all(|(partition, next)| *next <= ends.get(partition).copied().unwrap_or(0))
}

/// Whether every partition was read up to its end. One without messages need not have been met.
fn has_read(read: &Offsets, ends: &Offsets) -> bool {
    ends.iter().all(|(partition, end)| *end <= read.get(partition).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(of: &[(&str, i32, i64)]) -> Offsets {
        of.iter().map(|(topic, partition, offset)| (((*topic).to_owned(), *partition), *offset)).collect()
    }

    #[test]
    fn positions_count_once_every_partition_of_every_topic_is_read_to_its_end() {
        let ends = offsets(&[("a", 0, 10), ("a", 1, 0), ("b", 0, 3)]);
        for (what, read, expected) in [
            ("nothing is read", offsets(&[]), false),
            ("one partition is behind", offsets(&[("a", 0, 9), ("b", 0, 3)]), false),
            ("one topic was never met", offsets(&[("a", 0, 10)]), false),
            ("an empty partition was never met", offsets(&[("a", 0, 10), ("b", 0, 3)]), true),
            ("read further since", offsets(&[("a", 0, 12), ("a", 1, 1), ("b", 0, 3)]), true),
        ] {
            assert_eq!(has_read(&read, &ends), expected, "{what}");
        }
    }

    #[test]
    fn a_topic_that_is_gone_or_shorter_than_what_was_read_says_nothing() {
        let ends = offsets(&[("a", 0, 10)]);
        assert!(holds(&ends, &offsets(&[("a", 0, 10), ("never", 0, 0)])));
        assert!(!holds(&ends, &offsets(&[("a", 0, 11)])));
        assert!(!holds(&ends, &offsets(&[("a", 0, 10), ("gone", 0, 1)])));
    }
}
