//! The broker, changed only by who rules: before each change it is asked whether the seat is still ours. A broker knows
//! nothing of seats; what is left of a race is put right by who rules then, at the next look.

use crate::effects::kafka::{BrokerError, Kafka, Outcomes};
use crate::effects::postgres::DatabaseError;
use crate::effects::postgres::guard::Guard;
use crate::topic::plan::{Alteration, Broker};
use crate::topic::wanted::Wanted;

/// Nothing, or not all, was changed. Transient.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("nothing is changed at the broker by a process that may not be the active one")]
    Seat(#[from] DatabaseError),
}

/// A broker, and the right to change it.
pub struct Rule {
    kafka: Kafka,
    guard: Guard,
}

impl Rule {
    pub const fn new(kafka: Kafka, guard: Guard) -> Self {
        Self { kafka, guard }
    }

    /// See [`Kafka::describe`].
    pub async fn describe(&self, names: impl Iterator<Item = &str>) -> Result<Broker, RuleError> {
        Ok(self.kafka.describe(names).await?)
    }

    /// See [`Kafka::create`].
    pub async fn create(&mut self, missing: &[&Wanted]) -> Result<Outcomes, RuleError> {
        if missing.is_empty() {
            return Ok(Outcomes::new());
        }
        self.guard.still_seated().await?;
        Ok(self.kafka.create(missing).await?)
    }

    /// See [`Kafka::add_partitions`].
    pub async fn add_partitions(&mut self, totals: &[(String, i32)]) -> Result<Outcomes, RuleError> {
        if totals.is_empty() {
            return Ok(Outcomes::new());
        }
        self.guard.still_seated().await?;
        Ok(self.kafka.add_partitions(totals).await?)
    }

    /// See [`Kafka::alter`].
    pub async fn alter(&mut self, changes: &[(String, Vec<Alteration>)]) -> Result<Outcomes, RuleError> {
        if changes.is_empty() {
            return Ok(Outcomes::new());
        }
        self.guard.still_seated().await?;
        Ok(self.kafka.alter(changes).await?)
    }

    /// See [`Kafka::delete`].
    pub async fn delete(&mut self, topic: &str) -> Result<(), RuleError> {
        self.guard.still_seated().await?;
        Ok(self.kafka.delete(topic).await?)
    }
}
