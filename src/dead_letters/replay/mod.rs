//! The loop that a consumer runs to replay its letters, beside its other work and on the database that holds them.
//!
//! A consumer that replays one letter after the other implements [`Replay`] and runs [`Serial`]; one that does it otherwise
//! implements [`Consumer`]. Any number of processes may run the loop of one consumer: one of them works at a time, under a
//! lock that ends with its transaction, so nothing is done twice and nothing overtakes.

mod serial;
pub mod store;

use std::convert::Infallible;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use self::serial::{Done, Outcome, Replay, Serial};
pub use self::store::Requested;
use super::CHANNEL;
use crate::database::channel::Listener;
use crate::database::{own, within};
use crate::lifecycle::{Lifecycle, Stage};

/// How often letters are looked for, whatever was notified.
const POLL: Duration = Duration::from_secs(5);
/// When letters are looked at again that were asked for and could not be replayed yet.
const AGAIN: Duration = Duration::from_secs(1);
/// Pauses after the first, second, … failure in a row.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(5)];
/// How often letters are counted.
const COUNT: Duration = Duration::from_secs(10);

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    pub replayed: u64,
    pub failed: u64,
    /// Letters that were asked for and are kept back, since an earlier one of their lane failed.
    pub held: u64,
    /// Some are asked for and must wait, for something else than this loop.
    pub waiting: bool,
}

impl Pass {
    /// Whether it changed anything: then there may be more.
    fn worked(self) -> bool {
        self.replayed + self.failed + self.held > 0
    }

    /// With what another one did.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            replayed: self.replayed + other.replayed,
            failed: self.failed + other.failed,
            held: self.held + other.held,
            waiting: self.waiting || other.waiting,
        }
    }
}

/// Who replays letters.
pub trait Consumer: Send + 'static {
    /// As in the column `consumer`.
    fn name(&self) -> &'static str;

    /// Replays some of the letters that were asked for. Whatever it does is in transactions: it may be cut short.
    fn pass(&mut self) -> impl Future<Output = Result<Pass, sqlx::Error>> + Send;

    /// A pass that takes longer is undone and tried again.
    fn deadline(&self) -> Duration {
        Duration::from_mins(10)
    }

    /// The last pass failed, or took too long: the next should be smaller.
    fn failed(&mut self) {}
}

/// Runs a consumer's loop as a task of a stage. `pool` is of the database that holds its letters.
pub fn start(lifecycle: &Lifecycle, stage: Stage, pool: &PgPool, consumer: impl Consumer) {
    let (pool, stop) = (own(pool, 2), lifecycle.token(stage));
    lifecycle.spawn(stage, "dead letters", run(consumer, pool, stop));
}

async fn run(mut consumer: impl Consumer, pool: PgPool, stop: CancellationToken) -> Result<(), Infallible> {
    let (mut listener, mut failures, mut counted) = (None, 0, None);
    while !stop.is_cancelled() {
        // Before it is looked: what is told while it is looked is heard after it.
        if listener.is_none() {
            listener = Listener::open(&pool, CHANNEL).await.ok();
        }
        let begun = Instant::now();
        let deadline = consumer.deadline();
        let pass = stop.run_until_cancelled(within(deadline, consumer.pass())).await;
        let pause = match pass {
            None => break,
            Some(Ok(pass)) => {
                failures = 0;
                record(consumer.name(), pass, begun.elapsed());
                // Others want the locks that it takes as well.
                if pass.worked() {
                    begun.elapsed().min(AGAIN)
                } else if pass.waiting {
                    AGAIN
                } else {
                    POLL
                }
            }
            Some(Err(error)) => {
                if failures == 0 {
                    warn!(%error, consumer = consumer.name(), "cannot replay dead letters: trying again until it can");
                }
                consumer.failed();
                counter!("cornjacket_dead_letters_failures_total", "consumer" => consumer.name()).increment(1);
                failures += 1;
                BACKOFF[(failures - 1).min(BACKOFF.len() - 1)]
            }
        };
        if counted.is_none_or(|at: Instant| at.elapsed() >= COUNT) {
            counted = Some(Instant::now());
            count(&pool, consumer.name()).await;
        }
        let heard = async {
            match &mut listener {
                Some(open) if pause == POLL => {
                    if open.next().await.is_err() {
                        listener = None;
                    }
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = heard => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

fn record(consumer: &'static str, pass: Pass, took: Duration) {
    for (outcome, count) in [("replayed", pass.replayed), ("failed", pass.failed), ("held", pass.held)] {
        if count > 0 {
            counter!("cornjacket_dead_letters_replays_total", "consumer" => consumer, "outcome" => outcome)
                .increment(count);
        }
    }
    if pass.worked() {
        histogram!("cornjacket_dead_letters_pass_seconds", "consumer" => consumer).record(took.as_secs_f64());
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
async fn count(pool: &PgPool, consumer: &'static str) {
    match within(POLL, super::store::forget(pool, consumer)).await {
        Ok(0) => {}
        Ok(letters) => debug!(consumer, letters, "forgot dead letters that were done with long ago"),
        Err(error) => debug!(%error, consumer, "cannot forget dead letters"),
    }
    let counts = match within(POLL, super::store::count(pool, consumer)).await {
        Ok(counts) => counts,
        Err(error) => return debug!(%error, consumer, "cannot count dead letters"),
    };
    for status in ["pending", "replayed", "discarded"] {
        let letters = counts.iter().find(|(counted, _)| counted == status).map_or(0, |(_, letters)| *letters);
        gauge!("cornjacket_dead_letters", "consumer" => consumer, "status" => status).set(letters as f64);
    }
}
