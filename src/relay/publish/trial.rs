//! A topic that was set aside is tried with a few of its events; once they are confirmed it is like the others again.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;
use tracing::info;

use super::round::Routed;
use super::standing::Place;
use super::store::{self, Positioned};
use super::verdict::{Failure, Verdict};
use super::{HELD_BY_ANOTHER, Publisher};
use crate::bus::{BusError, DEFAULT_TOPIC};
use crate::event::SHARDS;

/// Rows of one shard with which a topic that was set aside is tried, and how long that may hold up the others.
const TRIAL: i64 = 20;
const TRIAL_DEADLINE: Duration = Duration::from_secs(1);

impl Publisher {
    /// Tries a topic that was set aside, beginning with its first row that waits. `true`: it is written again, and all
    /// that waits is to be published.
    pub(super) async fn trial(&mut self, topic: &str, (shard, position): Place) -> Result<bool, BusError> {
        self.producers.doubt(topic);
        // Before anything is locked: a topic that is known to be missing holds up nobody.
        let asked = self.producers.unwritable(&BTreeSet::from([topic])).await;
        let mut tx = self.pool.begin().await?;
        let only = [shard].into_iter().collect();
        if store::lock(&mut tx, only).await?.is_empty() {
            self.standings.later(topic, Instant::now() + HELD_BY_ANOTHER);
            return Ok(false);
        }
        let page = store::positioned(&mut tx, only, &vec![position - 1; SHARDS], TRIAL).await?;
        let routes = self.routes.clone();
        let goes = |row: &Positioned| routes.topic_for(&row.event_type).unwrap_or(DEFAULT_TOPIC) == topic;
        let own: Vec<Routed<'_>> =
            page.rows.iter().enumerate().filter(|(_, row)| goes(row)).map(|(at, row)| (at, row, topic)).collect();
        let verdict = match asked {
            Ok(refused) => match refused.get(topic) {
                Some((cause, refused)) => refusal(topic, &own, cause, *refused),
                None => self.deliver(&mut tx, &own, TRIAL_DEADLINE).await?,
            },
            Err(cause) => Verdict { outage: Some(cause), ..Verdict::default() },
        };
        let failed = self.judge_trial(&mut tx, topic, (shard, position), &page.rows, &verdict).await?;
        tx.commit().await?;
        Ok(!failed)
    }

    /// What a trial means for the topic. `true`: it still waits.
    async fn judge_trial(
        &mut self,
        connection: &mut PgConnection,
        topic: &str,
        place: Place,
        rows: &[Positioned],
        verdict: &Verdict,
    ) -> Result<bool, BusError> {
        let now = Instant::now();
        if !verdict.failed.is_empty() {
            self.blame(connection, rows, &verdict.failed).await?;
        } else if verdict.outage.is_some() {
            self.standings.failed(topic, place, now);
        } else if !verdict.shrink.is_empty() || !verdict.letters.is_empty() {
            self.standings.later(topic, now);
        } else {
            info!(topic, "a topic that was set aside is written again");
            self.standings.back(topic);
            self.reach.forget();
            self.measure();
            return Ok(false);
        }
        Ok(true)
    }
}

/// The verdict without trying.
fn refusal(topic: &str, own: &[Routed<'_>], cause: &str, refused: bool) -> Verdict {
    let failure = |row| Failure { cause: cause.to_owned(), refused, row };
    let failed = own.first().map(|(at, _, _)| (topic.to_owned(), failure(*at)));
    Verdict { failed: failed.into_iter().collect(), ..Verdict::default() }
}
