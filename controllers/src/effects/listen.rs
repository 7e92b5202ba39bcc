//! Hears acknowledgements. Best effort: what is missed, the controllers' poll finds.

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::debug;

use super::postgres::ACK_CHANNEL;
use crate::backoff;

/// Tells `heard` about every acknowledgement in one database, and about every connection lost. Runs for ever; drop
/// it to stop.
pub async fn acknowledgements(options: PgConnectOptions, heard: Arc<Notify>) {
    let mut failures = 0;
    loop {
        match session(&options, &heard, &mut failures).await {
            Ok(()) => debug!("the connection for acknowledgements was lost"),
            Err(error) => debug!(%error, "cannot listen for acknowledgements"),
        }
        heard.notify_one();
        sleep(backoff::delay(failures, rand::random())).await;
        failures += 1;
    }
}

async fn session(options: &PgConnectOptions, heard: &Notify, failures: &mut u32) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(ACK_CHANNEL).await?;
    *failures = 0;
    heard.notify_one();
    while listener.try_recv().await?.is_some() {
        heard.notify_one();
    }
    Ok(())
}
