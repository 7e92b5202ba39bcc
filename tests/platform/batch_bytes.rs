//! Batches are bounded by bytes as well as by number: large events come a few at a time.

use chrono::Utc;
use cornjacket::bus::Wanted;
use cornjacket::bus::embedded::store as event_store;
use cornjacket::event::ShardSet;
use cornjacket::pace::MAX_BATCH_BYTES;
use cornjacket::relay::partitions;
use cornjacket::relay::store::{Claim, claim};
use rand::RngExt;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::harness::{Bus, Platform, fresh_database};

const LARGE: usize = 1_000_000;

async fn migrated(name: &str) -> PgPool {
    let platform = Platform::new(name, fresh_database().await, Bus::Embedded);
    assert!(platform.migrate().status().expect("it starts").success());
    let pool = platform.database().pool().await;
    partitions::make_ahead(&mut pool.acquire().await.expect("a connection"), Utc::now()).await.expect("made");
    pool
}

/// Large events of one shard, and a small one of another, waiting for a relay.
async fn accept(pool: &PgPool, large: usize) {
    for number in 0..=large {
        // Noise, which does not shrink when it is compressed.
        let text: String = (0..LARGE).map(|_| char::from(rand::rng().random_range(b'a'..=b'z'))).collect();
        let (shard, text) = if number < large { (3_i16, text.as_str()) } else { (9, "small") };
        let id = Uuid::now_v7();
        let envelope = json!({"event_id": id, "event_type": "t", "aggregate_id": "a", "timestamp": Utc::now(),
            "payload": {"text": text}, "metadata": {}, "ingested_at": Utc::now()});
        sqlx::query("INSERT INTO outbox (outbox_id, event_payload, shard) VALUES ($1, $2, $3)")
            .bind(id)
            .bind(envelope)
            .bind(shard)
            .execute(pool)
            .await
            .expect("accepted");
    }
}

#[tokio::test]
async fn a_relay_moves_large_events_a_few_at_a_time() {
    for keep in [false, true] {
        let pool = migrated(&format!("bytes-relay-{keep}")).await;
        accept(&pool, 5).await;
        let shards = ShardSet::ALL;
        let bounded = Claim { shards, per_shard: 100, bytes_per_shard: 2_000_000, sweep: true, keep };
        let mut taken = Vec::new();
        loop {
            let moved = claim(&pool, bounded).await.expect("a claim");
            let of = |shard| moved.iter().find(|m| m.shard == shard).expect("nobody else holds it").taken;
            taken.push((of(3), of(9)));
            if of(3) == 0 {
                break;
            }
            assert!(taken.len() < 10, "{taken:?}");
        }
        assert_eq!(taken.iter().map(|t| t.0).sum::<i64>(), 5);
        assert!(taken.len() > 2 && taken[0].1 == 1, "{taken:?}");
        let numbered: i64 = sqlx::query_scalar("SELECT max(position) FROM event_store").fetch_one(&pool).await.unwrap();
        assert_eq!(numbered, 5);
    }
}

#[tokio::test]
async fn a_reader_of_the_event_store_gets_large_events_a_few_at_a_time() {
    let pool = migrated("bytes-reader").await;
    let many = 2 * MAX_BATCH_BYTES / LARGE;
    accept(&pool, many).await;
    let everything =
        Claim { shards: ShardSet::ALL, per_shard: 100, bytes_per_shard: i64::MAX, sweep: true, keep: false };
    claim(&pool, everything).await.expect("a claim");
    let wanted = Wanted { event_types: Vec::new(), prefixes: vec![String::new()] };
    let page = event_store::read(&pool, &[(3, 0), (9, 0)], 1000, &wanted).await.expect("a page");
    assert!(page.cut && (MAX_BATCH_BYTES / LARGE..many).contains(&page.events.len()), "{}", page.events.len());
    assert_eq!(page.unreached([3, 9].into_iter().collect()).to_vec(), [9]);
    let above = page.events.last().expect("events").position;
    let rest = event_store::read(&pool, &[(3, above), (9, 0)], 1000, &wanted).await.expect("a page");
    assert!(!rest.cut, "the connection is in order after a page that was cut");
    assert_eq!(page.events.len() + rest.events.len(), many + 1);
}
