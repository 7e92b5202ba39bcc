//! Migration plans of projections: what loses data waits, what fails is said, and who dies in between leaves what the next
//! one goes on from.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use controllers::effects::postgres::migrations::{Migrator, PROJECTIONS};
use controllers::effects::postgres::{DatabaseError, Seat, seat_options};
use controllers::projection::migration::indexes::{Wanted, plans};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::harness::{Bus, Launch, Platform, Process, eventually, fresh_database};
use crate::projection_upkeep::{BUILT, INDEXED};
use crate::projections::{COUNT, SOON, World, projection};

/// Controllers alone, on a database that nobody else uses.
struct Alone {
    platform: Platform,
    pool: PgPool,
}

impl Alone {
    async fn new(name: &str) -> Self {
        let platform = Platform::new(&format!("migrations-{name}"), fresh_database().await, Bus::Embedded);
        assert!(platform.migrate().status().expect("it starts").success());
        let pool = platform.database().pool().await;
        Self { platform, pool }
    }

    fn declare(&self, manifest: &str) {
        std::fs::write(self.platform.resources().join("it.yaml"), manifest).expect("our own directory");
    }

    /// As a handler that has caught up leaves it: one row, served by some other definition.
    async fn serve(&self, projection_type: &str) {
        sqlx::query(
            "INSERT INTO projection_progress (projection_type, live_hash, status) VALUES ($1, repeat('0', 64), 'live')",
        )
        .bind(projection_type)
        .execute(&self.pool)
        .await
        .expect("inserted");
        self.add_row(projection_type).await;
    }

    async fn add_row(&self, projection_type: &str) {
        sqlx::query(ROW).bind(projection_type).execute(&self.pool).await.expect("inserted");
    }

    /// Controllers that die at a point, waited for.
    async fn die_at(&self, point: &str) {
        let launch = self.platform.controllers().env("CORNJACKET_CRASH_AT", point);
        let mut process = Launch { name: format!("{}-dies", launch.name), ..launch }.start();
        let status = tokio::task::spawn_blocking(move || process.wait_for_end(SOON)).await.expect("it ends");
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "at {point}");
    }

    async fn status(&self, name: &str) -> Option<Value> {
        sqlx::query_scalar("SELECT status FROM resource_status WHERE kind = 'Projection' AND name = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .expect("an answer")
    }

    /// Waits for a condition; gives its message.
    async fn until_condition(&self, name: &str, condition: &str, status: &str, reason: &str) -> String {
        eventually(SOON, || async {
            let document = self.status(name).await.ok_or("no status")?;
            let conditions = document["conditions"].as_array().ok_or("no conditions")?;
            let is = conditions.iter().find(|c| c["type"] == condition).ok_or("no such condition")?;
            if is["status"] == status && is["reason"] == reason {
                Ok(is["message"].as_str().unwrap_or_default().to_owned())
            } else {
                Err(is.to_string())
            }
        })
        .await
    }

    async fn text(&self, sql: &'static str) -> String {
        let text: Option<String> = sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect("an answer");
        text.unwrap_or_default()
    }

    /// Everything that migrations leave: indexes, ledger, and what is registered.
    async fn end_state(&self) -> [String; 3] {
        [self.text(INDEXES).await, self.text(LEDGER).await, self.text(REGISTERED).await]
    }
}

const ROW: &str = "INSERT INTO projections (projection_id, projection_type, aggregate_id, state, last_event_id,
                          last_event_timestamp, shard, position)
                   VALUES (gen_random_uuid(), $1, gen_random_uuid()::text, '{}', gen_random_uuid(), now(), 0, 1)";
const INDEXES: &str =
    "SELECT string_agg(pg_get_indexdef(indexrelid) || indisvalid, E'\n' ORDER BY indexrelid::regclass::text)
                         FROM pg_index WHERE indrelid = 'projections'::regclass";
const LEDGER: &str =
    "SELECT string_agg(concat_ws(' | ', projection_type, step, statement, class, state, error), E'\n' ORDER BY step)
                        FROM migration_ledger";
/// The name of the topic, and with it the form of an event type, is another in each run. A directory has no generations of its
/// own: a resource whose status was not written yet when the process died gets the next one.
const REGISTERED: &str = "SELECT string_agg(concat_ws(' ', kind, name, hash, state), E'\n' ORDER BY name)
                            FROM registration WHERE kind = 'Projection'";
const INVALID: &str = "SELECT string_agg(indexrelid::text, ' ') FROM pg_index
                        WHERE indrelid = 'projections'::regclass AND NOT indisvalid";
/// Locks of seats in this database.
const SEATS: &str = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND classid = 1667916660
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
const MIGRATORS: &str = "SELECT count(*)::text FROM pg_stat_activity
                          WHERE datname = current_database() AND application_name = 'cornjacket migrations'";

/// A change that deletes the rows served, which nobody is asked about.
fn in_place() -> String {
    projection("indexed", &format!("{INDEXED}  rebuild: InPlace\n  migrationPolicy: {{destructive: Allow}}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_between_a_step_and_its_ledger_row_leaves_what_an_undisturbed_run_leaves() {
    let undisturbed = {
        let alone = Alone::new("undisturbed").await;
        alone.serve("indexed").await;
        alone.declare(&in_place());
        let _controllers = alone.platform.controllers().ready().await;
        alone.until_condition("indexed", "MigrationsApplied", "True", "MigrationsApplied").await;
        alone.end_state().await
    };
    assert!(
        undisturbed[0].contains("state_index_key") && undisturbed[2].contains("Projection indexed "),
        "{undisturbed:?}"
    );
    assert_eq!(undisturbed[1].lines().filter(|line| line.contains("| done")).count(), 3, "{}", undisturbed[1]);
    for point in ["migration.registration", "migration.started", "migration.concurrently", "migration.transaction"] {
        let alone = Alone::new(point).await;
        alone.serve("indexed").await;
        alone.declare(&in_place());
        alone.die_at(point).await;
        assert_ne!(alone.end_state().await, undisturbed, "{point} is the end already");
        let _controllers = alone.platform.controllers().ready().await;
        alone.until_condition("indexed", "MigrationsApplied", "True", "MigrationsApplied").await;
        assert_eq!(alone.end_state().await, undisturbed, "killed at {point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_half_built_is_dropped_and_built_anew() {
    let alone = Alone::new("half-built").await;
    // An index waits for older transactions.
    let mut older = alone.pool.begin().await.expect("begun");
    sqlx::query(ROW).bind("other").execute(&mut *older).await.expect("inserted");
    alone.declare(&projection("indexed", INDEXED));
    let mut controllers = alone.platform.controllers().ready().await;
    let half = eventually(SOON, || async {
        let invalid = alone.text(INVALID).await;
        (!invalid.is_empty()).then_some(invalid)
    })
    .await;
    alone.until_condition("indexed", "MigrationsApplied", "False", "Progressing").await;
    controllers.kill9();
    // The server gives up what nobody waits for.
    eventually(SOON, || async { alone.text(MIGRATORS).await == "0" }).await;
    assert_eq!(alone.text(INVALID).await, half);
    controllers.start_again();
    older.rollback().await.expect("rolled back");
    alone.until_condition("indexed", "MigrationsApplied", "True", "MigrationsApplied").await;
    assert_eq!(alone.text(INVALID).await, "");
    let ledger = alone.text(LEDGER).await;
    assert!(ledger.contains("drop index") && !ledger.contains("| started"), "{ledger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_an_earlier_release_is_taken_over_as_it_is() {
    let alone = Alone::new("taken-over").await;
    sqlx::raw_sql(
        "CREATE INDEX projections_state_3dd5057d0844e9de ON projections (state_index_key(state -> 'value'))
          WHERE projection_type = 'indexed';
         CREATE INDEX projections_state_0000000000000000 ON projections (state_index_key(state -> 'it''s'))
          WHERE projection_type = 'it''s gone'",
    )
    .execute(&alone.pool)
    .await
    .expect("created");
    let kept = "SELECT 'projections_state_3dd5057d0844e9de'::regclass::oid::text";
    let before = alone.text(kept).await;
    alone.declare(&projection("indexed", INDEXED));
    let _controllers = alone.platform.controllers().ready().await;
    alone.until_condition("indexed", "MigrationsApplied", "True", "MigrationsApplied").await;
    eventually(SOON, || async {
        let ledger = alone.text(LEDGER).await;
        let dropped = "it's gone | drop index projections_state_0000000000000000 | \
                       DROP INDEX CONCURRENTLY IF EXISTS projections_state_0000000000000000 | additive | done";
        if ledger == dropped { Ok(()) } else { Err(ledger) }
    })
    .await;
    assert_eq!(alone.text(kept).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_stalled_and_what_is_served_stays() {
    let alone = Alone::new("denied").await;
    alone.serve("indexed").await;
    let denied = in_place().replace("destructive: Allow", "destructive: Deny");
    alone.declare(&denied);
    let _controllers = alone.platform.controllers().ready().await;
    let message = alone.until_condition("indexed", "Stalled", "True", "DestructiveDenied").await;
    assert!(message.contains("[destructive] delete the rows served") && message.contains("Deny"), "{message}");
    alone.until_condition("indexed", "ApprovalRequired", "False", "DestructiveDenied").await;
    assert_eq!(alone.text("SELECT count(*)::text FROM registration WHERE name = 'indexed'").await, "0");
    assert_eq!(alone.text("SELECT count(*)::text FROM migration_ledger").await, "0");
    // Where there is nothing to lose, nothing is denied.
    sqlx::query("DELETE FROM projections").execute(&alone.pool).await.expect("deleted");
    alone.until_condition("indexed", "MigrationsApplied", "True", "MigrationsApplied").await;
}

/// The running platform, with a projection of five events that was changed so that its rows would be deleted.
async fn changed_in_place(name: &str) -> (World, Process, String) {
    let world = World::start(name, Bus::Embedded).await;
    // Ready needs one of every role.
    let query = world.platform.query().ready().await;
    let in_place = format!("{COUNT}  rebuild: InPlace\n");
    world.declare("count.yaml", &projection("count", &in_place));
    for value in 1..=5 {
        world.post("a", json!({"value": value})).await;
    }
    world.until_state("count", "a", json!({"n": 5})).await;
    world.until_condition("count", "Ready", "True", "Available").await;
    let changed = projection("count", &in_place.replace("state.n + 1 : 1", "state.n + 2 : 2"));
    world.declare("count.yaml", &changed);
    world.until_condition("count", "Ready", "False", "ApprovalRequired").await;
    (world, query, changed)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loses_rows_waits_for_the_approval_of_this_very_plan_and_then_goes_on() {
    let (world, _query, changed) = changed_in_place("approval").await;
    let message = world.until_condition("count", "ApprovalRequired", "True", "ApprovalRequired").await;
    let hash = world.plan_hash("count").await.expect("a plan waits");
    let command = format!("kubectl annotate projection/count -n default cornjacket.io/approve={hash} --overwrite");
    assert!(message.contains(&command), "{message}");
    assert!(message.contains("DELETE FROM projections WHERE projection_type = 'count'"), "{message}");
    world.until_condition("count", "MigrationsApplied", "True", "MigrationsApplied").await;

    // The old definition stays served meanwhile.
    world.post("a", json!({"value": 6})).await;
    world.until_state("count", "a", json!({"n": 6})).await;
    let registered = "SELECT generation FROM registration WHERE name = 'count'";
    assert_eq!(world.number(registered).await, 1);
    assert_eq!(world.plan_hash("count").await.as_deref(), Some(hash.as_str()), "the same plan as before");

    // An approval of one plan is none of another.
    let approved = world.approve("count", &changed).await;
    world.declare("count.yaml", &approved.replace("state.n + 2 : 2", "state.n + 3 : 3"));
    eventually(SOON, || async { world.plan_hash("count").await.is_some_and(|other| other != hash) }).await;
    let message = world.until_condition("count", "ApprovalRequired", "True", "ApprovalRequired").await;
    assert!(message.contains("approves another plan"), "{message}");
    assert_eq!(world.number(registered).await, 1);

    world.declare("count.yaml", &approved);
    world.until_condition("count", "Ready", "True", "Available").await;
    world.until_state("count", "a", json!({"n": 12})).await;
    world.until_condition("count", "ApprovalRequired", "False", "NoApprovalNeeded").await;
    assert_eq!(world.plan_hash("count").await, None);
    let noted = "SELECT count(*) FROM migration_ledger WHERE class = 'destructive' AND state = 'done'";
    assert_eq!(world.number(noted).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_taken_back_needs_no_approval() {
    let (world, _query, changed) = changed_in_place("taken-back").await;
    world.declare("count.yaml", &changed.replace("state.n + 2 : 2", "state.n + 1 : 1"));
    world.until_condition("count", "Ready", "True", "Available").await;
    world.until_state("count", "a", json!({"n": 5})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_lock_takes_no_step() {
    let alone = Alone::new("unseated").await;
    let options: PgConnectOptions = alone.platform.database().url.parse().expect("our own URL");
    let mut seat = Seat::connect(&seat_options(options.clone()), "default").await.expect("connected");
    assert!(seat.take().await.expect("an answer"));
    let badge = seat.badge().await.expect("an answer");
    let mut migrator = Migrator::connect(options.clone(), badge.clone(), PROJECTIONS).await.expect("connected");
    assert!(migrator.lock().await.expect("an answer"));
    let mut second = Migrator::connect(options.clone(), badge, PROJECTIONS).await.expect("connected");
    assert!(!second.lock().await.expect("an answer"), "one process migrates at a time");

    let wanted = Wanted { projection_type: "p".to_owned(), fields: vec!["a".to_owned()], writes: true };
    let plan = plans(&[wanted], &migrator.catalog().await.expect("an answer")).remove(0);
    drop(seat);
    // The server ends a session a moment after its client has left.
    eventually(Duration::from_secs(10), || async { alone.text(SEATS).await == "0" }).await;
    // Another process sits down.
    let mut other = Seat::connect(&seat_options(options), "default").await.expect("connected");
    assert!(other.take().await.expect("an answer"));
    let refused = migrator.take(&plan, &plan.steps[0]).await;
    assert!(matches!(refused, Err(DatabaseError::SeatLost)), "{refused:?}");
    assert_eq!(alone.text("SELECT count(*)::text FROM migration_ledger").await, "0");
    let built: i64 = sqlx::query_scalar(BUILT).fetch_one(&alone.pool).await.expect("a number");
    assert_eq!(built, 0);
}
