//! Puts a projection that has caught up back into the group's batches: one transaction, with batches kept out.

use std::sync::Arc;

use sqlx::PgConnection;
use tracing::info;

use super::cursors::{advance, behind};
use super::{CatchUp, NEAR, Step, end, lock};
use crate::bus::BusError;
use crate::bus::embedded::store as event_store;
use crate::handler::store::{self, Progress};
use crate::handler::{history, letters};
use crate::registry::LoadedProjection;

impl CatchUp {
    /// Folds to the store's head with batches kept out, and switches.
    pub(super) async fn hand_over(&mut self, loaded: &Arc<LoadedProjection>) -> Result<Step, BusError> {
        let mut tx = self.pool.begin().await?;
        store::lock_group(&mut tx).await?;
        let in_place = |progress: &Progress| !progress.beside;
        let Some(mut progress) = lock(&mut tx, loaded).await?.filter(in_place) else { return Ok(Step::Done) };
        let heads = event_store::heads(&self.ingestion).await?;
        if behind(&heads, &progress.cursors) > 2 * NEAR {
            return Ok(Step::More);
        }
        let lost = match self.fold_to(&mut tx, loaded, &mut progress, &heads).await? {
            Ok(lost) => lost,
            Err(step) => return end(tx, step).await,
        };
        self.switch(&mut tx, loaded, &mut progress).await?;
        tx.commit().await?;
        history::tell(&progress, lost);
        self.attempts.remove(&progress.projection_type);
        self.changed.add(&progress.projection_type);
        if !self.reads_on(loaded) {
            store::forget_reader(&self.ingestion, &progress.reader_name()).await?;
        }
        info!(projection = progress.projection_type, "projection caught up");
        Ok(Step::Done)
    }

    /// Folds all up to these heads, in the transaction of the caller. Answers with whether the beginning of the history was
    /// gone already; the inner error: events could not be folded, and what is to be done instead.
    pub(super) async fn fold_to(
        &mut self,
        connection: &mut PgConnection,
        loaded: &Arc<LoadedProjection>,
        progress: &mut Progress,
        heads: &[i64],
    ) -> Result<Result<bool, Step>, BusError> {
        let mut lost = false;
        while behind(heads, &progress.cursors) > 0 {
            let per_shard = self.per_shard();
            let page = self.read(loaded, &progress.cursors, per_shard).await?;
            lost |= history::look(&self.ingestion, progress, heads).await?;
            if let Some(step) = self.fold(connection, loaded, progress, &page.events).await? {
                return Ok(Err(step));
            }
            advance(&mut progress.cursors, &page, heads, per_shard);
        }
        Ok(Ok(lost))
    }

    async fn switch(
        &self,
        connection: &mut PgConnection,
        loaded: &Arc<LoadedProjection>,
        progress: &mut Progress,
    ) -> Result<(), BusError> {
        if progress.live_hash.is_none() {
            letters::folded_anew(connection, progress, &loaded.spec.definition_hash()).await?;
        }
        serve(loaded, progress);
        if self.reads_on(loaded) {
            progress.target_hash.clone_from(&progress.live_hash);
        } else {
            progress.target_hash = None;
            "live".clone_into(&mut progress.status);
        }
        Ok(store::save(connection, progress, None).await?)
    }
}

/// The rows served are of the wanted definition, as far as was read.
pub(super) fn serve(loaded: &LoadedProjection, progress: &mut Progress) {
    if progress.beside {
        // These were built from the first event on.
        progress.begins_after = None;
    }
    progress.beside = false;
    progress.behind = 0;
    progress.live_history_from = progress.history_from;
    progress.live_hash = Some(loaded.spec.definition_hash());
    progress.live_spec = Some(sqlx::types::Json(loaded.spec.clone()));
    progress.applied_through.clone_from(&progress.cursors);
}
