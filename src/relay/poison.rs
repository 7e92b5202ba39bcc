//! A row that the event store refuses is found and goes to the dead letters with the database's words; its neighbours are
//! stored. Each shard is tried by itself within a savepoint, and only the rows of a refused one are tried one by one.

use metrics::counter;
use sqlx::{Acquire, PgConnection, PgPool};
use tracing::warn;

use super::store::{self, Claim, Moved};
use crate::database::is_bad_data;
use crate::event::Shard;

/// Most rows of a shard that one isolation walks through; the rest is tried as a batch again.
const WALK: i64 = 256;

/// Does a claim that was refused as a whole, shard by shard.
pub(super) async fn isolate(pool: &PgPool, claim: Claim) -> Result<Vec<Moved>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let mut all = Vec::new();
    for shard in store::lock(&mut tx, claim.shards).await?.iter() {
        let alone = Claim { shards: [shard].into_iter().collect(), ..claim };
        match attempt(&mut tx, alone).await? {
            Ok(moved) => all.extend(moved),
            Err(_) => all.push(walk(&mut tx, shard, alone).await?),
        }
    }
    tx.commit().await?;
    Ok(all)
}

/// A claim within a savepoint; the inner error is about the data, and undone.
async fn attempt(connection: &mut PgConnection, claim: Claim) -> Result<Result<Vec<Moved>, sqlx::Error>, sqlx::Error> {
    let mut savepoint = connection.begin().await?;
    match store::run(&mut savepoint, claim).await {
        Ok(moved) => {
            savepoint.commit().await?;
            Ok(Ok(moved))
        }
        Err(e) if is_bad_data(&e) => {
            savepoint.rollback().await?;
            Ok(Err(e))
        }
        Err(e) => Err(e),
    }
}

/// Stores the oldest rows of a shard one by one.
async fn walk(connection: &mut PgConnection, shard: Shard, claim: Claim) -> Result<Moved, sqlx::Error> {
    // More may wait behind what is walked through.
    let mut total = Moved { shard, found: i64::MAX, taken: i64::MAX, stored: 0, bytes: 0, oldest_seconds: None };
    for _ in 0..WALK {
        let Some(outbox_id) = store::oldest(connection, shard).await? else { break };
        match attempt(connection, Claim { per_shard: 1, sweep: true, ..claim }).await? {
            Ok(moved) => total.stored += moved.iter().map(|m| m.stored).sum::<i64>(),
            // An older row has come to light meanwhile, and it may be that one.
            Err(_) if store::oldest(connection, shard).await? != Some(outbox_id) => {}
            Err(e) => {
                warn!(%outbox_id, error = %e, "event cannot be stored: it goes to the dead letters");
                counter!("cornjacket_relay_dead_letters_total", "cause" => "refused_by_store").increment(1);
                store::dead_letter(connection, outbox_id, &format!("the event store refused it: {e}")).await?;
            }
        }
    }
    Ok(total)
}
