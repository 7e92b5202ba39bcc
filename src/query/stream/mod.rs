//! A projection as a stream: the newest state of every key that changed, intermediate ones coalesced.
//!
//! In: a selection and where to begin. Out: rows, each with an id that stands for everything delivered up to it (see
//! [`snapshot`]): a client that comes back with it gets what is new since, no row twice and none left out. Rows
//! come in the order of the transactions that wrote them; all rows of a snapshot, and what is new after minutes away,
//! in the order of their keys. A restart of PostgreSQL is waited out; after a crash of it streams start over, since
//! the last commits may be lost. Deletions are not told.

mod snapshot;
mod store;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::store::{Projection, Selection, was_ended};
use super::{Query, QueryError, failure};
use crate::operate::http::cursor;
use crate::pace::Pace;
use snapshot::{Scan, Seen, Snapshot};
use store::{Changes, Page, Scanned};

/// Most rows in a page, and rows of the first: what they weigh is not known yet.
const PAGE: i64 = 500;
const FIRST: i64 = 32;
/// A wake-up may be lost; this long at most does a change then wait.
const POLL: Duration = Duration::from_secs(1);
/// Changes within this time come in one page.
const COALESCE: Duration = Duration::from_millis(20);
/// Longest read of a page.
const READ: Duration = Duration::from_secs(10);

/// Where a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next change.
    Now,
    /// With all rows as they stand.
    Snapshot,
    /// Behind what an id of an earlier connection stands for.
    Behind(String),
}

/// What a stream delivers.
#[derive(Debug)]
pub enum Item {
    /// Nothing yet; the id to come back with.
    Position(String),
    /// A row and the id that includes it.
    Projection(Box<Projection>, String),
    /// The id that the client came with is not of this database as it stands: all rows follow.
    Reset,
}

/// How far the beginning of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// With the next change, and nothing has been passed over yet.
    Now,
    /// The place is to be told as soon as it is known which database it is of.
    Untold,
    Told,
}

/// What an id says.
#[derive(Clone, Serialize, Deserialize)]
struct Token {
    /// Which database the transactions are of.
    #[serde(rename = "d")]
    identity: String,
    #[serde(flatten)]
    place: Place,
}

/// How far a stream has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Place {
    #[serde(flatten)]
    seen: Seen,
    /// The pass over all rows that is under way; what it delivered is not in `seen` yet.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    scan: Option<Scan>,
}

/// A stream that is open. Counts against the bound on streams until it is dropped.
pub struct ProjectionStream {
    query: Query,
    selection: Selection,
    scope: String,
    /// Of which database `place` is; `None`: not known yet.
    identity: Option<String>,
    place: Place,
    beginning: Beginning,
    pending: VecDeque<Item>,
    pace: Pace,
    /// The last page was full: the next is read at once.
    more: bool,
    /// A scan looks at rows whether they match or not: those that do are too rare to be asked for.
    every_row: bool,
    failing: bool,
    news: watch::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl ProjectionStream {
    /// Opens a stream. `filters` is the text of the selection's filters: ids are valid for the same ones only.
    ///
    /// # Errors
    /// Too many streams, a bad id, a standby, or the database.
    pub async fn open(query: Query, selection: Selection, filters: &str, start: Start) -> Result<Self, QueryError> {
        let permit = query.stream_permit()?;
        let key = selection.aggregate_id.as_deref().unwrap_or_default();
        let scope = format!("stream\n{}\n{key}\n{filters}", selection.projection_type);
        let token: Option<Token> = match &start {
            Start::Behind(id) => Some(cursor::decode(&scope, id).map_err(|_| QueryError::BadEventId(id.clone()))?),
            _ => None,
        };
        if store::is_standby(query.projections()).await? {
            return Err(QueryError::Standby);
        }
        let news = query.projection_news(&selection.projection_type);
        let (identity, place) = token.map_or((None, Place::default()), |token| (Some(token.identity), token.place));
        let mut stream = Self {
            query,
            selection,
            scope,
            identity,
            place,
            beginning: if start == Start::Now { Beginning::Now } else { Beginning::Told },
            pending: VecDeque::new(),
            pace: Pace::careful(PAGE, FIRST),
            more: true,
            every_row: false,
            failing: false,
            news,
            _permit: permit,
        };
        if stream.beginning == Beginning::Now {
            let none = Scan { until: Seen::default(), after: String::new() };
            let page =
                store::scan(stream.query.projections(), &stream.selection, &Seen::default(), &none, 0, None).await?;
            stream.more = false;
            stream.recognize(page.identity, &page.now);
        }
        Ok(stream)
    }

    /// The next item; `None` when the service stops.
    pub async fn next(&mut self) -> Option<Item> {
        let stop = self.query.stop().clone();
        loop {
            if let Some(item) = self.pending.pop_front() {
                return Some(item);
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
        match timeout(READ, self.page()).await {
            Ok(Ok(())) => {
                if std::mem::take(&mut self.failing) {
                    info!(projection_type = self.selection.projection_type, "stream resumed");
                }
            }
            failed => {
                if !std::mem::replace(&mut self.failing, true) {
                    let cause = failure(failed);
                    warn!(projection_type = self.selection.projection_type, cause, "stream waits for the database");
                }
                self.pace.failed();
                self.more = false;
            }
        }
    }

    async fn page(&mut self) -> sqlx::Result<()> {
        let (pool, seen) = (self.query.projections(), &self.place.seen);
        let limit = self.pace.events();
        if let Some(scan) = &self.place.scan {
            let within = (!self.every_row).then(|| self.query.filtered_page());
            let page = match store::scan(pool, &self.selection, seen, scan, limit, within).await {
                Err(error) if !self.every_row && was_ended(&error) => {
                    self.every_row = true;
                    return Ok(());
                }
                page => page?,
            };
            self.weigh(page.weight);
            if self.recognize(page.identity, &page.now) {
                self.take_rows(page.rows);
            }
        } else {
            let Page { identity, now, weight, rows } = store::changes(pool, &self.selection, seen, limit).await?;
            self.weigh(weight);
            if self.recognize(identity, &now) {
                self.take_changes(rows, &now);
            }
        }
        Ok(())
    }

    /// The next page is to be no heavier than one may be.
    fn weigh(&mut self, (rows, bytes): (usize, usize)) {
        self.pace.done();
        self.pace.weighed_against(rows, bytes, usize::try_from(store::BYTES).unwrap_or(usize::MAX));
    }

    /// Whether a page is of the database that the stream's place is of.
    fn recognize(&mut self, found: Option<String>, now: &Snapshot) -> bool {
        // Also where no epoch has begun since a crash: what is written first in it is news.
        if self.beginning == Beginning::Now {
            self.beginning = Beginning::Untold;
            self.place.seen = now.seen();
            self.more = false;
        }
        self.more &= found.is_some();
        let Some(found) = found else { return false };
        match &self.identity {
            Some(known) if *known == found => true,
            Some(_) => {
                self.identity = Some(found);
                self.place = Place::default();
                self.pending.push_back(Item::Reset);
                self.more = true;
                false
            }
            None => {
                self.identity = Some(found);
                if std::mem::replace(&mut self.beginning, Beginning::Told) == Beginning::Untold {
                    self.pending.push_back(Item::Position(self.id()));
                }
                true
            }
        }
    }

    /// Takes over a page of the log: every row gets the id that includes it.
    fn take_changes(&mut self, changes: Changes, now: &Snapshot) {
        if self.place.seen.predates(changes.forgotten, now) {
            self.place.scan = Some(Scan { until: now.seen(), after: String::new() });
            self.more = true;
            return;
        }
        let next: Vec<_> = changes.due.iter().skip(1).map(|(xid, _)| *xid).collect();
        for (i, (xid, row)) in changes.due.into_iter().enumerate() {
            let unfinished = next.get(i).map_or(changes.cut, |next| *next == xid);
            self.place.seen = self.place.seen.advance(now, xid, unfinished.then_some(row.aggregate_id.as_str()));
            self.push(row);
        }
        if changes.cut {
            self.more = true;
            return;
        }
        self.more = changes.to.is_some();
        self.place.seen = changes.to.map_or_else(|| now.seen(), |to| self.place.seen.advance(now, to, None));
    }

    /// Takes over a page of a scan.
    fn take_rows(&mut self, scanned: Scanned) {
        for (key, row) in scanned.rows {
            if let Some(scan) = &mut self.place.scan {
                scan.after = key;
            }
            if let Some(row) = row {
                self.push(row);
            }
        }
        if scanned.end
            && let Some(scan) = self.place.scan.take()
        {
            self.place.seen = scan.until;
            self.every_row = false;
        }
        // A client that comes back while nothing matches goes on here.
        if self.pending.is_empty() {
            self.pending.push_back(Item::Position(self.id()));
        }
        self.more = true;
    }

    fn push(&mut self, row: Projection) {
        let id = self.id();
        self.pending.push_back(Item::Projection(Box::new(row), id));
    }

    /// What stands for the stream's place.
    fn id(&self) -> String {
        let identity = self.identity.clone().unwrap_or_default();
        cursor::encode(&self.scope, &Token { identity, place: self.place.clone() })
    }
}
