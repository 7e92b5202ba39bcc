//! Migrations before traffic: applied once by whoever comes first, refused where the binary does not fit the database.

use std::process::Output;
use std::time::Duration;

use sqlx::PgPool;
use tokio::process::Command;

use crate::harness::{Bus, Launch, Platform, fresh_database};

/// Runs a command that ends by itself.
async fn end_of(command: std::process::Command) -> Output {
    let output = Command::from(command).kill_on_drop(true).output();
    tokio::time::timeout(Duration::from_mins(1), output).await.expect("it ends").expect("it starts")
}

/// What it said on standard error; it must have failed.
async fn refusal(command: std::process::Command) -> String {
    let shown = format!("{:?}", command.get_args());
    let output = end_of(command).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{shown} succeeded:\n{said}");
    said
}

async fn platform(name: &str) -> (Platform, PgPool) {
    let platform = Platform::new(name, fresh_database().await, Bus::Embedded);
    let pool = platform.database().pool().await;
    (platform, pool)
}

/// The processes that apply migrations when they start.
fn roles(platform: &Platform) -> [Launch; 4] {
    [platform.ingest(), platform.relay(""), platform.handle(""), platform.controllers()]
}

async fn has(pool: &PgPool, table: &str) -> bool {
    let found = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(table).fetch_one(pool);
    found.await.expect("an answer")
}

/// Every applied migration of every ledger, as set and version.
async fn applied(pool: &PgPool) -> Vec<(String, i64)> {
    sqlx::query_as(
        "SELECT 'shared', version FROM cornjacket_migrations_shared WHERE success
          UNION ALL SELECT 'ingestion', version FROM cornjacket_migrations_ingestion WHERE success
          UNION ALL SELECT 'eventhandler', version FROM cornjacket_migrations_eventhandler WHERE success
          UNION ALL SELECT 'tsdb', version FROM cornjacket_migrations_tsdb WHERE success
          UNION ALL SELECT 'actions', version FROM cornjacket_migrations_actions WHERE success
          ORDER BY 1, 2",
    )
    .fetch_all(pool)
    .await
    .expect("the ledgers are there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_newer_than_the_binary_is_refused_by_set_and_version() {
    let (platform, pool) = platform("newer").await;
    assert!(end_of(platform.migrate()).await.status.success());
    sqlx::query(
        "INSERT INTO cornjacket_migrations_ingestion (version, description, success, checksum, execution_time)
         VALUES (99, 'of a later release', true, '\\x00', 0)",
    )
    .execute(&pool)
    .await
    .expect("inserted");
    let commands = roles(&platform).map(|role| role.command());
    for command in commands.into_iter().chain([platform.migrate()]) {
        let said = refusal(command).await;
        assert!(said.contains("newer than this binary") && said.contains("ingestion migration 99"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_stops_the_start_and_keeps_nothing_of_it() {
    let (platform, pool) = platform("failing").await;
    // Its table is made after others by the same migration.
    sqlx::query("CREATE TABLE idempotency (mine int)").execute(&pool).await.expect("created");
    for role in [platform.ingest(), platform.relay("")] {
        let said = refusal(role.command()).await;
        assert!(said.contains("ingestion migrations failed") && said.contains("idempotency"), "{said}");
        for table in ["outbox", "event_store"] {
            assert!(!has(&pool, table).await, "{table} was kept");
        }
    }
    let listed: i64 = sqlx::query_scalar("SELECT count(*) FROM cornjacket_migrations_ingestion")
        .fetch_one(&pool)
        .await
        .expect("an answer");
    assert_eq!(listed, 0, "it is not listed as applied");
    sqlx::query("DROP TABLE idempotency").execute(&pool).await.expect("dropped");
    assert!(end_of(platform.migrate()).await.status.success(), "and applies once nothing is in its way");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_started_at_once_all_succeed_and_are_applied_once() {
    let (platform, pool) = platform("at-once").await;
    let all = [(); 4].map(|()| end_of(platform.migrate()));
    let mut claimed = 0;
    for output in futures::future::join_all(all).await {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = said.split(" migration(s) applied").next().and_then(|before| before.rsplit(' ').next());
        claimed += count.and_then(|count| count.parse::<usize>().ok()).unwrap_or_else(|| panic!("{said}"));
    }
    let first = applied(&pool).await;
    assert_eq!(claimed, first.len(), "each says what it applied itself");
    for set in ["shared", "ingestion", "eventhandler", "tsdb", "actions"] {
        assert!(first.contains(&(set.to_owned(), 1)), "{first:?}");
    }
    let again = end_of(platform.migrate()).await;
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(said.contains("0 migration(s) applied"), "{said}");
    assert_eq!(applied(&pool).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_is_pending_and_changes_nothing() {
    let (platform, pool) = platform("check").await;
    let check = || {
        let mut command = platform.migrate();
        command.arg("--check");
        end_of(command)
    };
    let pending = check().await;
    assert_eq!(pending.status.code(), Some(1));
    let said = String::from_utf8_lossy(&pending.stdout).into_owned();
    for set in ["shared", "ingestion", "eventhandler"] {
        let listed =
            said.lines().any(|line| line.contains(&format!("{set} migrations: ")) && line.contains(" pending [1"));
        assert!(listed, "{said}");
    }
    assert!(String::from_utf8_lossy(&pending.stderr).contains("cornjacket migrate"));
    assert!(!has(&pool, "outbox").await && !has(&pool, "cornjacket_migrations_shared").await, "only looked at");
    assert!(end_of(platform.migrate()).await.status.success());
    assert_eq!(check().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_migrate_refuses_pending_ones_and_names_the_command() {
    let (platform, pool) = platform("no-migrate").await;
    for role in roles(&platform) {
        let mut by_flag = role.command();
        by_flag.arg("--no-migrate");
        let by_variable = role.env("CORNJACKET_NO_MIGRATE", "true").command();
        for command in [by_flag, by_variable] {
            let said = refusal(command).await;
            assert!(said.contains("pending") && said.contains("`cornjacket migrate`"), "{said}");
        }
    }
    assert!(!has(&pool, "outbox").await);
    assert!(end_of(platform.migrate()).await.status.success());
    let mut relay = platform.relay("").env("CORNJACKET_NO_MIGRATE", "true").ready().await;
    assert!(relay.terminate().success());
}
