//! The state of several instances, in Redis: each question is one script there, which is atomic, and what it does is what
//! [`super::Memory`] does. Keys of one action are in one slot of a cluster. They expire when nothing needs them.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script, ScriptInvocation};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::breaker::{Change, Report, Threshold};
use super::{Ask, Grant, Seen, StateError};

/// Longest wait for an answer; it is asked again.
const ANSWER: Duration = Duration::from_secs(2);
/// Events whose keys are asked for at a time: Redis does nothing else meanwhile.
const AT_ONCE: usize = 256;

/// Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    /// Begins all keys: the platform instance.
    namespace: String,
    /// Made at the first question; it connects again by itself.
    connection: OnceCell<ConnectionManager>,
    scripts: Scripts,
}

struct Scripts {
    admit: Script,
    give_back: Script,
    report: Script,
    duplicates: Script,
}

impl Redis {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// The URL is none: it is not repeated, it may hold a password.
    pub fn new(url: &str, namespace: &str) -> Result<Self, String> {
        // Only the first of a process has to; the others are told that it is done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::open(url).map_err(|error| error.category().to_owned())?;
        let scripts = Scripts {
            admit: Script::new(include_str!("redis/admit.lua")),
            give_back: Script::new(include_str!("redis/give_back.lua")),
            report: Script::new(include_str!("redis/report.lua")),
            duplicates: Script::new(include_str!("redis/duplicates.lua")),
        };
        let inner = Inner { client, namespace: namespace.to_owned(), connection: OnceCell::new(), scripts };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(super) async fn duplicates(
        &self,
        action: &str,
        window_ms: i64,
        events: &[Seen],
    ) -> Result<Vec<bool>, StateError> {
        let mut duplicates = Vec::with_capacity(events.len());
        for some in events.chunks(AT_ONCE) {
            let mut ask = self.inner.scripts.duplicates.prepare_invoke();
            ask.arg(window_ms);
            for event in some {
                // A key is as long as its action makes it.
                let digest = hex::encode(&Sha256::digest(event.key.as_bytes())[..16]);
                ask.key(self.key(action, &format!("key:{digest}"))).arg(event.event_id.to_string()).arg(event.at);
            }
            let found: Vec<i64> = self.answer(&ask).await?;
            duplicates.extend(found.into_iter().map(|found| found == 1));
        }
        Ok(duplicates)
    }

    pub(super) async fn admit(&self, ask: &Ask, now: i64) -> Result<Grant, StateError> {
        let mut question = self.of_endpoint(&self.inner.scripts.admit, &ask.action);
        question.arg(now).arg(ask.wanted).arg(ask.limit.most).arg(ask.limit.per_ms).arg(ask.probe_ms);
        let (count, probe, again_at): (i64, i64, i64) = self.answer(&question).await?;
        Ok(Grant { count, probe: probe == 1, again_at: (again_at >= 0).then_some(again_at) })
    }

    pub(super) async fn give_back(&self, action: &str, unused: i64, probe: bool) -> Result<(), StateError> {
        let mut told = self.of_endpoint(&self.inner.scripts.give_back, action);
        told.arg(unused).arg(i32::from(probe));
        self.answer::<i64>(&told).await.map(drop)
    }

    pub(super) async fn report(
        &self,
        action: &str,
        threshold: Threshold,
        reports: &[Report],
        now: i64,
    ) -> Result<Change, StateError> {
        let mut told = self.of_endpoint(&self.inner.scripts.report, action);
        told.arg(threshold.failures).arg(threshold.cooldown_ms).arg(now);
        for report in reports {
            match report {
                Report::Succeeded => told.arg("s"),
                Report::Failed => told.arg("f"),
                Report::Paused(pause) => told.arg(*pause),
            };
        }
        Ok(match *self.answer::<Vec<i64>>(&told).await? {
            [1, until] => Change::Opened { until },
            [2] => Change::Closed,
            _ => Change::None,
        })
    }

    pub(super) async fn reset(&self, action: &str) -> Result<(), StateError> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("DEL");
        command.arg(self.key(action, "breaker"));
        within(command.query_async::<i64>(&mut connection)).await.map(drop)
    }

    fn of_endpoint<'a>(&self, script: &'a Script, action: &str) -> ScriptInvocation<'a> {
        let mut ask = script.prepare_invoke();
        ask.key(self.key(action, "breaker")).key(self.key(action, "window"));
        ask
    }

    /// What is in braces says which slot of a cluster it is in.
    fn key(&self, action: &str, of: &str) -> String {
        format!("cornjacket:{{{}/{action}}}:{of}", self.inner.namespace)
    }

    async fn answer<T: redis::FromRedisValue>(&self, ask: &ScriptInvocation<'_>) -> Result<T, StateError> {
        let mut connection = self.connection().await?;
        within(ask.invoke_async(&mut connection)).await
    }

    async fn connection(&self) -> Result<ConnectionManager, StateError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(1);
        let connect = || ConnectionManager::new_with_config(self.inner.client.clone(), config);
        within(self.inner.connection.get_or_try_init(connect)).await.cloned()
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, StateError> {
    match timeout(2 * ANSWER, answer).await {
        Ok(answer) => answer.map_err(|error| StateError::Redis(Box::new(error))),
        Err(late) => Err(StateError::Redis(Box::new(late))),
    }
}
