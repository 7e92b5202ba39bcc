//! What can be set, with its defaults.

use std::time::Duration;

/// How the outbox works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections that write, each owned by one task. Default 3.
    pub writers: usize,
    /// A flush takes no further request once it holds this many rows. Default 500.
    pub flush_rows: usize,
    /// Or this many bytes of envelopes. Default 1 MiB.
    pub flush_bytes: usize,
    /// Events that may wait, all writers together. Default 20 000.
    pub queue_events: usize,
    /// Bytes of envelopes that may wait, all writers together. Default 64 MiB.
    pub queue_bytes: usize,
    /// How long events wait for a database that went away. Default 2 s.
    pub patience: Duration,
    /// Deadline of one statement. Default 5 s.
    pub statement_deadline: Duration,
    /// Deadline of connecting. Default 2 s.
    pub connect_deadline: Duration,
    /// After which a caller is told that there was no answer. Default 8 s.
    pub answer_deadline: Duration,
    /// Largest difference to the database's clock with which events are accepted. Default 10 s.
    pub max_clock_skew: Duration,
    /// How often an idle writer asks whether its connection still lives. Default 5 s.
    pub ping_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            writers: 3,
            flush_rows: 500,
            flush_bytes: 1 << 20,
            queue_events: 20_000,
            queue_bytes: 64 << 20,
            patience: Duration::from_secs(2),
            statement_deadline: Duration::from_secs(5),
            connect_deadline: Duration::from_secs(2),
            answer_deadline: Duration::from_secs(8),
            max_clock_skew: Duration::from_secs(10),
            ping_every: Duration::from_secs(5),
        }
    }
}
