//! LISTEN and NOTIFY: how processes hear of one another's commits.

use std::io;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::time::timeout;

use super::{own, within};

/// A listener that has heard nothing for this long asks whether anybody is there.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Tells everybody who listens on a channel.
///
/// # Errors
/// The database's, or it did not answer within 5 s.
pub async fn notify(pool: &PgPool, channel: &str, payload: &str) -> Result<(), sqlx::Error> {
    let told = sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(payload).execute(pool);
    within(ANSWER, told).await.map(drop)
}

/// Hears what is told on a channel, for as long as its connection lives: whoever opens another may have missed something.
pub struct Listener {
    inner: PgListener,
}

impl Listener {
    /// Listens by a connection of its own to the pool's database: what becomes of it holds up nobody else.
    ///
    /// # Errors
    /// The database's, or it did not answer within 5 s.
    pub async fn open(pool: &PgPool, channel: &str) -> Result<Self, sqlx::Error> {
        let single = own(pool, 1);
        within(ANSWER, async {
            let mut inner = PgListener::connect_with(&single).await?;
            inner.eager_reconnect(false);
            inner.listen(channel).await?;
            Ok(Self { inner })
        })
        .await
    }

    /// The payload of the next notification. Cancelling it loses none.
    ///
    /// # Errors
    /// The connection is lost, also where that is not said: it is asked every 30 s.
    pub async fn next(&mut self) -> Result<String, sqlx::Error> {
        loop {
            let Ok(heard) = timeout(SILENCE, self.inner.try_recv()).await else {
                within(ANSWER, sqlx::query("SELECT 1").execute(&mut self.inner)).await?;
                continue;
            };
            let lost = || sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection is lost"));
            return heard?.map(|notification| notification.payload().to_owned()).ok_or_else(lost);
        }
    }

    /// Passes over what has been heard already.
    pub fn skip_heard(&mut self) {
        while self.inner.next_buffered().is_some() {}
    }
}
