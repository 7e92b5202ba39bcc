//! A projection as a stream: the newest state of every key that changed, intermediate ones coalesced.
//!
//! In: a selection and where to begin. Out: rows, each with an id that stands for everything delivered up to it (see
//! [`snapshot`]): a client that comes back with it gets what is new since, no row twice and none left out. Rows
//! come in the order of the transactions that wrote them. A restart of PostgreSQL is waited out. Deletions are not
//! told.

mod snapshot;
mod store;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::store::{Projection, Selection};
use super::{Query, QueryError, cursor, failure};
use snapshot::Seen;
use store::Due;

/// Rows in a page.
const PAGE: i64 = 500;
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

/// What an id says.
#[derive(Clone, Serialize, Deserialize)]
struct Token {
    /// Which database the transactions are of.
    #[serde(rename = "d")]
    identity: String,
    #[serde(flatten)]
    seen: Seen,
}

/// A stream that is open. Counts against the bound on streams until it is dropped.
pub struct ProjectionStream {
    query: Query,
    selection: Selection,
    scope: String,
    identity: String,
    seen: Seen,
    pending: VecDeque<Item>,
    /// The last page was full: the next is read at once.
    more: bool,
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
        let server = store::server(query.projections()).await?;
        if server.standby {
            return Err(QueryError::Standby);
        }
        let news = query.projection_news(&selection.projection_type);
        let mut stream = Self {
            query,
            selection,
            scope,
            identity: server.identity,
            seen: Seen::default(),
            pending: VecDeque::new(),
            more: true,
            failing: false,
            news,
            _permit: permit,
        };
        match token {
            Some(token) if token.identity == stream.identity => stream.seen = token.seen,
            Some(_) => stream.pending.push_back(Item::Reset),
            None if start == Start::Now => stream.skip_to_now().await?,
            None => {}
        }
        Ok(stream)
    }

    async fn skip_to_now(&mut self) -> Result<(), QueryError> {
        let due = store::due(self.query.projections(), &self.selection, &self.seen, 0).await?;
        if let Some(highest) = due.highest {
            self.seen = self.seen.advance(&due.now, highest, None);
        }
        self.more = false;
        self.pending.push_back(Item::Position(self.id(&self.seen)));
        Ok(())
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
        let page = store::due(self.query.projections(), &self.selection, &self.seen, PAGE);
        match timeout(READ, page).await {
            Ok(Ok(due)) => {
                if std::mem::take(&mut self.failing) {
                    info!(projection_type = self.selection.projection_type, "stream resumed");
                }
                self.take(due);
            }
            failed => {
                if !std::mem::replace(&mut self.failing, true) {
                    let cause = failure(failed);
                    warn!(projection_type = self.selection.projection_type, cause, "stream waits for the database");
                }
                self.more = false;
            }
        }
    }

    /// Takes over a page: every row gets the id that includes it.
    fn take(&mut self, due: Due) {
        if self.seen.through > due.now.xmax {
            self.seen = Seen::default();
            self.more = true;
            self.pending.push_back(Item::Reset);
            return;
        }
        self.more = due.rows.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
        let next: Vec<_> = due.rows.iter().skip(1).map(|(xid, _)| *xid).collect();
        for (i, (xid, row)) in due.rows.into_iter().enumerate() {
            let unfinished = next.get(i).map_or(self.more, |n| *n == xid);
            self.seen = self.seen.advance(&due.now, xid, unfinished.then_some(row.aggregate_id.as_str()));
            let id = self.id(&self.seen);
            self.pending.push_back(Item::Projection(Box::new(row), id));
        }
        if let Some(highest) = due.highest
            && !self.more
        {
            self.seen = self.seen.advance(&due.now, highest, None);
        }
    }

    fn id(&self, seen: &Seen) -> String {
        cursor::encode(&self.scope, &Token { identity: self.identity.clone(), seen: seen.clone() })
    }
}
