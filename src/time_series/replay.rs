//! Replays the dead letters of time series: the row is made by the definition as it is now, and written in the transaction that
//! marks the letter. Rows have no order among themselves, so it does not matter what was written meanwhile.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;

use super::batch::Batch;
use super::layout::{Layout, Partitions};
use super::program::Row;
use super::store::{self, statement};
use super::{TSDB_WRITER, group};
use crate::dead_letters::replay::{Outcome, Replay, Requested};
use crate::event::{Shard, StoredEvent};
use crate::registry::{Catalog, LoadedSeries};

pub(super) struct Replays {
    /// For partitions, which are made beside the transaction.
    pub pool: PgPool,
    pub catalog: watch::Receiver<Arc<Catalog>>,
}

impl Replay for Replays {
    const CONSUMER: &'static str = TSDB_WRITER;

    fn is_ready(&self) -> bool {
        self.catalog.borrow().loaded
    }

    async fn replay(&mut self, connection: &mut PgConnection, letter: &Requested) -> Result<Outcome, sqlx::Error> {
        let name = letter.subject.as_deref().unwrap_or_default();
        let Some(loaded) = self.catalog.borrow().series.get(name).cloned() else {
            let cause = format!("the time series {name} does not run: declare it again, or discard the letter");
            return Ok(Outcome::Failed(cause));
        };
        let event = match StoredEvent::from_envelope(&letter.event_payload, letter.position.unwrap_or(0)) {
            Ok(event) => event,
            Err(error) => return Ok(Outcome::Failed(format!("the letter holds no event: {error}"))),
        };
        match loaded.program.row(&event) {
            Err(error) => Ok(Outcome::Failed(format!("time series {name}: {error}"))),
            Ok(None) => Ok(Outcome::Replayed(Some("the time series does not take it".to_owned()))),
            Ok(Some(row)) => self.write(connection, &loaded, (row, letter.shard.zip(letter.position))).await,
        }
    }
}

impl Replays {
    async fn write(
        &self,
        connection: &mut PgConnection,
        loaded: &LoadedSeries,
        (row, place): (Row, Option<(Shard, i64)>),
    ) -> Result<Outcome, sqlx::Error> {
        let series = &loaded.series;
        let made = store::made(&self.pool, &series.table, &loaded.spec.projection_type).await?;
        let Some(made) = made.filter(|made| store::fits(made, series)) else {
            return Ok(Outcome::Failed("the table is not as declared yet: ask again in a moment".to_owned()));
        };
        if Utc::now() - row.time > TimeDelta::seconds(series.retention_seconds) {
            return Ok(Outcome::Replayed(Some("it is older than the retention, and was not written".to_owned())));
        }
        // A table that was made anew is filled from the event store: the writer comes to the event itself.
        if let Some(place) = place
            && store::has_read(connection, &group(&series.table), place).await? == Some(false)
        {
            return Ok(Outcome::Replayed(Some(
                "the series is being filled, and will come to the event itself".to_owned(),
            )));
        }
        // Where the table was made anew, it was filled from the event store.
        if store::has_row(connection, &series.table, &row).await? {
            return Ok(Outcome::Replayed(Some("its row is there already".to_owned())));
        }
        let layout = Layout::named(&made.layout);
        Partitions::new(self.pool.clone(), series, layout).ensure(&[row.time]).await?;
        store::insert(connection, &statement::insert(series), Batch::of(series, [row])).await?;
        Ok(Outcome::Replayed(None))
    }
}
