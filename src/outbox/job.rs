//! What waits for a writer.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::budget::Reservation;
use super::{Entry, Outcome, RefusedBy};

/// One request's entries for one writer.
pub(super) struct Job {
    pub entries: Vec<Entry>,
    /// All or nothing.
    pub together: bool,
    pub queued_at: Instant,
    reply: oneshot::Sender<Vec<Outcome>>,
    _reservation: Arc<Reservation>,
}

impl Job {
    /// A job, and where its outcomes arrive.
    pub fn new(
        entries: Vec<Entry>,
        together: bool,
        reservation: Arc<Reservation>,
    ) -> (Self, oneshot::Receiver<Vec<Outcome>>) {
        let (reply, answer) = oneshot::channel();
        (Self { entries, together, queued_at: Instant::now(), reply, _reservation: reservation }, answer)
    }

    /// Tells the caller; one that stopped waiting is no failure.
    pub fn answer(self, outcomes: Vec<Outcome>) {
        let _ = self.reply.send(outcomes);
    }

    /// Refuses all entries.
    pub fn refuse(self, why: &RefusedBy) {
        let count = self.entries.len();
        self.answer(vec![Err(why.clone()); count]);
    }
}
