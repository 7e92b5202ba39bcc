//! Replays the handler's dead letters: puts events into rows that went on without them.
//!
//! A letter is about an event and a projection. `latest` takes the event where it is newer than what the row has. Other rows
//! are folded anew from the event store, since an old event must not be applied last: what is in the row, and the events
//! of the letters that were asked for, in store order. Most of that is read while batches go on; for the rest, and to write
//! the rows, they are kept out for a moment. Letters of a projection that is halted or being rebuilt wait for that.

mod anew;
mod history;
mod late;
mod made;
mod refold;
mod standing;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use self::standing::{Place, Standing, standing};
use super::notify::Changed;
use super::store::{self as progress, Progress};
use crate::bus::embedded::store as event_store;
use crate::dead_letters::EVENT_HANDLER;
use crate::dead_letters::replay::{Consumer, Pass, store as letters};
use crate::pace::Pace;
use crate::projection::{Program, Subject};

/// Letters that one pass over a projection begins with: at first, since what states weigh is not known yet, and at most.
const FIRST: i64 = 100;
const LETTERS: i64 = 1_000;
/// Of a pass: where a projection has a key of its own, it may read the whole event store. Each page has a deadline too.
const DEADLINE: Duration = Duration::from_hours(6);

pub(super) struct Replays {
    pub pool: PgPool,
    /// The database of the event store, read only.
    pub ingestion: PgPool,
    pub kafka: bool,
    changed: Changed,
    pace: Pace,
    programs: HashMap<String, Arc<Program>>,
}

/// A projection whose letters can be replayed now.
struct Served {
    progress: Progress,
    place: Place,
    /// Hash of its definition.
    hash: String,
    subject: Subject,
}

impl Served {
    fn name(&self) -> &str {
        &self.progress.projection_type
    }

    fn program(&self) -> &Program {
        &self.subject.program
    }

    /// Positions (by shard) after which the rows begin; `None`: where that is was not noted.
    fn begins_after(&self) -> Option<Vec<i64>> {
        match &self.progress.begins_after {
            None => Some(vec![0; crate::event::SHARDS]),
            Some(noted) if noted.is_empty() => None,
            Some(noted) => Some(noted.clone()),
        }
    }
}

impl Replays {
    pub fn new(pool: PgPool, ingestion: PgPool, kafka: bool, changed: Changed) -> Self {
        Self { pool, ingestion, kafka, changed, pace: Pace::careful(LETTERS, FIRST), programs: HashMap::new() }
    }

    /// Replays some letters of one projection: one transaction.
    async fn some(&mut self, name: &str) -> Result<Pass, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        if !letters::alone(&mut tx, EVENT_HANDLER).await? {
            return Ok(Pass { waiting: true, ..Pass::default() });
        }
        let found = progress::progress_of(&mut tx, name).await?;
        let place = match standing(found.as_ref(), self.kafka) {
            Standing::Served(place) => place,
            Standing::Waits => return Ok(Pass { waiting: true, ..Pass::default() }),
            Standing::Gone => {
                let cause = format!(
                    "the projection {name} is not declared any more: discard the letter, or declare the projection again"
                );
                let failed = letters::failed_subject(&mut tx, EVENT_HANDLER, name, &cause).await?;
                tx.commit().await?;
                return Ok(Pass { failed, ..Pass::default() });
            }
        };
        let Some(served) = found.and_then(|progress| self.served(progress, place)) else {
            return Ok(Pass { waiting: true, ..Pass::default() });
        };
        let source = served.program().source();
        let types = (&source.event_types[..], &source.prefixes[..]);
        let foreign = letters::failed_types(&mut tx, EVENT_HANDLER, name, types).await?;
        if foreign > 0 {
            tx.commit().await?;
            return Ok(Pass { failed: foreign, ..Pass::default() });
        }
        let pass = if served.program().keeps_newest() {
            self.late(&mut tx, &served, None, None).await?
        } else {
            self.refold(&mut tx, &served).await?
        };
        self.end(tx, pass, name).await
    }

    /// Commits what was done; what changed nothing is undone.
    async fn end(
        &mut self,
        tx: Transaction<'_, Postgres>,
        pass: Option<Pass>,
        name: &str,
    ) -> Result<Pass, sqlx::Error> {
        let Some(pass) = pass else {
            // Something else has changed meanwhile: the next pass sees it.
            tx.rollback().await?;
            return Ok(Pass { waiting: true, ..Pass::default() });
        };
        tx.commit().await?;
        if pass.replayed > 0 {
            self.changed.add(name);
        }
        Ok(pass)
    }

    /// The projection with its definition compiled; `None` where it does not compile: it leaves the batches then.
    fn served(&mut self, progress: Progress, place: Place) -> Option<Served> {
        let hash = progress.live_hash.clone()?;
        let spec = progress.live_spec.as_ref()?;
        if !self.programs.contains_key(&hash) {
            self.programs.clear();
            self.programs.insert(hash.clone(), Arc::new(Program::compile(spec).ok()?));
        }
        let program = self.programs.get(&hash)?.clone();
        let subject =
            Subject { projection_type: progress.projection_type.clone(), program, applied_through: Vec::new() };
        Some(Served { progress, place, hash, subject })
    }

    /// Keeps everybody else from the rows until the transaction ends. Returns up to which positions (by shard) they hold
    /// everything, at least; `None`: the projection is no longer what it was.
    async fn keep_out_others(
        &self,
        connection: &mut PgConnection,
        served: &Served,
    ) -> Result<Option<Vec<i64>>, sqlx::Error> {
        // Also where no batch feeds the rows now: one that began before they left the batches may still write them.
        progress::lock_group(connection).await?;
        let now = match served.place {
            Place::Batches => progress::progress_of(connection, served.name()).await?,
            Place::EventStore => progress::lock_progress_of(connection, served.name()).await?,
        };
        let same = |now: &Progress| {
            standing(Some(now), self.kafka) == Standing::Served(served.place)
                && now.live_hash.as_ref() == Some(&served.hash)
                && now.begins_after == served.progress.begins_after
        };
        match now.filter(same) {
            Some(now) => self.handled(&now, served.place).await.map(Some),
            None => Ok(None),
        }
    }

    /// Positions (by shard) up to which the rows hold everything, at least.
    async fn handled(&self, progress: &Progress, place: Place) -> Result<Vec<i64>, sqlx::Error> {
        Ok(match place {
            Place::EventStore => progress.cursors.clone(),
            Place::Batches if self.kafka => progress.applied_through.clone(),
            Place::Batches => {
                let read = event_store::EVENT_HANDLER.positions(&self.pool).await?;
                read.iter().zip(&progress.applied_through).map(|(read, applied)| *read.max(applied)).collect()
            }
        })
    }
}

impl Consumer for Replays {
    fn name(&self) -> &'static str {
        EVENT_HANDLER
    }

    async fn pass(&mut self) -> Result<Pass, sqlx::Error> {
        let names = letters::subjects(&mut *self.pool.acquire().await?, EVENT_HANDLER).await?;
        let mut all = Pass::default();
        for name in names {
            all = all.and(self.some(&name).await?);
        }
        Ok(all)
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }

    fn failed(&mut self) {
        self.pace.failed();
    }
}
