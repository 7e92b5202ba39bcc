//! Rows that nothing has updated for their projection's retention go, and do not come back.

use serde_json::json;

use crate::harness::{Bus, eventually, http, shared_kafka};
use crate::projections::{COUNT, SOON, World, projection};

const STALE: &str = "SELECT count(*) FROM projections WHERE projection_type = 'short' AND aggregate_id <> 'new'";

impl World {
    async fn until_none_is_stale(&self) {
        eventually(SOON, || async {
            let stale = self.number(STALE).await;
            if stale == 0 { Ok(()) } else { Err(format!("{stale} rows are past the retention")) }
        })
        .await;
    }

    /// Rows as if nothing had updated them for an hour, more than a page holds.
    async fn neglect(&self) {
        sqlx::query(
            "INSERT INTO projections (projection_id, projection_type, aggregate_id, state, last_event_id,
                    last_event_timestamp, updated_at, shard, position)
             SELECT gen_random_uuid(), 'short', 'k' || n, '{}', gen_random_uuid(), now(), now() - interval '1 hour', 0, 1
               FROM generate_series(1, 25000) n",
        )
        .execute(&self.pool)
        .await
        .expect("inserted");
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.expect("executed");
    }
}

const REFUSE: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
                      CREATE TRIGGER refuse BEFORE DELETE ON projections EXECUTE FUNCTION refuse();";

async fn rows_past_their_retention_go_and_stay_away(name: &str, bus: Bus) {
    let world = World::start(name, bus).await;
    let short = format!("{COUNT}  retention: 15s\n");
    world.declare("short.yaml", &projection("short", &short));
    world.until_status("short", "live").await;
    world.post("old", json!({"value": 1})).await;
    world.until_state("short", "old", json!({"n": 1})).await;
    world.until_none_is_stale().await;

    // However many, and whatever keeps them for a while.
    world.execute(REFUSE).await;
    world.neglect().await;
    eventually(SOON, || async {
        let log = world.handle_log();
        log.contains("cannot delete rows past the projection's retention").then_some(()).ok_or(log)
    })
    .await;
    let ready = http::get(&http::client(), &world.handle.url("/readyz")).await.expect("an answer");
    assert_eq!(ready.status, 200, "{}", ready.body);
    world.execute("DROP TRIGGER refuse ON projections").await;
    world.until_none_is_stale().await;
    assert_eq!(world.handle_log().matches("cannot delete rows past").count(), 1, "{}", world.handle_log());

    // Neither where the rows are built anew beside the live ones, nor where they catch up in their place.
    world.declare("short.yaml", &projection("short", &short.replace("state.n + 1 : 1", "state.n + 2 : 2")));
    world.post("new", json!({"value": 1})).await;
    world.until_state("short", "new", json!({"n": 2})).await;
    assert_eq!(world.number(STALE).await, 0, "rows past the retention came back with the rebuild");
    let in_place = short.replace("state.n + 1 : 1", "state.n + 3 : 3")
        + "  rebuild: InPlace\n  migrationPolicy: {destructive: Allow}\n";
    world.declare("short.yaml", &projection("short", &in_place));
    world.post("new", json!({"value": 2})).await;
    world.until_none_is_stale().await;
    world.until_status("short", "live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_past_their_retention_go_and_stay_away_on_the_embedded_bus() {
    rows_past_their_retention_go_and_stay_away("retention-embedded", Bus::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_past_their_retention_go_and_stay_away_on_kafka() {
    rows_past_their_retention_go_and_stay_away("retention-kafka", Bus::Kafka(shared_kafka().await)).await;
}
