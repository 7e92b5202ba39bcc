//! What becomes of one claim.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use crds::registration::OnError;
use metrics::counter;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Ended, Writer};
use crate::bus::retry::Verdict;
use crate::bus::{BusError, Claim};
use crate::database::is_bad_data;
use crate::dead_letters::{self, Known, NewLetter};
use crate::event::StoredEvent;
use crate::registry::LoadedSeries;
use crate::time_series::batch::Batch;
use crate::time_series::program::Row;
use crate::time_series::{TSDB_WRITER, store};

/// Events as rows, and those that are none.
#[derive(Default)]
struct Made {
    /// With the place of each in the claim.
    rows: Vec<(usize, Row)>,
    failures: BTreeMap<usize, String>,
    too_old: u64,
}

impl Writer {
    /// Makes rows of a claim's events and commits them with its cursors, or says why not.
    pub(super) async fn handle(&mut self, mut claim: Claim) -> Result<Ended, BusError> {
        if let Some(message) = store::open_batch(&mut claim.tx, self.name(), &self.loaded.hash).await? {
            claim.tx.rollback().await?;
            return Ok(Ended::Halted(message));
        }
        let events = std::mem::take(&mut claim.events);
        let retention = TimeDelta::seconds(self.loaded.series.retention_seconds);
        let oldest = Utc::now().checked_sub_signed(retention).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let mut made = make(&self.loaded, &events, oldest);
        if self.careful {
            self.write_one_by_one(&mut claim, &mut made).await?;
        }
        if let Some(ended) = self.judge(&mut claim, &events, &made.failures).await? {
            // Undone at once: a transaction that is only dropped holds its locks a little longer.
            claim.tx.rollback().await?;
            return Ok(ended);
        }
        let (written, too_old) = (made.rows.len(), made.too_old);
        if !self.careful {
            self.write(&mut claim, made).await?;
        }
        claim.tx.commit().await?;
        self.careful = false;
        self.retry.settled(&claim.lanes);
        counter!("cornjacket_series_rows_total").increment(written as u64);
        counter!("cornjacket_series_too_old_total").increment(too_old);
        Ok(Ended::Committed)
    }

    async fn make_room(&mut self, rows: &[(usize, Row)]) -> Result<(), BusError> {
        let times: Vec<_> = rows.iter().map(|(_, row)| row.time).collect();
        let Some(partitions) = &mut self.partitions else { return Ok(()) };
        let made = partitions.ensure(&times).await?;
        if made > 0 {
            info!(series = self.loaded.spec.projection_type, made, "made partition(s) that rows need");
        }
        Ok(())
    }

    async fn write(&mut self, claim: &mut Claim, made: Made) -> Result<(), BusError> {
        if made.rows.is_empty() {
            return Ok(());
        }
        self.make_room(&made.rows).await?;
        let batch = Batch::of(&self.loaded.series, made.rows.into_iter().map(|(_, row)| row));
        let written = store::insert(&mut claim.tx, &self.insert, batch).await;
        if let Err(error) = &written {
            // A partition may be gone meanwhile, which is looked at anew; any other is about some row.
            self.careful = is_bad_data(error) && !lacks_partition(error);
        }
        Ok(written?)
    }

    /// Rows that the database refuses join the failures.
    async fn write_one_by_one(&mut self, claim: &mut Claim, made: &mut Made) -> Result<(), BusError> {
        self.make_room(&made.rows).await?;
        for (place, row) in std::mem::take(&mut made.rows) {
            sqlx::query("SAVEPOINT careful").execute(&mut *claim.tx).await?;
            let batch = Batch::of(&self.loaded.series, [row.clone()]);
            match store::insert(&mut claim.tx, &self.insert, batch).await {
                Ok(()) => made.rows.push((place, row)),
                Err(error) if is_bad_data(&error) && !lacks_partition(&error) => {
                    made.failures.insert(place, error.to_string());
                    sqlx::query("ROLLBACK TO SAVEPOINT careful").execute(&mut *claim.tx).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Decides what the failures of a batch mean; `None`: it may be committed.
    async fn judge(
        &mut self,
        claim: &mut Claim,
        events: &[StoredEvent],
        failures: &BTreeMap<usize, String>,
    ) -> Result<Option<Ended>, BusError> {
        if failures.is_empty() {
            return Ok(None);
        }
        let now = Instant::now();
        let mut failing: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for place in failures.keys() {
            failing.entry(claim.lanes[*place]).or_default().insert(events[*place].event_id);
        }
        let verdicts: Vec<_> = failing.iter().map(|(lane, ids)| self.retry.failed(*lane, ids, now)).collect();
        if verdicts.contains(&Verdict::Again) {
            counter!("cornjacket_series_retries_total").increment(1);
            return Ok(Some(Ended::Postponed));
        }
        for (place, cause) in failures {
            let event = &events[*place];
            if self.loaded.spec.on_error == OnError::Halt {
                return Ok(Some(Ended::Halt(format!("event {}: {cause}", event.event_id))));
            }
            warn!(
                event_id = %event.event_id, series = self.name(), cause,
                "event makes no row of a time series: it goes to the dead letters"
            );
            counter!("cornjacket_series_dead_letters_total").increment(1);
            let tried = self.retry.tried(claim.lanes[*place], event.event_id);
            let letter = letter(&self.loaded, event, cause, tried);
            dead_letters::store::write(&mut claim.tx, &[letter], Known::Renewed).await?;
        }
        Ok(None)
    }
}

/// Rows of events that are younger than `oldest`.
fn make(loaded: &LoadedSeries, events: &[StoredEvent], oldest: DateTime<Utc>) -> Made {
    let mut made = Made::default();
    for (place, event) in events.iter().enumerate() {
        match loaded.program.row(event) {
            Ok(Some(row)) if row.time < oldest => made.too_old += 1,
            Ok(Some(row)) => made.rows.push((place, row)),
            Ok(None) => {}
            Err(error) => {
                made.failures.insert(place, error.to_string());
            }
        }
    }
    made
}

fn letter<'a>(loaded: &'a LoadedSeries, event: &StoredEvent, cause: &str, tried: usize) -> NewLetter<'a> {
    let subject = &loaded.spec.projection_type;
    NewLetter {
        consumer: TSDB_WRITER,
        subject: Some(subject),
        event_id: Some(event.event_id),
        event_payload: event.envelope(),
        cause: format!("time series {subject}: {cause}"),
        retries: i32::try_from(tried).unwrap_or(i32::MAX),
        place: Some((event.shard, event.position)),
        definition: Some(&loaded.hash),
    }
}

/// `no partition of relation … found for row`, which has the code of a rule that a row breaks, and names none.
fn lacks_partition(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.code().as_deref() == Some("23514") && e.constraint().is_none())
}
