//! Replays the relay's dead letters: back into the outbox, in the transaction that marks them.
//!
//! An event that the store refused is tried with it first, so that one that is still refused is known at once. One that is in
//! the store but was refused by the bus is to be published again, under its position, and says that it comes late: whoever
//! reads the bus has passed that position. What the bus refuses once more becomes a pending letter again.

mod store;

use chrono::Utc;
use sqlx::{Acquire, PgConnection, PgPool};

use super::partitions;
use crate::bus::wake::Wake;
use crate::database::{self, is_bad_data};
use crate::dead_letters::RELAY;
use crate::dead_letters::replay::{self, Outcome, Replay, Requested, Serial};
use crate::event::{ShardSet, shard_of};
use crate::lifecycle::{Lifecycle, Stage};

/// Starts replaying. `outbox` and `publish` are told of what there is to do.
pub(super) fn start(lifecycle: &Lifecycle, pool: &PgPool, kafka: bool, outbox: &Wake, publish: &Wake) {
    let replays = Replays {
        pool: pool.clone(),
        kafka,
        outbox: outbox.clone(),
        publish: publish.clone(),
        shards: ShardSet::EMPTY,
    };
    replay::start(lifecycle, Stage::Relay, pool, Serial::new(database::own(pool, 1), replays));
}

struct Replays {
    pool: PgPool,
    kafka: bool,
    outbox: Wake,
    publish: Wake,
    /// What was put back since the last commit.
    shards: ShardSet,
}

impl Replay for Replays {
    const CONSUMER: &'static str = RELAY;

    async fn replay(&mut self, connection: &mut PgConnection, letter: &Requested) -> Result<Outcome, sqlx::Error> {
        let Some(event_id) = letter.event_id else {
            return Ok(Outcome::Failed("the letter names no event".to_owned()));
        };
        let aggregate = letter.event_payload["aggregate_id"].as_str();
        let Some(shard) = aggregate.map(shard_of) else {
            return Ok(Outcome::Failed("aggregate_id: the event has none".to_owned()));
        };
        if let Some((shard, position)) = store::place(connection, event_id).await? {
            if !self.kafka {
                let note = "it is in the event store, which is the bus here".to_owned();
                return Ok(Outcome::Replayed(Some(note)));
            }
            store::publish_again(connection, letter.dlq_id, shard, position).await?;
            self.shards.insert(shard);
            return Ok(Outcome::Replayed(Some("to be published again".to_owned())));
        }
        partitions::make_for(&self.pool, event_id, Utc::now()).await?;
        let mut trial = connection.begin().await?;
        match store::try_to_store(&mut trial, letter.dlq_id, shard).await {
            Err(error) if is_bad_data(&error) => {
                return Ok(Outcome::Failed(format!("the event store refused it: {error}")));
            }
            tried => tried?,
        }
        trial.rollback().await?;
        store::put_back(connection, letter.dlq_id, shard).await?;
        self.shards.insert(shard);
        Ok(Outcome::Replayed(Some("back in the outbox".to_owned())))
    }

    fn settled(&mut self, committed: bool) {
        let shards = std::mem::take(&mut self.shards);
        if committed && !shards.is_empty() {
            self.outbox.hear(shards);
            self.publish.hear(shards);
        }
    }
}
