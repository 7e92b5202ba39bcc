//! Wake-ups for streams and for readers that wait for their own writes: one listener a process and database, shared
//! by all of them. A lost notification costs no more than one poll interval, since every waiter polls as well.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::database::channel::Listener;

/// The handler tells on this channel which projections have changed rows: their types, separated by spaces.
pub const PROJECTION: &str = "cornjacket_projection";

/// Between two attempts to listen.
const PAUSE: Duration = Duration::from_millis(500);

/// Subjects and who waits for news of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct News {
    subjects: Arc<Mutex<HashMap<String, watch::Sender<()>>>>,
}

impl News {
    /// Changes with every news of the subject from now on.
    pub fn subscribe(&self, subject: &str) -> watch::Receiver<()> {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        subjects.retain(|_, sender| sender.receiver_count() > 0);
        subjects.entry(subject.to_owned()).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// There is news of the subjects that a payload names; of all where it names none.
    pub fn tell(&self, payload: &str) {
        let subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if payload.is_empty() {
            subjects.values().for_each(|sender| {
                let _ = sender.send(());
            });
        }
        for sender in payload.split(' ').filter_map(|subject| subjects.get(subject)) {
            let _ = sender.send(());
        }
    }

    /// Listens on a channel until stopped. `subjects` makes of a payload what [`News::tell`] takes. After a lost
    /// connection it listens again and wakes everyone, since notifications may have been missed.
    ///
    /// # Errors
    /// None: it returns when stopped.
    pub async fn listen(
        self,
        pool: PgPool,
        channel: &'static str,
        subjects: fn(&str) -> &str,
        stop: CancellationToken,
    ) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                Err(error) = self.listen_once(&pool, channel, subjects) => {
                    debug!(channel, %error, "listener lost: listening again");
                }
                () = stop.cancelled() => return Ok(()),
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn listen_once(&self, pool: &PgPool, channel: &str, subjects: fn(&str) -> &str) -> sqlx::Result<Infallible> {
        let mut listener = Listener::open(pool, channel).await?;
        self.tell("");
        loop {
            self.tell(subjects(&listener.next().await?));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_wait_for_a_subject_are_woken() {
        let news = News::default();
        let (mut a, mut b) = (news.subscribe("a"), news.subscribe("b"));
        news.tell("a c");
        assert!(a.has_changed().unwrap() && !b.has_changed().unwrap());
        a.mark_unchanged();
        news.tell("");
        assert!(a.has_changed().unwrap() && b.has_changed().unwrap());
        b.mark_unchanged();
        drop(a);
        let _c = news.subscribe("c");
        assert_eq!(news.subjects.lock().unwrap().len(), 2, "what nobody waits for is forgotten");
    }
}
