//! Letters whose events go into rows as they are, whatever came since: those of `latest`, which keeps what is newest; and,
//! where that was asked for, those that can no longer be put in their place.

use std::collections::{BTreeSet, HashMap};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Replays, Served, store};
use crate::dead_letters::EVENT_HANDLER;
use crate::dead_letters::replay::{Done, Pass, Requested, store as letters};
use crate::event::StoredEvent;
use crate::projection::store::{self as rows, Target};
use crate::projection::{Folded, Late, Row, RowKey};

/// A letter's event, and the row that it belongs to.
struct Due<'l> {
    letter: &'l Requested,
    event: StoredEvent,
    key: String,
}

impl Replays {
    /// Replays letters (of these lanes only, if they are given) in their order. `lost`: why they cannot be put in their
    /// place; those that do not say to append anyway fail with it. `None`: not now.
    pub(super) async fn late(
        &mut self,
        connection: &mut PgConnection,
        served: &Served,
        lanes: Option<&[String]>,
        lost: Option<&str>,
    ) -> Result<Option<Pass>, sqlx::Error> {
        let name = Some(served.name());
        let found = letters::requested(connection, EVENT_HANDLER, name, lanes, self.pace.events()).await?;
        let positions = self.positions(&found).await?;
        let ids: Vec<Uuid> = found.iter().map(|letter| letter.dlq_id).collect();
        if self.keep_out_others(connection, served).await?.is_none() || !letters::lock(connection, &ids).await? {
            return Ok(None);
        }
        let mut done = Done::default();
        let due: Vec<Due<'_>> =
            found.iter().filter_map(|letter| due(served, letter, &positions, lost, &mut done)).collect();
        let keys: BTreeSet<RowKey> = due.iter().map(|due| (0, due.key.clone())).collect();
        let subjects = std::slice::from_ref(&served.subject);
        let loaded = rows::load(connection, Target::Live, subjects, &keys.iter().collect::<Vec<_>>()).await?;
        self.pace.done();
        self.pace.weighed(found.len(), loaded.state_bytes);
        let late = if lost.is_some() { Late::Anyhow } else { Late::IfNewer };
        let changed = apply(served, &due, loaded.rows, late, &mut done);
        rows::write_anew(connection, subjects, &changed.iter().collect::<Vec<_>>()).await?;
        done.mark(connection, EVENT_HANDLER, Some(&served.hash)).await.map(Some)
    }

    /// Letters of earlier releases do not say where their events are.
    async fn positions(&self, found: &[Requested]) -> Result<HashMap<Uuid, i64>, sqlx::Error> {
        let unknown = found.iter().filter(|letter| letter.position.is_none());
        let unknown: Vec<Uuid> = unknown.filter_map(|letter| letter.event_id).collect();
        if unknown.is_empty() { Ok(HashMap::new()) } else { store::positions(&self.ingestion, &unknown).await }
    }
}

/// What is to be done about a letter; `None`: nothing, and it is noted why.
fn due<'l>(
    served: &Served,
    letter: &'l Requested,
    positions: &HashMap<Uuid, i64>,
    lost: Option<&str>,
    done: &mut Done,
) -> Option<Due<'l>> {
    if done.blocks(letter) {
        return None;
    }
    if let Some(cause) = lost.filter(|_| !letter.append) {
        done.failed(letter, cause.to_owned());
        return None;
    }
    let event = match event(letter, positions) {
        Ok(event) => event,
        Err(cause) => {
            done.failed(letter, cause);
            return None;
        }
    };
    match served.program().key(&event) {
        Ok(Some(key)) => return Some(Due { letter, event, key }),
        Ok(None) => done.replayed(letter.dlq_id, Some("the projection's filter leaves it out".to_owned())),
        Err(error) => done.failed(letter, format!("projection {}: {error}", served.name())),
    }
    None
}

/// Folds what is due, in order; returns the rows that changed.
fn apply(
    served: &Served,
    due: &[Due<'_>],
    mut rows: HashMap<RowKey, Row>,
    late: Late,
    done: &mut Done,
) -> HashMap<RowKey, Row> {
    let mut changed = HashMap::new();
    for Due { letter, event, key } in due {
        if done.blocks(letter) {
            continue;
        }
        let key = (0, key.clone());
        match served.program().fold_late(rows.get(&key), event, late) {
            Ok(Folded::Changed(row)) => {
                rows.insert(key.clone(), row.clone());
                changed.insert(key, row);
                let appended = || "applied last, as it was asked for".to_owned();
                done.replayed(letter.dlq_id, (late == Late::Anyhow).then(appended));
            }
            Ok(Folded::Seen | Folded::Stale) => {
                done.replayed(letter.dlq_id, Some("the row has a newer event".to_owned()));
            }
            Err(error) => done.failed(letter, format!("projection {}: {error}", served.name())),
        }
    }
    changed
}

/// The event in a letter.
pub(super) fn event(letter: &Requested, positions: &HashMap<Uuid, i64>) -> Result<StoredEvent, String> {
    let known = letter.event_id.and_then(|event_id| positions.get(&event_id).copied());
    // One that is known nowhere is before all others.
    let position = letter.position.or(known).unwrap_or(0);
    StoredEvent::from_envelope(&letter.event_payload, position)
        .map_err(|error| format!("the letter holds no event: {error}"))
}
