//! One page of the event store into the rows of one projection.

use std::collections::HashMap;
use std::sync::Arc;

use crds::registration::OnError;
use metrics::counter;
use sqlx::PgConnection;
use tracing::{error, warn};

use super::{CatchUp, Step};
use crate::bus::BusError;
use crate::bus::retry::DELAYS;
use crate::dead_letters::{self, Known};
use crate::event::StoredEvent;
use crate::handler::store::{self, Progress};
use crate::handler::{expire, letters};
use crate::projection::store::{self as rows, Target};
use crate::projection::{Subject, Working};
use crate::registry::LoadedProjection;

impl CatchUp {
    /// Folds events and writes the rows. `Some`: they were not, and what to do instead.
    pub(super) async fn fold(
        &mut self,
        connection: &mut PgConnection,
        loaded: &Arc<LoadedProjection>,
        progress: &Progress,
        events: &[StoredEvent],
    ) -> Result<Option<Step>, BusError> {
        let target = if progress.beside { Target::Beside } else { Target::Live };
        let subjects = [Subject {
            projection_type: progress.projection_type.clone(),
            program: loaded.program.clone(),
            applied_through: progress.cursors.clone(),
        }];
        let mut working = Working::plan(&subjects, events);
        let read = rows::load(connection, target, &subjects, &working.keys()).await?;
        self.pace.done();
        self.pace.weighed(events.len(), read.state_bytes);
        working.fold(read.rows);
        if !working.failures.is_empty() {
            let attempts = self.attempts.entry(progress.projection_type.clone()).or_insert(0);
            if let Some(delay) = DELAYS.get(*attempts) {
                *attempts += 1;
                return Ok(Some(Step::Again(*delay)));
            }
            if let Some(step) = give_up(connection, loaded, &working, events).await? {
                return Ok(Some(step));
            }
        }
        let changed = working.changed();
        rows::write(connection, target, &subjects, &changed).await?;
        if loaded.spec.retention_seconds.is_some() {
            let accepted: HashMap<_, _> = events.iter().map(|e| ((e.shard, e.position), e.ingested_at)).collect();
            let mut dates = Vec::with_capacity(changed.len());
            for (key, row) in &changed {
                dates.extend(accepted.get(&(row.shard, row.position)).map(|at| (key.1.as_str(), *at)));
            }
            expire::date(connection, target, &progress.projection_type, &dates).await?;
        }
        counter!("cornjacket_handler_caught_up_total").increment(events.len() as u64);
        Ok(None)
    }
}

/// Events that failed for the last time: dead letters, or a halt (`Some`).
async fn give_up(
    connection: &mut PgConnection,
    loaded: &LoadedProjection,
    working: &Working<'_>,
    events: &[StoredEvent],
) -> Result<Option<Step>, BusError> {
    let definition = loaded.spec.definition_hash();
    let mut letters = Vec::new();
    for failure in &working.failures {
        let event = &events[failure.event];
        let cause = failure.error.to_string();
        if loaded.spec.on_error == OnError::Halt {
            let message = format!("event {}: {cause}", event.event_id);
            error!(projection = loaded.spec.projection_type, cause = message, "projection halted");
            store::halt(connection, &loaded.spec.projection_type, &message).await?;
            return Ok(Some(Step::Done));
        }
        warn!(event_id = %event.event_id, projection = loaded.spec.projection_type, cause, "event cannot be folded: it goes to the dead letters");
        counter!("cornjacket_handler_dead_letters_total").increment(1);
        let retries = i32::try_from(DELAYS.len()).unwrap_or(i32::MAX);
        letters.push(letters::of(event, &loaded.spec.projection_type, &definition, &cause, retries));
    }
    dead_letters::store::write(connection, &letters, Known::Renewed).await?;
    Ok(None)
}
