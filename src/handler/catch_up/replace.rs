//! Puts rows that were built beside in the place of those served.
//!
//! With many rows that takes long. So that the group's batches need not stand still meanwhile, the rows served are taken out
//! of them first; what comes in meanwhile is read from the event store afterwards, as in any catch-up. Readers see the old
//! rows, as they were when they left the batches, until the new ones, which are further, are there.

use std::sync::Arc;

use super::hand_over::serve;
use super::{CatchUp, Step, end, lock};
use crate::bus::BusError;
use crate::bus::embedded::store as event_store;
use crate::handler::store::{self, Progress};
use crate::handler::{expire, history, letters};
use crate::projection::store as rows;
use crate::registry::LoadedProjection;

impl CatchUp {
    /// Takes the rows served out of the batches, folds to the store's head, and switches rows. The hand-over follows.
    pub(super) async fn replace(&mut self, loaded: &Arc<LoadedProjection>) -> Result<Step, BusError> {
        if !self.leave_batches(loaded).await? {
            return Ok(Step::Done);
        }
        let mut tx = self.pool.begin().await?;
        store::begin_replacing(&mut tx).await?;
        store::take_long(&mut tx).await?;
        let Some(mut progress) = lock(&mut tx, loaded).await?.filter(is_aside) else { return Ok(Step::Done) };
        let heads = event_store::heads(&self.ingestion).await?;
        let lost = match self.fold_to(&mut tx, loaded, &mut progress, &heads).await? {
            Ok(lost) => lost,
            Err(step) => return end(tx, step).await,
        };
        if let Some(seconds) = loaded.spec.retention_seconds {
            expire::drop_rebuilt(&mut tx, &progress.projection_type, seconds).await?;
        }
        rows::swap(&mut tx, &progress.projection_type).await?;
        letters::folded_anew(&mut tx, &progress, &loaded.spec.definition_hash()).await?;
        serve(loaded, &mut progress);
        store::save(&mut tx, &progress, None).await?;
        tx.commit().await?;
        history::tell(&progress, lost);
        self.attempts.remove(&progress.projection_type);
        self.changed.add(&progress.projection_type);
        Ok(Step::More)
    }

    /// Ends the feeding of the rows served, with batches kept out for this moment. `false`: it is no longer wanted.
    async fn leave_batches(&self, loaded: &Arc<LoadedProjection>) -> Result<bool, BusError> {
        let mut tx = self.pool.begin().await?;
        store::lock_group(&mut tx).await?;
        let Some(mut progress) = lock(&mut tx, loaded).await?.filter(|progress| progress.beside) else {
            return Ok(false);
        };
        if !is_aside(&progress) {
            progress.live_spec = None;
            store::save(&mut tx, &progress, None).await?;
            tx.commit().await?;
        }
        Ok(true)
    }
}

/// Whether rows are built beside those served, and the group feeds the latter no more.
fn is_aside(progress: &Progress) -> bool {
    progress.beside && progress.live_spec.is_none()
}
