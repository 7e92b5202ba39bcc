//! Wake-ups between processes that share nothing but the database (and the broker).

use std::time::Duration;

use cornjacket::bus::wake::{OUTBOX, Wake, tell};
use cornjacket::event::ShardSet;
use secrecy::SecretString;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::measure::time_to_projection;
use super::{Kind, turn};
use crate::harness::{OwnPostgres, Platform, Process, eventually, fresh_database, http};

const SOON: Duration = Duration::from_secs(10);

/// One process a role, of which none polls to speak of.
struct Idle {
    platform: Platform,
    ingest: Process,
    query: Process,
    _others: [Process; 3],
}

impl Idle {
    async fn start(platform: Platform) -> Self {
        let platform = platform.polling_once_a_minute();
        let controllers = platform.controllers().ready().await;
        let (ingest, relay, handle, query) = tokio::join!(
            platform.ingest().ready(),
            platform.relay("").ready(),
            platform.handle("").ready(),
            platform.query().ready()
        );
        let idle = Self { platform, ingest, query, _others: [controllers, relay, handle] };
        // A start looks at everything once: the first event may profit from that.
        idle.probe("first").await;
        idle
    }

    async fn probe(&self, aggregate: &str) -> Duration {
        let pool = self.platform.database().pool().await;
        time_to_projection(&pool, &self.ingest.url("/api/v1/events"), aggregate).await
    }
}

async fn an_event_gets_through_without_a_poll(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let name = format!("wake-{kind:?}");
    let idle = Idle::start(Platform::new(&name, fresh_database().await, bus)).await;
    for number in 0..10 {
        let took = idle.probe(&format!("probe-{number}")).await;
        assert!(took < SOON, "probe {number} was projected after {took:?}");
    }
    eventually(Duration::from_secs(5), || async {
        let answer = http::get(&http::client(), &idle.query.url("/api/v1/projections/sensor_state/probe-9")).await;
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_gets_through_without_a_poll_on_the_embedded_bus() {
    an_event_gets_through_without_a_poll(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_gets_through_without_a_poll_on_kafka() {
    an_event_gets_through_without_a_poll(Kind::Kafka).await;
}

/// Connections that nobody used since are broken, those of listeners and of who tells them included.
async fn the_first_event_after_a_restart_of_the_database_gets_through_without_a_poll(kind: Kind) {
    let mut turn = turn(kind).await;
    let bus = turn.bus();
    let name = format!("wake-restart-{kind:?}");
    let mut postgres = tokio::task::block_in_place(|| OwnPostgres::start_new(&name));
    let idle = Idle::start(Platform::new(&name, postgres.fresh_database().await, bus)).await;
    tokio::task::block_in_place(|| {
        postgres.stop();
        postgres.start();
    });
    listeners(&idle.platform.database().pool().await).await;
    let url = idle.ingest.url("/readyz");
    eventually(Duration::from_secs(5), || async {
        http::get(&http::client(), &url).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let took = idle.probe("after").await;
    assert!(took < SOON, "projected after {took:?}");
}

/// Waits until relay, handler and query listen.
async fn listeners(pool: &PgPool) {
    eventually(Duration::from_secs(5), || async {
        let listening: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT application_name FROM pg_stat_activity
              WHERE datname = current_database() AND query ILIKE 'LISTEN%'",
        )
        .fetch_all(pool)
        .await
        .map_err(|e| e.to_string())?;
        let missing =
            ["relay", "handler", "query"].into_iter().find(|role| !listening.contains(&format!("cornjacket {role}")));
        missing.map_or(Ok(()), |role| Err(format!("{role} does not listen")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_event_after_a_restart_gets_through_without_a_poll_on_the_embedded_bus() {
    the_first_event_after_a_restart_of_the_database_gets_through_without_a_poll(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_event_after_a_restart_gets_through_without_a_poll_on_kafka() {
    the_first_event_after_a_restart_of_the_database_gets_through_without_a_poll(Kind::Kafka).await;
}

/// The only connection of who tells is broken, and nobody else finds that out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_told_on_a_broken_connection_is_told_on_the_next() {
    let _turn = turn(Kind::Embedded).await;
    let mut postgres = tokio::task::block_in_place(|| OwnPostgres::start_new("wake-tell"));
    let database = postgres.fresh_database().await;
    let pool = cornjacket::database::pool(&SecretString::from(database.url.clone()), "test", 1).unwrap();
    sqlx::query("SELECT 1").execute(&pool).await.unwrap();
    tokio::task::block_in_place(|| {
        postgres.stop();
        postgres.start();
    });
    let mut listener = PgListener::connect(&database.url).await.unwrap();
    listener.listen(OUTBOX).await.unwrap();
    let (wake, stop) = (Wake::default(), CancellationToken::new());
    tokio::spawn(tell(wake.clone(), OUTBOX, Uuid::now_v7(), pool, stop.clone()));
    wake.add(ShardSet(0b101));
    let heard = tokio::time::timeout(SOON, listener.recv()).await.expect("it is told").unwrap();
    assert!(heard.payload().ends_with(" 5"), "{heard:?}");
    stop.cancel();
}
