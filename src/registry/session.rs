//! The task that keeps the catalog current: one session as long as the database answers, then another.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crds::cause::Chain;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::acks::Acks;
use super::catalog::Catalog;
use super::load::{Loaded, Row, Verdict};
use super::{RegistryError, Settings, store};
use crate::database::channel::Listener;
use crate::operate::Gate;

/// Between two heartbeats, and between two looks at the table where no notification came.
const BEAT: Duration = Duration::from_secs(5);
/// Longest wait for one statement.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest goodbye at shutdown: a heartbeat that stops is noticed anyway.
const GOODBYE: Duration = Duration::from_secs(2);
/// First and longest wait before a new session.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

struct Keeper {
    settings: Settings,
    publish: watch::Sender<Arc<Catalog>>,
    acks: Acks,
    gate: Gate,
    host: String,
    loaded: Loaded,
    /// What is registered, without the specs, as it was loaded last.
    seen: Option<Vec<Row>>,
    /// Failed sessions in a row.
    failures: u32,
}

/// Runs until stopped, whatever the database does.
pub(super) async fn run(
    settings: Settings,
    publish: watch::Sender<Arc<Catalog>>,
    acks: Acks,
    gate: Gate,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let (host, loaded) = (host(), Loaded::default());
    let mut keeper = Keeper { settings, publish, acks, gate, host, loaded, seen: None, failures: 0 };
    while let Some(Err(error)) = stop.run_until_cancelled(Box::pin(keeper.session())).await {
        let wait = RETRY.1.min(RETRY.0 * 2_u32.saturating_pow(keeper.failures.min(10)));
        if keeper.failures == 0 {
            warn!(error = %Chain(&error), "registrations cannot be read: the last catalog stays in use, trying again until they can");
        }
        keeper.failures += 1;
        metrics::counter!("cornjacket_registry_failures_total").increment(1);
        if stop.run_until_cancelled(sleep(wait)).await.is_none() {
            break;
        }
    }
    keeper.leave().await;
    Ok(())
}

impl Keeper {
    /// One connection for notifications, for as long as it lives.
    async fn session(&mut self) -> Result<Infallible, RegistryError> {
        let replica = answer(store::is_replica(&self.settings.pool), RegistryError::Read).await?;
        let mut listener = if replica {
            None
        } else {
            Some(answer(Listener::open(&self.settings.pool, store::REGISTRATION_CHANNEL), RegistryError::Listen).await?)
        };
        self.acks.rewrite();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let acks = self.acks.clone();
            tokio::select! {
                // The heartbeat's row must be there before an acknowledgement refers to it.
                biased;
                _ = beat.tick() => {
                    if !replica {
                        self.beat().await?;
                    }
                    self.reload(replica).await?;
                }
                heard = heard(listener.as_mut()) => {
                    heard?;
                    self.reload(replica).await?;
                }
                () = acks.changed() => {}
            }
            if !replica {
                self.acknowledge().await?;
            }
            self.failures = 0;
        }
    }

    async fn beat(&self) -> Result<(), RegistryError> {
        let Settings { pool, instance, roles, .. } = &self.settings;
        let made = answer(store::heartbeat(pool, *instance, roles, &self.host), RegistryError::Heartbeat).await?;
        if made {
            self.acks.rewrite();
        }
        let swept = answer(store::sweep(pool), RegistryError::Heartbeat).await?;
        if swept > 0 {
            info!(swept, "removed instances that were silent for ten minutes");
        }
        Ok(())
    }

    /// Reads what is registered and, where it changed, loads and publishes it.
    async fn reload(&mut self, replica: bool) -> Result<(), RegistryError> {
        let Settings { pool, namespace, instance, .. } = &self.settings;
        let heads = answer(store::heads(pool, namespace), RegistryError::Read).await?;
        if self.seen.as_ref() == Some(&heads) {
            return Ok(());
        }
        let new: Vec<_> = heads.iter().filter(|head| !self.loaded.has(head)).map(|head| &head.key).collect();
        let read = answer(store::registrations(pool, namespace, &new), RegistryError::Read).await?;
        let rows = self.rows(&heads, read);
        // One that changed between the two readings is looked at again.
        let whole = rows.len() == heads.len();
        let (next, verdicts) = self.loaded.next(&rows);
        self.report(&verdicts);
        if self.seen.is_none() || !next.same_as(&self.loaded) {
            self.publish.send_replace(Arc::new(next.catalog()));
        }
        self.loaded = next;
        self.gate.open();
        if !replica {
            answer(store::forget_removed(pool, *instance), RegistryError::Acknowledge).await?;
        }
        // Only now: what failed half-way is done again.
        self.seen = whole.then_some(heads);
        Ok(())
    }

    /// What was read in place of the heads that it is about. One that is gone meanwhile is left out: that is heard of next.
    fn rows(&self, heads: &[Row], read: Vec<Row>) -> Vec<Row> {
        let mut read: HashMap<_, _> = read.into_iter().map(|row| (row.key.clone(), row)).collect();
        let row = |head: &Row| read.remove(&head.key).or_else(|| self.loaded.has(head).then(|| head.clone()));
        heads.iter().filter_map(row).collect()
    }

    fn report(&self, verdicts: &[Verdict]) {
        for verdict in verdicts.iter().filter(|v| self.settings.concerns(v.key.kind)) {
            if let Err(error) = &verdict.outcome {
                warn!(resource = %verdict.key, hash = verdict.hash, error, "registration not loaded");
            }
        }
        info!(registrations = verdicts.len(), "registrations loaded");
        self.acks.loaded(&self.settings.roles, verdicts);
    }

    async fn acknowledge(&self) -> Result<(), RegistryError> {
        let acks = self.acks.unwritten();
        if acks.is_empty() {
            return Ok(());
        }
        let Settings { pool, instance, namespace, .. } = &self.settings;
        answer(store::acknowledge(pool, *instance, namespace, &acks), RegistryError::Acknowledge).await?;
        self.acks.written(&acks);
        Ok(())
    }

    async fn leave(&self) {
        let Settings { pool, instance, roles, .. } = &self.settings;
        match timeout(GOODBYE, store::leave(pool, *instance, roles)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => info!(%error, "left without a goodbye: the heartbeat will run out"),
            Err(_) => info!("left without a goodbye: the heartbeat will run out"),
        }
    }
}

/// Waits for a notification and takes those behind it along; on a replica there are none.
async fn heard(listener: Option<&mut Listener>) -> Result<(), RegistryError> {
    let Some(listener) = listener else { return std::future::pending().await };
    listener.next().await.map_err(RegistryError::Listen)?;
    listener.skip_heard();
    Ok(())
}

/// A statement, with a deadline.
async fn answer<T>(
    statement: impl Future<Output = Result<T, sqlx::Error>>,
    failed: fn(sqlx::Error) -> RegistryError,
) -> Result<T, RegistryError> {
    timeout(ANSWER, statement).await.map_err(|_| RegistryError::Silent(ANSWER))?.map_err(failed)
}

/// Host name and process id, for people.
pub fn host() -> String {
    format!("{} (pid {})", host_name(), std::process::id())
}

/// The name of this machine, or of this pod.
pub fn host_name() -> String {
    let name = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let name = name.map_or_else(|_| "localhost".to_owned(), |n| n.trim().to_owned());
    name.chars().take(200).collect()
}
