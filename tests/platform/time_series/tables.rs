//! Tables over their life: columns that come and go, approvals, retention, names that two want, controllers that die.

use std::os::unix::process::ExitStatusExt as _;

use std::str::FromStr as _;

use chrono::TimeDelta;
use controllers::effects::postgres::{Deletion, Seat, seat_options};
use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;

use super::world::{COLUMNS, SOON, World, ago, manifest};
use crate::harness::{Bus, Launch, Platform, eventually, fresh_database};

const FILES: &str = "SELECT string_agg(c.relname || '=' || pg_relation_filenode(c.oid), ' ' ORDER BY c.relname)
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'timeseries.columns'::regclass";
const NAMES: &str = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = 'timeseries.columns'::regclass AND attnum > 0 AND NOT attisdropped";

#[tokio::test(flavor = "multi_thread")]
async fn a_column_is_added_without_rewriting_and_filled_from_then_on() {
    let world = World::start("added").await;
    world.declare_plain("columns").await;
    world.post_value("a", json!(1)).await;
    world.until_rows("columns", 1).await;
    let files = world.text(FILES.to_owned()).await;
    let more = format!("{COLUMNS}    - {{name: half, type: Double, from: event.payload.value / 2.0}}\n");
    world.declare("columns", &manifest("columns", "", &more));
    eventually(SOON, || async { world.text(NAMES.to_owned()).await == "time aggregate_id event_id value unit half" })
        .await;
    world.until_running("columns").await;
    world.post_value("a", json!(5)).await;
    world.until_rows("columns", 2).await;
    let halves = world
        .text("SELECT string_agg(coalesce(half::text, 'none'), ' ' ORDER BY value) FROM timeseries.columns".to_owned());
    assert_eq!(halves.await, "none 2.5");
    let after = world.text(FILES.to_owned()).await;
    assert!(after.contains(&files), "no partition was rewritten: {files}, {after}");
    let answer = world.get("/api/v1/timeseries/columns?step=1d&agg=count&column=half").await;
    assert_eq!(answer.body["points"][0]["half"], 1, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_is_dropped_only_when_somebody_approves_it() {
    let world = World::start("dropped").await;
    world.declare_plain("columns").await;
    world.post_value("a", json!(1)).await;
    world.until_rows("columns", 1).await;
    let less = "    columns:\n    - {name: unit, type: Text, from: \"'none'\"}\n";
    world.declare("columns", &manifest("columns", "", less));
    let message = world.until_condition("columns", "ApprovalRequired", "True", "ApprovalRequired").await;
    assert!(message.contains("drop the column 'value' with all its values"), "{message}");
    world.post_value("a", json!(2)).await;
    world.until_rows("columns", 2).await;
    assert_eq!(world.text("SELECT sum(value)::text FROM timeseries.columns".to_owned()).await, "3", "what was goes on");
    let hash =
        message.split("cornjacket.io/approve=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a command");
    let approved = manifest("columns", "", less)
        .replace("{name: columns}", &format!("{{name: columns, annotations: {{cornjacket.io/approve: {hash}}}}}"));
    world.declare("columns", &approved);
    eventually(SOON, || async { world.text(NAMES.to_owned()).await == "time aggregate_id event_id unit" }).await;
    world.until_running("columns").await;
    world.post_value("a", json!(3)).await;
    world.until_rows("columns", 3).await;
    let index = world.text(
        "SELECT count(*)::text FROM pg_indexes WHERE tablename = 'columns' AND schemaname = 'timeseries'".to_owned(),
    );
    assert_eq!(index.await, "1", "the index is there again");
    let ledger = world.text("SELECT string_agg(class || ' ' || state, ', ' ORDER BY id) FROM series_ledger".to_owned());
    assert_eq!(ledger.await, "additive done, destructive done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_changes_is_denied_where_the_policy_denies_it() {
    let world = World::start("denied").await;
    world.declare_plain("columns").await;
    let retyped =
        COLUMNS.replace("type: Double, from: event.payload.value", "type: Text, from: string(event.payload.value)");
    world.declare("columns", &manifest("columns", "  migrationPolicy: {destructive: Deny}\n", &retyped));
    let message = world.until_condition("columns", "Stalled", "True", "DestructiveDenied").await;
    assert!(
        message.contains("make the column 'value' text: its values, which are double precision, are lost"),
        "{message}"
    );
    world.post_value("a", json!(1)).await;
    world.until_rows("columns", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_drops_partitions_and_others_are_made_ahead() {
    let world = World::start("retention").await;
    let kept = |retention: &str| {
        manifest("kept", "", &format!("    chunkInterval: 1h\n    retention: {retention}\n{COLUMNS}"))
    };
    world.declare("kept", &kept("7d"));
    world.until_running("kept").await;
    let old = ago(TimeDelta::hours(50));
    world
        .post(&[
            ("a".to_owned(), old, json!({"value": 1})),
            ("a".to_owned(), ago(TimeDelta::minutes(1)), json!({"value": 2})),
        ])
        .await;
    world.until_rows("kept", 2).await;
    let ahead = format!("kept_{}0000", (ago(TimeDelta::zero()) + TimeDelta::hours(2)).format("%Y%m%d%H"));
    let there = eventually(SOON, || async {
        let there = world.partitions("kept").await;
        if there.contains(&ahead) { Ok(there) } else { Err(there) }
    })
    .await;
    let oldest = format!("kept_{}0000", old.format("%Y%m%d%H"));
    assert!(there.contains(&oldest), "{there}");
    world.declare("kept", &kept("1d"));
    world.until_rows("kept", 1).await;
    let left = world.partitions("kept").await;
    assert!(!left.contains(&oldest) && left.contains(&ahead), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_projections_with_one_table_the_first_has_it() {
    let world = World::start("conflict").await;
    world.declare_plain("meters").await;
    let other = manifest("meters", "  type: others\n", COLUMNS).replace("{name: meters}", "{name: zzz}");
    world.declare("zzz", &other);
    let message = world.until_condition("zzz", "Stalled", "True", "Conflict").await;
    assert!(message.contains("the table 'meters' is claimed by Projection default/meters"), "{message}");
    world.post_value("a", json!(1)).await;
    world.until_rows("meters", 1).await;
    // Rows that were retained are not mixed with those of another.
    std::fs::remove_file(world.platform.resources().join("meters.yaml")).expect("it is there");
    let message = world.until_condition("zzz", "Stalled", "True", "Conflict").await;
    let retained = eventually(SOON, || async {
        let now = world.until_condition("zzz", "Conflict", "True", "Conflict").await;
        if now.contains("which were retained") { Ok(now) } else { Err(message.clone()) }
    })
    .await;
    assert!(retained.contains("rows of the projection 'meters'"), "{retained}");
    assert_eq!(world.count("meters").await, 1);
}

/// What migrations leave.
const LEFT: &str = "SELECT concat_ws(E'\n', (SELECT string_agg(concat_ws(' | ', step, statement, class, state), E'\n' ORDER BY id) FROM series_ledger),
    (SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum) FROM pg_attribute
      WHERE attrelid = to_regclass('timeseries.columns') AND attnum > 0),
    (SELECT string_agg(pg_get_indexdef(indexrelid), E'\n') FROM pg_index WHERE indrelid = to_regclass('timeseries.columns')),
    (SELECT string_agg(concat_ws(' ', table_name, projection_type, layout, columns::text, changes), E'\n') FROM series_table))";

/// Controllers make a table and then change it, and die at a point while they do the former or the latter.
async fn left_by(name: &str, die_at: Option<usize>) -> String {
    let platform = Platform::new(&format!("series-crash-{name}"), fresh_database().await, Bus::Embedded);
    assert!(platform.migrate().status().expect("it starts").success());
    let pool = platform.database().pool().await;
    let less = "  migrationPolicy: {destructive: Allow}\n";
    let retyped =
        COLUMNS.replace("type: Double, from: event.payload.value", "type: Text, from: string(event.payload.value)");
    let definitions = [manifest("columns", "", COLUMNS), manifest("columns", less, &retyped)];
    for (number, definition) in definitions.iter().enumerate() {
        std::fs::write(platform.resources().join("columns.yaml"), definition).expect("our own directory");
        if die_at == Some(number) {
            let launch = platform.controllers().env("CORNJACKET_CRASH_AT", "migration.transaction");
            let mut process = Launch { name: format!("{}-dies", launch.name), ..launch }.start();
            let status = tokio::task::spawn_blocking(move || process.wait_for_end(SOON)).await.expect("it ends");
            assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
        }
        let mut controllers = platform.controllers().ready().await;
        let done = i64::try_from(number).expect("small") + 1;
        eventually(SOON, || async {
            let steps: i64 = sqlx::query_scalar("SELECT count(*) FROM series_ledger WHERE state = 'done'")
                .fetch_one(&pool)
                .await
                .unwrap_or(0);
            steps == done
        })
        .await;
        assert!(tokio::task::block_in_place(|| controllers.terminate()).success());
    }
    sqlx::query_scalar(LEFT).fetch_one(&pool).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_that_die_in_a_step_leave_what_the_next_go_on_from() {
    let undisturbed = left_by("never", None).await;
    assert!(undisturbed.contains("unit text") && undisturbed.contains("| destructive | done"), "{undisturbed}");
    for (name, number) in [("making", 0), ("changing", 1)] {
        assert_eq!(left_by(name, Some(number)).await, undisturbed, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_goes_with_its_series_when_that_is_asked_for_and_never_while_it_is_registered() {
    let world = World::start("goes").await;
    world.declare_plain("goes").await;
    world.post_value("a", json!(1)).await;
    world.until_rows("goes", 1).await;
    let options = PgConnectOptions::from_str(&world.platform.database().url).expect("a URL");
    let mut seat = Seat::connect(&seat_options(options), "default").await.expect("connected");
    assert_eq!(seat.delete_series("goes", "goes", true).await.expect("asked"), Deletion::Done);
    assert_eq!(seat.delete_series("other", "goes", true).await.expect("asked"), Deletion::Done);
    assert_eq!(world.count("goes").await, 1, "it is registered, and nobody else's");

    std::fs::remove_file(world.platform.resources().join("goes.yaml")).expect("it is there");
    eventually(SOON, || async {
        let answer = seat_asked(&world, "goes").await;
        if answer == Deletion::Done && world.count("goes").await == -1 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let left = "SELECT concat((SELECT count(*) FROM series_table), (SELECT count(*) FROM series_progress), (SELECT count(*) FROM series_cursor))";
    assert_eq!(world.text(left.to_owned()).await, "000");
    // Made anew, it is filled from the event store.
    world.declare_plain("goes").await;
    world.until_rows("goes", 1).await;
}

async fn seat_asked(world: &World, name: &str) -> Deletion {
    let options = PgConnectOptions::from_str(&world.platform.database().url).expect("a URL");
    let mut seat = Seat::connect(&seat_options(options), "default").await.expect("connected");
    seat.delete_series(name, name, true).await.expect("asked")
}
