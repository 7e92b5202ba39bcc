//! A row that the event store refuses is found by storing rows one at a time, each within a savepoint, and goes to
//! the dead letters with the database's words. Its neighbours are stored.

use metrics::counter;
use sqlx::{Acquire, PgPool};
use tracing::warn;

use super::store::{self, Claim, Moved};
use crate::database::is_bad_data;
use crate::event::ShardSet;

/// Most rows that one isolation walks through, over all shards; the rest is tried as a batch again.
const WALK: i64 = 256;

/// Stores the oldest rows of the shards one by one.
pub(super) async fn isolate(pool: &PgPool, shards: ShardSet, keep: bool) -> Result<Vec<Moved>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let free = store::lock(&mut tx, shards).await?;
    let mut all = Vec::new();
    for shard in free.iter() {
        let mut total = Moved { shard, taken: 0, stored: 0, oldest_seconds: None };
        while total.taken < WALK {
            let Some(outbox_id) = store::oldest(&mut tx, shard).await? else { break };
            let one = Claim { shards: [shard].into_iter().collect(), per_shard: 1, sweep: true, keep };
            let mut savepoint = tx.begin().await?;
            let moved = match store::run(&mut savepoint, one).await {
                Ok(moved) => {
                    savepoint.commit().await?;
                    moved
                }
                Err(e) if is_bad_data(&e) => {
                    savepoint.rollback().await?;
                    warn!(%outbox_id, error = %e, "event cannot be stored: it goes to the dead letters");
                    counter!("cornjacket_relay_dead_letters_total", "cause" => "refused_by_store").increment(1);
                    store::dead_letter(&mut tx, outbox_id, &format!("the event store refused it: {e}")).await?;
                    Vec::new()
                }
                Err(e) => return Err(e),
            };
            total.taken += 1;
            total.stored += moved.iter().map(|m| m.stored).sum::<i64>();
        }
        // More may wait behind what was walked through.
        total.taken = i64::MAX;
        all.push(total);
    }
    tx.commit().await?;
    Ok(all)
}
