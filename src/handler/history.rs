//! Whether the event store still has all that a projection is to read. Retention drops what every reader has read; a
//! projection that comes later gets what is left, and its rows remember from when on that is.

use chrono::SecondsFormat;
use metrics::counter;
use sqlx::PgPool;
use tracing::warn;

use super::store::Progress;
use crate::bus::embedded::store as event_store;
use crate::event::Shard;

/// Notes in the progress if events behind its cursors are gone. To be asked after they were read: what was dropped
/// before that is found missing. True: some are.
pub(super) async fn look(ingestion: &PgPool, progress: &mut Progress, heads: &[i64]) -> Result<bool, sqlx::Error> {
    let unread = |(_, (cursor, head)): &(Shard, (&i64, &i64))| cursor < head;
    let cursors = progress.cursors.iter().zip(heads);
    let after: Vec<(Shard, i64)> =
        (0..).zip(cursors).filter(unread).map(|(shard, (cursor, _))| (shard, *cursor)).collect();
    let lost = event_store::history_lost(ingestion, &after).await?;
    progress.history_from = lost.or(progress.history_from);
    Ok(lost.is_some())
}

/// Says so, once it is committed.
pub(super) fn tell(progress: &Progress, lost: bool) {
    if let Some(from) = progress.history_from.filter(|_| lost) {
        let history_from = from.to_rfc3339_opts(SecondsFormat::Secs, true);
        counter!("cornjacket_handler_history_truncated_total").increment(1);
        warn!(
            projection = progress.projection_type,
            history_from,
            "HistoryTruncated: events accepted before {history_from} were dropped from the event store; the rows are made \
             of what came since"
        );
    }
}
