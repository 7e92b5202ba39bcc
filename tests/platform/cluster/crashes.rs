//! The controllers are killed between any two effects: what the next process makes of it is what an undisturbed run makes.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use controllers::crash;
use controllers::effects::kafka::Kafka;
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{SOON, World, event_type};
use crate::harness::{Bus, administered, eventually, fresh_database, shared_kafka};

/// What happens to the resources, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Apply,
    Edit,
    Delete,
}

const PHASES: [Phase; 3] = [Phase::Apply, Phase::Edit, Phase::Delete];

/// Each effect, in a phase that has it.
const POINTS: [(&str, Phase); 19] = [
    ("registered elsewhere", Phase::Apply),
    ("registered", Phase::Apply),
    ("topics claimed", Phase::Apply),
    ("topic made", Phase::Apply),
    ("status written", Phase::Apply),
    ("event told", Phase::Apply),
    ("registered elsewhere", Phase::Edit),
    ("registered", Phase::Edit),
    ("finalizer added", Phase::Edit),
    ("topic made", Phase::Edit),
    ("partitions added", Phase::Edit),
    ("configuration changed", Phase::Edit),
    ("registered elsewhere", Phase::Delete),
    ("registered", Phase::Delete),
    ("topic deleted", Phase::Delete),
    ("progress deleted", Phase::Delete),
    ("series deleted", Phase::Delete),
    ("cleaned up", Phase::Delete),
    ("finalizer removed", Phase::Delete),
];

/// Runs at the same time; they mostly wait.
const TOGETHER: usize = 4;

fn topics(prefix: &str, rooms: &str) -> String {
    format!(
        "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata: {{name: rooms}}\n\
         spec: {{topicName: {prefix}-rooms, default: true, {rooms}}}\n---\n"
    )
}

fn halls(prefix: &str) -> String {
    format!(
        "apiVersion: cornjacket.io/v1alpha1\nkind: Topic\nmetadata: {{name: halls}}\n\
         spec: {{topicName: {prefix}-halls, partitions: 1, prefixes: [hall.], deletionPolicy: Delete}}\n---\n"
    )
}

/// Nobody feeds it: there is no handler.
const PROJECTION: &str = "apiVersion: cornjacket.io/v1alpha1\nkind: Projection\nmetadata: {name: halls}\n\
     spec: {source: {eventTypes: [hall.left]}, latest: {}, deletionPolicy: Delete}\n---\n\
     apiVersion: cornjacket.io/v1alpha1\nkind: Projection\nmetadata: {name: levels}\n\
     spec: {source: {eventTypes: [hall.left]}, deletionPolicy: Delete, timeSeries: {table: levels, \
     columns: [{name: v, type: Double, from: event.payload.v}]}}\n---\n";

/// One run through all phases.
struct Run {
    world: World,
    elsewhere: PgPool,
    prefix: String,
    kafka: Kafka,
}

impl Run {
    async fn new(number: usize) -> Self {
        let brokers = shared_kafka().await;
        let mut world = World::new(&format!("crash-{number}"), Bus::Kafka(brokers.clone())).await;
        let home = fresh_database().await;
        let elsewhere = std::mem::replace(&mut world.pool, home.pool().await);
        world.platform = world.platform.with_handler_database(home);
        assert!(world.platform.migrate().status().unwrap().success());
        let prefix = format!("crash-{number}");
        let kafka = administered(&brokers);
        Self { world, elsewhere, prefix, kafka }
    }

    fn begin(&self, phase: Phase) {
        let (world, prefix) = (&self.world, &self.prefix);
        match phase {
            Phase::Apply => {
                let rooms = topics(prefix, "partitions: 2, config: {cleanup.policy: compact}");
                world.apply(&format!("{rooms}{}", event_type("room.left", "{description: one}")));
            }
            Phase::Edit => {
                let rooms = topics(prefix, "partitions: 3, allowRepartition: true, config: {cleanup.policy: delete}");
                let types = [event_type("room.left", "{description: two}"), event_type("hall.left", "{}")].concat();
                world.apply(&format!("{rooms}{}{types}{PROJECTION}", halls(prefix)));
            }
            Phase::Delete => {
                let all = ["topic/halls", "eventtype/hall.left", "projection/halls", "projection/levels"];
                world.kubectl(&[&["delete", "--wait=false"], &all[..]].concat());
            }
        }
    }

    async fn end(&self, phase: Phase) {
        let world = &self.world;
        let ready = async |kind: &str, name: &str| {
            world.until_ready_is(kind, name, "True", "Available").await;
        };
        match phase {
            Phase::Apply | Phase::Edit => {
                ready("topic", "rooms").await;
                ready("eventtype", "room.left").await;
            }
            Phase::Delete => {
                let all = ["topic/halls", "eventtype/hall.left", "projection/halls", "projection/levels"];
                let is_gone = |what: &&str| what.split_once('/').is_some_and(|(k, n)| world.get(k, n).is_none());
                eventually(SOON, async || all.iter().all(is_gone)).await;
                let left = "SELECT count(*) FROM registration WHERE state = 'active' AND name LIKE 'hall%'";
                eventually(SOON, async || {
                    sqlx::query_scalar::<_, i64>(left).fetch_one(&world.pool).await.is_ok_and(|left| left == 0)
                })
                .await;
                // The process before this one said that it made it.
                eventually(SOON, async || {
                    let exists = world.condition("topic", "rooms", "TopicExists").ok_or("not said")?;
                    if exists.1 == "TopicExists" { Ok(()) } else { Err(exists.1) }
                })
                .await;
            }
        }
        if phase == Phase::Edit {
            ready("topic", "halls").await;
            ready("eventtype", "hall.left").await;
            world.until_ready_is("projection", "halls", "False", "NoInstances").await;
            world.until_ready_is("projection", "levels", "False", "NoInstances").await;
            let made = "SELECT count(*) FROM series_table WHERE table_name = 'levels'";
            eventually(SOON, async || {
                sqlx::query_scalar::<_, i64>(made).fetch_one(&world.pool).await.is_ok_and(|made| made == 1)
            })
            .await;
        }
    }

    /// Through all phases; in the one that `point` is in, the controllers die there and are started again.
    async fn through(&self, point: Option<(&str, Phase)>) {
        let (_registry, _lifecycle) = self.world.data_plane();
        for phase in PHASES {
            self.begin(phase);
            let launch = self.world.platform.controllers_of(&self.world.kubeconfig(), &format!("-{phase:?}"));
            if let Some((name, _)) = point.filter(|(_, of)| *of == phase) {
                let mut dying = launch.clone().env(crash::VARIABLE, name).start();
                let ended = tokio::task::block_in_place(|| dying.wait_for_end(SOON));
                assert_eq!(ended.signal(), Some(9), "{name}: by SIGKILL");
                // Otherwise it would take nine seconds to expire.
                self.world.kubectl(&["delete", "lease", "cornjacket-controllers"]);
            }
            let mut controllers = launch.ready().await;
            self.end(phase).await;
            assert!(controllers.terminate().success());
        }
    }

    /// What is there in the end, without what differs from run to run.
    async fn state(&self) -> Value {
        let registered =
            "SELECT coalesce(jsonb_agg(to_jsonb(r) - 'hash' - 'updated_at' - 'namespace' ORDER BY kind, name), '[]')
             FROM registration r";
        let rows = async |pool: &PgPool| sqlx::query_scalar::<_, Value>(registered).fetch_one(pool).await.unwrap();
        let names = ["rooms", "halls"].map(|name| format!("{}-{name}", self.prefix));
        let topics = self.kafka.describe(names.iter().map(String::as_str)).await.unwrap();
        let topics: Vec<String> = topics
            .iter()
            .map(|(name, topic)| {
                let policy = topic.config.as_ref().ok().and_then(|config| config.get("cleanup.policy")?.value.clone());
                format!("{name} {} {policy:?}", topic.partitions)
            })
            .collect();
        let objects: Value = serde_json::from_str(&self.world.kubectl(&["get", "cornjacket", "-o", "json"])).unwrap();
        let object = |object: &Value| {
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let condition =
                |c: &Value| json!([c["type"], c["status"], c["reason"], c["observedGeneration"]]).to_string();
            let conditions: BTreeSet<String> = conditions.map(condition).collect();
            json!({
                "name": object["metadata"]["name"], "finalizers": object["metadata"]["finalizers"],
                "generation": object["status"]["observedGeneration"], "drift": object["status"]["drift"],
                "partitions": object["status"]["partitions"], "conditions": conditions,
            })
        };
        let objects: Vec<Value> = objects["items"].as_array().into_iter().flatten().map(object).collect();
        let state = json!({
            "here": rows(&self.world.pool).await, "elsewhere": rows(&self.elsewhere).await,
            "topics": topics, "objects": objects,
        });
        serde_json::from_str(&state.to_string().replace(&self.prefix, "PREFIX")).unwrap()
    }
}

/// Names of the points in a file of the controllers, and in those below a directory.
fn points_below(path: &Path, points: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            points_below(&entry.unwrap().path(), points);
        }
        return;
    }
    let text = std::fs::read_to_string(path).unwrap();
    let names = text.split("crash::point(\"").skip(1).filter_map(|rest| rest.split('"').next());
    points.extend(names.map(str::to_owned));
}

#[test]
fn every_point_is_died_at() {
    let mut points = BTreeSet::new();
    points_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("controllers/src"), &mut points);
    // Those of migrations have a test of their own.
    points.retain(|name| !name.starts_with("migration."));
    assert_eq!(points, POINTS.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_effects_the_end_is_that_of_an_undisturbed_run() {
    let undisturbed = Run::new(0).await;
    undisturbed.through(None).await;
    let expected = undisturbed.state().await;
    let runs = stream::iter(POINTS.iter().enumerate()).map(async |(number, point)| {
        let run = Run::new(number + 1).await;
        run.through(Some(*point)).await;
        (point, run.state().await)
    });
    let mut runs = runs.buffer_unordered(TOGETHER);
    while let Some((point, state)) = runs.next().await {
        assert_eq!(state, expected, "killed at {point:?}");
    }
}
