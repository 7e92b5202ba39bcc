//! The event store as a stream: events in a stable order, each with an id that stands for everything up to it.
//!
//! In: what is wanted and where to begin. Out: events, in order within each shard and by acceptance across shards of
//! a page. A restart of PostgreSQL is waited out.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::merge::merge;
use super::{Beginning, Event, Positions, Wanted, store};
use crate::event::{SHARDS, shard_of};
use crate::operate::http::cursor;
use crate::pace::Pace;
use crate::query::{Query, QueryError, failure};

/// A wake-up may be lost; this long at most does an event then wait.
const POLL: Duration = Duration::from_secs(1);
/// Events within this time come in one page.
const COALESCE: Duration = Duration::from_millis(20);
/// Most events in a page, of all shards together, and in the first: what they weigh is not known yet.
const PAGE: i64 = 1024;
const FIRST: i64 = 64;
/// Bytes of payloads in a page, about.
const BYTES: usize = 16 * 1024 * 1024;
/// Longest read of a page.
const READ: Duration = Duration::from_secs(10);

/// Where a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    At(Beginning),
    /// Behind what an id of an earlier connection stands for.
    Behind(String),
}

/// What a stream delivers.
#[derive(Debug)]
pub enum Item {
    /// Nothing yet; the id to come back with.
    Position(String),
    /// An event and the id that includes it.
    Event(Box<Event>, String),
    /// All that was stored when the stream began has been delivered, and more was not asked for.
    End,
}

/// A stream that is open. Counts against the bound on streams until it is dropped.
pub struct EventStream {
    query: Query,
    wanted: Wanted,
    scope: String,
    positions: Positions,
    /// Where the stream ends; `None`: it does not.
    end: Option<Positions>,
    ended: bool,
    pending: VecDeque<Item>,
    pace: Pace,
    /// The last page was not the end: the next is read at once.
    more: bool,
    failing: bool,
    news: watch::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl EventStream {
    /// Opens a stream. Without `follow` it ends where the event store ends now.
    ///
    /// # Errors
    /// Too many streams, a bad id, or the database.
    pub async fn open(query: Query, wanted: Wanted, start: Start, follow: bool) -> Result<Self, QueryError> {
        let permit = query.stream_permit()?;
        let scope = format!("events\n{:?}\n{:?}", wanted.event_type, wanted.aggregate_id);
        let news = query.event_news();
        let positions = match start {
            Start::Behind(id) => cursor::decode(&scope, &id).map_err(|_| QueryError::BadEventId(id))?,
            Start::At(beginning) => store::beginning(query.events(), beginning).await?,
        };
        let end = if follow { None } else { Some(relevant(store::heads(query.events()).await?, &wanted)) };
        let position = Item::Position(cursor::encode(&scope, &positions));
        Ok(Self {
            query,
            wanted,
            scope,
            positions,
            end,
            ended: false,
            pending: [position].into(),
            pace: Pace::careful(PAGE, FIRST),
            more: true,
            failing: false,
            news,
            _permit: permit,
        })
    }

    /// The next item; `None` when the stream is at its end or the service stops.
    pub async fn next(&mut self) -> Option<Item> {
        let stop = self.query.stop().clone();
        loop {
            if let Some(item) = self.pending.pop_front() {
                return Some(item);
            }
            if self.ended {
                return None;
            }
            if self.end.as_ref().is_some_and(|end| self.positions.reached(end)) {
                self.ended = true;
                return Some(Item::End);
            }
            tokio::select! {
                () = self.read() => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Waits for news where the last page was the end, then reads a page. Cancelling it loses nothing.
    async fn read(&mut self) {
        if !self.more {
            tokio::select! {
                Ok(()) = self.news.changed() => sleep(COALESCE).await,
                () = sleep(POLL) => {}
            }
        }
        let shards = if self.wanted.aggregate_id.is_some() { 1 } else { i64::try_from(SHARDS).unwrap_or(1) };
        let per_shard = (self.pace.events() / shards).max(1);
        match timeout(READ, store::behind(self.query.events(), &self.positions, &self.wanted, per_shard)).await {
            Ok(Ok((found, bytes))) => {
                let events = found.iter().map(|found| found.events.len()).sum();
                self.pace.done();
                self.pace.weighed_against(events, bytes, BYTES);
                if std::mem::take(&mut self.failing) {
                    info!("stream of events resumed");
                }
                self.more = !found.is_empty();
                for (event, positions) in merge(found, &mut self.positions) {
                    let id = cursor::encode(&self.scope, &positions);
                    self.pending.push_back(Item::Event(Box::new(event), id));
                }
            }
            failed => {
                if !std::mem::replace(&mut self.failing, true) {
                    let cause = failure(failed);
                    warn!(cause, "stream of events waits for the database");
                }
                self.pace.failed();
                self.more = false;
            }
        }
    }
}

/// The positions that decide when a stream has reached its end: an aggregate's events are in one shard.
fn relevant(heads: Positions, wanted: &Wanted) -> Positions {
    let Some(aggregate_id) = &wanted.aggregate_id else { return heads };
    let shard = shard_of(aggregate_id);
    let mut own = Positions::default();
    own.reach(shard, heads.of(shard));
    own
}
