//! Wake-ups: which shards have news, told within the process at once and to other processes by NOTIFY.
//!
//! A NOTIFY is never sent from inside a transaction that stores events (it would hold a lock that all commits wait
//! for); one task sends them, coalesced, on a connection of its own. Losing one costs no event: every reader also polls.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::database::channel::{Listener, notify};
use crate::event::ShardSet;

/// The outbox has rows in the shards named.
pub const OUTBOX: &str = "cornjacket_outbox";
/// The event store has rows in the shards named.
pub const EVENT_STORE: &str = "cornjacket_event_store";

/// At most one NOTIFY per channel in this time.
const COALESCE: Duration = Duration::from_millis(5);
/// When what could not be told is told again.
const TELL_AGAIN: Duration = Duration::from_millis(100);

/// A set of shards that fills on one side and is taken on the other. Cheap to clone.
#[derive(Clone, Default)]
pub struct Wake {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Shards with news for the reader in this process.
    pending: AtomicU64,
    reader: Notify,
    /// Shards with news that other processes have not been told of.
    untold: AtomicU64,
    teller: Notify,
    /// Others that hear all that this one does: a set is taken by one reader only.
    followers: Vec<Wake>,
}

impl Wake {
    /// One whose news several readers of this process hear, each by its own.
    pub fn for_all(followers: Vec<Self>) -> Self {
        Self { inner: Arc::new(Inner { followers, ..Inner::default() }) }
    }

    /// News from this process: its reader is woken, and other processes are told if a [`tell`] task runs.
    pub fn add(&self, shards: ShardSet) {
        self.hear(shards);
        self.inner.untold.fetch_or(shards.0, Ordering::SeqCst);
        self.inner.teller.notify_one();
    }

    /// News from elsewhere: only the reader in this process is woken.
    pub fn hear(&self, shards: ShardSet) {
        self.inner.pending.fetch_or(shards.0, Ordering::SeqCst);
        self.inner.reader.notify_one();
        self.inner.followers.iter().for_each(|follower| follower.hear(shards));
    }

    /// Takes what is there without waiting.
    pub fn take_now(&self) -> ShardSet {
        ShardSet(self.inner.pending.swap(0, Ordering::SeqCst))
    }

    /// Waits until there is news, and takes it.
    pub async fn take(&self) -> ShardSet {
        loop {
            let shards = self.take_now();
            if !shards.is_empty() {
                return shards;
            }
            self.inner.reader.notified().await;
        }
    }
}

/// Tells other processes of what [`Wake::add`] was given, until stopped. What could not be told is told again: after a
/// restart of the database the first use of each connection fails. A failure is logged once per outage.
pub async fn tell(wake: Wake, channel: &'static str, instance: Uuid, pool: PgPool, stop: CancellationToken) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = wake.inner.teller.notified() => {}
            () = stop.cancelled() => return,
        }
        let shards = wake.inner.untold.swap(0, Ordering::SeqCst);
        if shards == 0 {
            continue;
        }
        let payload = format!("{instance} {shards:x}");
        match notify(&pool, channel, &payload).await {
            Ok(()) => {
                failing = false;
                sleep(COALESCE).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(channel, %error, "cannot notify other processes: until it works they find events by polling");
                }
                wake.inner.untold.fetch_or(shards, Ordering::SeqCst);
                wake.inner.teller.notify_one();
                if stop.run_until_cancelled(sleep(TELL_AGAIN)).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// Listens for what other processes tell, until stopped. After a lost connection it listens again, and then wakes the
/// reader for all shards, since notifications may have been missed.
pub async fn listen(wake: Wake, channel: &'static str, instance: Uuid, pool: PgPool, stop: CancellationToken) {
    let own = instance.to_string();
    loop {
        let heard = listen_once(&wake, channel, &own, &pool);
        tokio::select! {
            Err(error) = heard => debug!(channel, %error, "listener lost: listening again"),
            () = stop.cancelled() => return,
        }
        let pause = Duration::from_millis(rand::rng().random_range(100..300));
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn listen_once(wake: &Wake, channel: &str, own: &str, pool: &PgPool) -> Result<Infallible, sqlx::Error> {
    let mut listener = Listener::open(pool, channel).await?;
    wake.hear(ShardSet::ALL);
    loop {
        wake.hear(parse(&listener.next().await?, own));
    }
}

/// The shards a payload names: none if this process sent it, all if it cannot be read.
fn parse(payload: &str, own: &str) -> ShardSet {
    match payload.split_once(' ') {
        Some((sender, _)) if sender == own => ShardSet::EMPTY,
        Some((_, shards)) => u64::from_str_radix(shards, 16).map_or(ShardSet::ALL, ShardSet),
        None => ShardSet::ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ignores_its_own_notifications() {
        assert_eq!(parse("a 81", "a"), ShardSet::EMPTY);
        assert_eq!(parse("b 81", "a").to_vec(), [0, 7]);
        assert_eq!(parse("", "a"), ShardSet::ALL);
        assert_eq!(parse("b what", "a"), ShardSet::ALL);
    }

    #[tokio::test]
    async fn every_follower_hears_all_news() {
        let (one, other) = (Wake::default(), Wake::default());
        let all = Wake::for_all(vec![one.clone(), other.clone()]);
        all.add(ShardSet(0b10));
        assert_eq!((one.take().await, other.take().await), (ShardSet(0b10), ShardSet(0b10)));
    }

    #[tokio::test]
    async fn news_that_came_before_the_wait_is_not_lost() {
        let wake = Wake::default();
        wake.add(ShardSet(0b10));
        wake.hear(ShardSet(0b1));
        assert_eq!(wake.take().await, ShardSet(0b11));
        assert!(wake.take_now().is_empty());
    }
}
