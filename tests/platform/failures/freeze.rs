//! One of two is frozen (SIGSTOP) in the middle of a transaction, the other takes over, and the frozen one goes on as if
//! no time had passed: what it had begun is discarded.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::PgPool;

use super::measure::{counter, idle_in_transaction, waiting_for_a_lock};
use super::verify::{are_folded, are_stored};
use super::{Kind, Running, Turn, turn};
use crate::harness::{OwnKafka, Process, eventually, fresh_database};

/// A frozen process holds its locks until the database ends its idle transaction (10 s); a Kafka group misses it after
/// its session (6 s). Then the other one must have done everything.
const TAKE_OVER: Duration = Duration::from_mins(1);
const SOON: Duration = Duration::from_mins(1);
/// No session of a process at work is idle in a transaction for as long, in milliseconds.
const FROZEN: i32 = 1000;
const RELAY: &str = "cornjacket relay";
const HANDLER: &str = "cornjacket handler";

/// Whether a frozen process holds a transaction open.
async fn holds_a_transaction(pool: &PgPool, application: &str) -> bool {
    tokio::time::sleep(Duration::from_millis(u64::try_from(FROZEN).unwrap() + 200)).await;
    idle_in_transaction(pool, application, FROZEN).await > 0
}

/// Freezes a handler while it writes a batch: it waits for a lock then, and once that is free the batch is half done.
async fn freeze_in_a_batch(handle: &mut Process, pool: &PgPool) {
    for _ in 0..10 {
        let mut lock = pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE projections IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
        eventually(SOON, || async { waiting_for_a_lock(pool, HANDLER).await >= 2 }).await;
        handle.sigstop();
        lock.rollback().await.unwrap();
        if holds_a_transaction(pool, HANDLER).await {
            return;
        }
        handle.sigcont();
    }
    panic!("the handler was never frozen in a batch");
}

async fn one_of_two_handlers_is_frozen(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let mut running = Running::start(&format!("freeze-handler-{kind:?}"), fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    let other = running.platform.handle("-2").ready().await;
    eventually(SOON, || async { counter(&other, "cornjacket_handler_events_total").await > 0.0 }).await;
    freeze_in_a_batch(&mut running.handle, &pool).await;
    running.load.more(200).await;
    let accepted = running.load.counts();
    eventually(TAKE_OVER, || are_folded(&pool, &accepted)).await;
    assert_eq!(idle_in_transaction(&pool, HANDLER, FROZEN).await, 0, "the database has ended the frozen transaction");
    running.handle.sigcont();
    the_batch_is_discarded(&running.handle, kind).await;
    running.load.more(200).await;
    running.settle().await;
}

/// The frozen handler cannot commit, and on Kafka finds that its partitions were read on by the other.
async fn the_batch_is_discarded(handle: &Process, kind: Kind) {
    eventually(SOON, || async { counter(handle, "cornjacket_handler_failures_total").await > 0.0 }).await;
    assert!(handle.log().contains("a batch could not be handled"));
    if matches!(kind, Kind::Kafka) {
        eventually(SOON, || async { counter(handle, "cornjacket_bus_overtaken_total").await > 0.0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_handlers_is_frozen_on_the_embedded_bus() {
    one_of_two_handlers_is_frozen(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_handlers_is_frozen_on_kafka_and_wakes_as_a_zombie() {
    one_of_two_handlers_is_frozen(Kind::Kafka).await;
}

/// Freezes a relay while it waits for the broker to confirm: the broker is frozen before, and resumed after.
async fn freeze_in_a_publication(relay: &mut Process, pool: &PgPool, kafka: &OwnKafka) {
    for _ in 0..20 {
        kafka.signal(Signal::SIGSTOP);
        let publish = both_publish(pool).await;
        relay.sigstop();
        kafka.signal(Signal::SIGCONT);
        if publish && holds_a_transaction(pool, RELAY).await {
            return;
        }
        relay.sigcont();
        eventually(TAKE_OVER, || async { idle_in_transaction(pool, RELAY, 50).await == 0 }).await;
    }
    panic!("the relay was never frozen in a publication");
}

/// Whether both relays wait for the broker, before the deadline of a publication (5 s). One that locked all shards leaves
/// the other nothing to publish.
async fn both_publish(pool: &PgPool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        if idle_in_transaction(pool, RELAY, 50).await >= 2 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// A relay with the embedded bus, and its appending with Kafka, has no transaction of more than one statement: the
/// database finishes it, whatever becomes of the process.
async fn freeze_relay(running: &mut Running, pool: &PgPool, turn: &Turn, kind: Kind) {
    match kind {
        Kind::Kafka => freeze_in_a_publication(&mut running.relay, pool, turn.kafka.as_ref().unwrap()).await,
        Kind::Embedded => {
            running.relay.sigstop();
            assert!(!holds_a_transaction(pool, RELAY).await, "nothing of a frozen relay holds up the other");
        }
    }
}

async fn one_of_two_relays_is_frozen(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let mut running = Running::start(&format!("freeze-relay-{kind:?}"), fresh_database().await, bus).await;
    let pool = running.platform.database().pool().await;
    let other = running.platform.relay("-2").ready().await;
    eventually(SOON, || async { counter(&other, "cornjacket_relay_stored_total").await > 0.0 }).await;
    freeze_relay(&mut running, &pool, &turn, kind).await;
    running.load.more(200).await;
    let accepted = running.load.counts();
    eventually(TAKE_OVER, || are_stored(&pool, &accepted)).await;
    eventually(TAKE_OVER, || are_folded(&pool, &accepted)).await;
    let stored = counter(&other, "cornjacket_relay_stored_total").await;
    running.relay.sigcont();
    if matches!(kind, Kind::Kafka) {
        the_publication_is_discarded(&running).await;
    }
    running.load.more(200).await;
    assert!(counter(&other, "cornjacket_relay_stored_total").await > stored, "both work on");
    running.settle().await;
}

/// The frozen relay cannot delete what it published, since another has done both again; whoever reads drops what came
/// twice.
async fn the_publication_is_discarded(running: &Running) {
    let failures = || counter(&running.relay, "cornjacket_relay_publish_failures_total");
    eventually(SOON, || async { failures().await > 0.0 }).await;
    assert!(running.relay.log().contains("cannot publish"));
    eventually(SOON, || async { counter(&running.handle, "cornjacket_bus_duplicates_total").await > 0.0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_relays_is_frozen_on_the_embedded_bus() {
    one_of_two_relays_is_frozen(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_relays_is_frozen_on_kafka() {
    one_of_two_relays_is_frozen(Kind::Kafka).await;
}
