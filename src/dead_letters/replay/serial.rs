//! Letters one after the other: for consumers whose replays need nothing of one another.

use std::collections::HashSet;

use sqlx::{Acquire, PgConnection, PgPool};
use tracing::warn;
use uuid::Uuid;

use super::store::{self, Lane, Requested};
use super::{Consumer, Pass};
use crate::database::is_bad_data;
use crate::pace::Pace;

/// Letters in one transaction.
const LETTERS: i64 = 200;

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its effect is in the transaction; with what there is to say about it.
    Replayed(Option<String>),
    /// It fails again, and why. What was done is undone.
    Failed(String),
}

/// How a consumer replays one letter.
pub trait Replay: Send + 'static {
    /// As in the column `consumer`.
    const CONSUMER: &'static str;

    /// Whether it can be done now: else letters wait.
    fn is_ready(&self) -> bool {
        true
    }

    /// Puts the effect into the transaction. What the database refuses about the data counts as failed; any other error
    /// undoes the whole transaction, and all is tried again.
    fn replay(
        &mut self,
        connection: &mut PgConnection,
        letter: &Requested,
    ) -> impl Future<Output = Result<Outcome, sqlx::Error>> + Send;

    /// What was replayed since the last call is committed; or is undone.
    fn settled(&mut self, committed: bool) {
        let _ = committed;
    }
}

/// Replays letters by [`Replay`].
pub struct Serial<R> {
    pool: PgPool,
    replay: R,
    pace: Pace,
}

impl<R: Replay> Serial<R> {
    /// `pool` is of the database that holds the letters and takes the effects.
    pub fn new(pool: PgPool, replay: R) -> Self {
        Self { pool, replay, pace: Pace::new(LETTERS) }
    }

    async fn some(&mut self) -> Result<Pass, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        if !store::alone(&mut tx, R::CONSUMER).await? {
            return Ok(Pass { waiting: store::any(&mut tx, R::CONSUMER).await?, ..Pass::default() });
        }
        let letters = store::requested(&mut tx, R::CONSUMER, None, None, self.pace.events()).await?;
        if letters.is_empty() {
            return Ok(Pass::default());
        }
        if !self.replay.is_ready() {
            return Ok(Pass { waiting: true, ..Pass::default() });
        }
        let ids: Vec<Uuid> = letters.iter().map(|letter| letter.dlq_id).collect();
        if !store::lock(&mut tx, &ids).await? {
            // Somebody has discarded one just now.
            return Ok(Pass { waiting: true, ..Pass::default() });
        }
        let done = self.each(&mut tx, &letters).await?;
        let pass = done.mark(&mut tx, R::CONSUMER, None).await?;
        tx.commit().await?;
        Ok(pass)
    }

    async fn each(&mut self, connection: &mut PgConnection, letters: &[Requested]) -> Result<Done, sqlx::Error> {
        let mut done = Done::default();
        for letter in letters {
            if done.blocks(letter) {
                continue;
            }
            let mut savepoint = connection.begin().await?;
            let outcome = match self.replay.replay(&mut savepoint, letter).await {
                Err(error) if is_bad_data(&error) => Outcome::Failed(format!("the database refuses it: {error}")),
                other => other?,
            };
            match outcome {
                Outcome::Replayed(note) => {
                    savepoint.commit().await?;
                    done.replayed(letter.dlq_id, note);
                }
                Outcome::Failed(cause) => {
                    savepoint.rollback().await?;
                    done.failed(letter, cause);
                }
            }
        }
        Ok(done)
    }
}

impl<R: Replay> Consumer for Serial<R> {
    fn name(&self) -> &'static str {
        R::CONSUMER
    }

    async fn pass(&mut self) -> Result<Pass, sqlx::Error> {
        let ended = self.some().await;
        self.replay.settled(ended.is_ok());
        if ended.is_ok() {
            self.pace.done();
        }
        ended
    }

    fn failed(&mut self) {
        self.pace.failed();
    }
}

/// What became of letters, until it is marked.
#[derive(Debug, Default)]
pub struct Done {
    replayed: Vec<(Uuid, Option<String>)>,
    failed: Vec<(Uuid, String)>,
    /// Lanes in which one failed, and which.
    blocked: Vec<(Lane, Uuid)>,
    lanes: HashSet<Lane>,
}

impl Done {
    pub fn replayed(&mut self, dlq_id: Uuid, note: Option<String>) {
        self.replayed.push((dlq_id, note));
    }

    pub fn failed(&mut self, letter: &Requested, cause: String) {
        self.failed_in(letter.lane(), letter.dlq_id, cause);
    }

    /// A letter of this lane failed.
    pub fn failed_in(&mut self, lane: Lane, dlq_id: Uuid, cause: String) {
        warn!(%dlq_id, cause, "a dead letter fails again");
        self.failed.push((dlq_id, cause));
        if self.lanes.insert(lane.clone()) {
            self.blocked.push((lane, dlq_id));
        }
    }

    /// Whether an earlier letter of the same lane has failed.
    pub fn blocks(&self, letter: &Requested) -> bool {
        !self.lanes.is_empty() && self.lanes.contains(&letter.lane())
    }

    /// Marks what became of the letters, and keeps back the rest of lanes in which one failed: they come later.
    pub async fn mark(
        self,
        connection: &mut PgConnection,
        consumer: &str,
        definition: Option<&str>,
    ) -> Result<Pass, sqlx::Error> {
        let replayed = store::replayed(connection, &self.replayed).await?;
        let failed = store::failed(connection, &self.failed, definition).await?;
        let held = store::hold(connection, consumer, &self.blocked).await?;
        Ok(Pass { replayed, failed, held, waiting: false })
    }
}
