//! Tells queries which projections have changed, coalesced, on a connection that stores nothing.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// The payload names projection types, separated by spaces; empty means any.
pub const CHANNEL: &str = "cornjacket_projection";

/// At most one NOTIFY in this time.
const COALESCE: Duration = Duration::from_millis(10);
/// Longer payloads are sent as "any": NOTIFY takes 8000 bytes.
const MAX_PAYLOAD: usize = 7000;

/// Projection types with changed rows. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Changed {
    inner: Arc<(Mutex<BTreeSet<String>>, Notify)>,
}

impl Changed {
    pub fn add(&self, projection_type: &str) {
        let mut types = self.inner.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !types.contains(projection_type) {
            types.insert(projection_type.to_owned());
        }
        drop(types);
        self.inner.1.notify_one();
    }

    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.inner.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells until stopped. What cannot be told is found by polling.
    pub async fn tell(self, pool: PgPool, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                () = self.inner.1.notified() => {}
                () = stop.cancelled() => return Ok(()),
            }
            let mut payload = self.take().into_iter().collect::<Vec<_>>().join(" ");
            if payload.is_empty() {
                continue;
            }
            if payload.len() > MAX_PAYLOAD {
                payload.clear();
            }
            let sent = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(&pool);
            if let Ok(Err(error)) = timeout(Duration::from_secs(5), sent).await {
                debug!(%error, "cannot notify of changed projections");
            }
            sleep(COALESCE).await;
        }
    }
}
