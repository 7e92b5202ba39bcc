//! Tells queries which projections have changed, coalesced, on a connection that stores nothing.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::database::channel;

/// The payload names projection types, separated by spaces; empty means any.
pub const CHANNEL: &str = "cornjacket_projection";

/// At most one NOTIFY in this time.
const COALESCE: Duration = Duration::from_millis(10);
/// When what could not be told is told again: after a restart of the database the first use of each connection fails.
const TELL_AGAIN: Duration = Duration::from_millis(100);
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

    /// Tells until stopped. What cannot be told yet is told later, and found by polling meanwhile.
    pub async fn tell(self, pool: PgPool, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                () = self.inner.1.notified() => {}
                () = stop.cancelled() => return Ok(()),
            }
            let types = self.take();
            if types.is_empty() {
                continue;
            }
            let mut payload = types.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            if payload.len() > MAX_PAYLOAD {
                payload.clear();
            }
            let pause = match channel::notify(&pool, CHANNEL, &payload).await {
                Ok(()) => COALESCE,
                Err(error) => {
                    debug!(%error, "cannot notify of changed projections");
                    for projection_type in &types {
                        self.add(projection_type);
                    }
                    TELL_AGAIN
                }
            };
            sleep(pause).await;
        }
    }
}
