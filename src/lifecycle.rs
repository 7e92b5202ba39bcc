//! How a process starts its tasks, notices their death, and stops: in order, within a deadline.
//!
//! Tasks belong to a [`Stage`]. At SIGTERM or SIGINT the stages are stopped one after the other, so that what an
//! earlier stage still hands on is taken by the next. A second signal, or the deadline, ends the process at once. A
//! task that returns before it was asked to is a failure: the process shuts down with a non-zero exit code.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, warn};

/// In which order tasks stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Controllers: nothing new is registered.
    Control,
    /// What takes events in: listeners stop accepting, requests under way are answered.
    Accept,
    /// Outbox writers: what was taken in is committed.
    Store,
    /// Relays.
    Relay,
    /// Handlers.
    Handle,
    /// Queries, health and metrics: the last to go.
    Serve,
}

impl Stage {
    const ALL: [Self; 6] = [Self::Control, Self::Accept, Self::Store, Self::Relay, Self::Handle, Self::Serve];
}

struct Room {
    token: CancellationToken,
    tasks: TaskTracker,
}

struct Inner {
    rooms: [Room; Stage::ALL.len()],
    /// Cancelled at the first signal, when a task failed, or when [`Lifecycle::stop`] was called.
    stop: CancellationToken,
    /// Cancelled at the second signal.
    at_once: CancellationToken,
    failed: AtomicBool,
    cause: Mutex<Option<String>>,
}

/// Spawns tasks and ends them. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    pub fn new() -> Self {
        let rooms = Stage::ALL.map(|_| Room { token: CancellationToken::new(), tasks: TaskTracker::new() });
        let inner = Inner {
            rooms,
            stop: CancellationToken::new(),
            at_once: CancellationToken::new(),
            failed: AtomicBool::new(false),
            cause: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Listens for SIGTERM and SIGINT from now on: the first asks for an orderly shutdown, the second ends it.
    ///
    /// # Errors
    /// The signals cannot be listened for.
    pub fn watch_signals(&self) -> std::io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let inner = self.inner.clone();
        tokio::spawn(async move {
            for token in [&inner.stop, &inner.at_once] {
                tokio::select! {
                    _ = term.recv() => info!("SIGTERM"),
                    _ = int.recv() => info!("SIGINT"),
                }
                token.cancel();
            }
        });
        Ok(())
    }

    /// Cancelled when the stage is to stop.
    pub fn token(&self, stage: Stage) -> CancellationToken {
        self.inner.rooms[stage as usize].token.clone()
    }

    /// Runs a task of a stage. It must return when the stage's token is cancelled, and not before: an earlier
    /// return, an error or a panic shuts the process down.
    pub fn spawn<F, E>(&self, stage: Stage, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let this = self.clone();
        let room = &self.inner.rooms[stage as usize];
        let token = room.token.clone();
        room.tasks.spawn(async move {
            let inner = tokio::spawn(task.instrument(tracing::info_span!("task", of = name)));
            let cause = match inner.await {
                // Its work may end before its own stage stops, because what fed it has stopped.
                Ok(Ok(())) if token.is_cancelled() || this.inner.stop.is_cancelled() => return,
                Ok(Ok(())) => format!("{name} ended by itself"),
                Ok(Err(e)) => format!("{name} failed: {e:#}"),
                Err(panic) => format!("{name} died: {panic}"),
            };
            this.fail(cause);
        });
    }

    /// Shuts the process down as failed, once.
    pub fn fail(&self, cause: String) {
        error!(%cause, "shutting down: {cause}");
        self.inner.failed.store(true, Ordering::SeqCst);
        if let Ok(mut slot) = self.inner.cause.lock() {
            slot.get_or_insert(cause);
        }
        self.inner.stop.cancel();
    }

    /// Asks for an orderly shutdown, as SIGTERM does.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    /// Cancelled as soon as the process is to stop, before any stage is.
    pub fn stopping(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Waits for a signal, [`Lifecycle::stop`] or a failed task, then stops the stages in order.
    ///
    /// # Errors
    /// Says which task failed, or that the drain was cut short (by `deadline` or a second signal).
    pub async fn run(self, deadline: Duration) -> Result<(), ShutdownError> {
        self.inner.stop.cancelled().await;
        info!("draining, at most {} s", deadline.as_secs());
        let drained = tokio::select! {
            () = self.drain() => Ok(()),
            () = tokio::time::sleep(deadline) => Err(ShutdownError::Deadline(deadline)),
            () = self.inner.at_once.cancelled() => Err(ShutdownError::SecondSignal),
        };
        if let Err(e) = &drained {
            warn!("{e}");
        }
        if self.inner.failed.load(Ordering::SeqCst) {
            let cause = self.inner.cause.lock().ok().and_then(|mut c| c.take()).unwrap_or_default();
            return Err(ShutdownError::TaskFailed(cause));
        }
        drained
    }

    async fn drain(&self) {
        for (room, stage) in self.inner.rooms.iter().zip(Stage::ALL) {
            room.token.cancel();
            room.tasks.close();
            room.tasks.wait().await;
            tracing::debug!(?stage, "stage stopped");
        }
    }
}

/// How a shutdown went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    #[error("{0}")]
    TaskFailed(String),
    #[error("not drained within {} s: stopping at once; committed events are safe", .0.as_secs())]
    Deadline(Duration),
    #[error("second signal: stopping at once; committed events are safe")]
    SecondSignal,
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use super::*;

    const DRAIN: Duration = Duration::from_mins(1);
    const MOMENT: Duration = Duration::from_millis(20);

    /// A task that notes its stage when it is told to stop, and stops.
    fn obedient(lifecycle: &Lifecycle, stage: Stage, order: &Arc<Mutex<Vec<Stage>>>) {
        let (token, order) = (lifecycle.token(stage), Arc::clone(order));
        lifecycle.spawn(stage, "obedient", async move {
            token.cancelled().await;
            // The next stage would be noted by now, were it not to wait for this one.
            tokio::time::sleep(MOMENT).await;
            order.lock().expect("no panic").push(stage);
            Ok::<_, Infallible>(())
        });
    }

    #[tokio::test]
    async fn stages_stop_one_after_the_other() {
        let (lifecycle, order) = (Lifecycle::new(), Arc::default());
        for stage in Stage::ALL.into_iter().rev() {
            obedient(&lifecycle, stage, &order);
            obedient(&lifecycle, stage, &order);
        }
        lifecycle.stop();
        lifecycle.run(DRAIN).await.expect("drained");
        let twice: Vec<_> = Stage::ALL.into_iter().flat_map(|stage| [stage, stage]).collect();
        assert_eq!(*order.lock().expect("no panic"), twice);
    }

    #[tokio::test]
    async fn nothing_stops_before_it_is_asked_to() {
        let (lifecycle, order) = (Lifecycle::new(), Arc::default());
        obedient(&lifecycle, Stage::Accept, &order);
        let mut run = tokio::spawn(lifecycle.clone().run(DRAIN));
        assert!(tokio::time::timeout(MOMENT, &mut run).await.is_err());
        assert!(!lifecycle.stopping().is_cancelled() && !lifecycle.token(Stage::Accept).is_cancelled());
        lifecycle.stop();
        run.await.expect("no panic").expect("drained");
    }

    /// What the process says after a task ended in some way, while another is still to be stopped.
    async fn after<F, E>(task: F) -> String
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let (lifecycle, order) = (Lifecycle::new(), Arc::default());
        obedient(&lifecycle, Stage::Serve, &order);
        lifecycle.spawn(Stage::Relay, "worker", task);
        let error = lifecycle.run(DRAIN).await.expect_err("a failure");
        assert!(matches!(error, ShutdownError::TaskFailed(_)), "{error}");
        assert_eq!(*order.lock().expect("no panic"), [Stage::Serve], "the others are stopped in order");
        error.to_string()
    }

    #[tokio::test]
    async fn a_task_that_ends_unasked_fails_the_process() {
        assert_eq!(after(async { Ok::<_, Infallible>(()) }).await, "worker ended by itself");
        assert_eq!(after(async { Err("no disk") }).await, "worker failed: no disk");
        let died = after::<_, Infallible>(async { panic!("a bug") }).await;
        assert!(died.starts_with("worker died: ") && died.contains("a bug"), "{died}");
    }

    #[tokio::test]
    async fn a_task_may_end_early_once_the_process_stops() {
        let lifecycle = Lifecycle::new();
        let stopping = lifecycle.stopping();
        lifecycle.spawn(Stage::Serve, "fed by others", async move {
            stopping.cancelled().await;
            Ok::<_, Infallible>(())
        });
        lifecycle.stop();
        lifecycle.run(DRAIN).await.expect("drained");
    }

    #[tokio::test]
    async fn the_deadline_cuts_a_drain_short() {
        let (lifecycle, order) = (Lifecycle::new(), Arc::default());
        lifecycle.spawn(Stage::Store, "stuck", pending::<Result<(), Infallible>>());
        obedient(&lifecycle, Stage::Serve, &order);
        lifecycle.stop();
        let error = lifecycle.run(MOMENT).await.expect_err("cut short");
        assert!(matches!(error, ShutdownError::Deadline(MOMENT)), "{error}");
        assert!(order.lock().expect("no panic").is_empty(), "what comes after the stuck task is not reached");
    }

    #[tokio::test]
    async fn a_second_signal_ends_a_drain_at_once() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn(Stage::Store, "stuck", pending::<Result<(), Infallible>>());
        lifecycle.stop();
        lifecycle.inner.at_once.cancel();
        let error = lifecycle.run(DRAIN).await.expect_err("cut short");
        assert!(matches!(error, ShutdownError::SecondSignal), "{error}");
    }
}
