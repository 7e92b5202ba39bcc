//! `cornjacket dlq`, from a letter to its end; and where `get` and queries show that there are letters.

use std::process::Output;

use serde_json::{Value, json};

use super::{THING, thing};
use crate::harness::{Bus, Launch, eventually, http};
use crate::projections::{SOON, World, projection};

impl World {
    async fn dlq(&self, arguments: &[&str]) -> Output {
        let all: Vec<&str> = ["dlq"].iter().chain(arguments).copied().collect();
        run(&Launch::new("dlq", 0, &all).env("CORNJACKET_DLQ_URL", self.handle.url(""))).await
    }

    /// What a command prints that succeeds.
    async fn says(&self, arguments: &[&str]) -> String {
        let output = self.dlq(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    async fn listed(&self, arguments: &[&str]) -> Vec<Value> {
        let json = self.says(&[&["list", "-o", "json"], arguments].concat()).await;
        let answer: Value = serde_json::from_str(&json).expect("JSON");
        answer["dead_letters"].as_array().expect("letters").clone()
    }
}

async fn run(launch: &Launch) -> Output {
    let mut command = launch.command();
    tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends")
}

fn sums(number: &str) -> String {
    let fields = format!("sum: \"(has(state.sum) ? state.sum : 0) + {number}\"");
    projection("sums", &format!("  source: {{eventTypes: [thing.seen]}}\n  rebuild: Never\n  fields: {{{fields}}}\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_worked_through_by_the_command_line() {
    let world = World::start("letters-command", Bus::Embedded).await;
    let query = world.platform.query().ready().await;
    world.declare("thing.yaml", THING);
    world.declare("sums.yaml", &sums("event.payload.v"));
    let before = world.until_live("sums", None).await;
    world.post_all(&[thing("a", 1), thing("a", "2"), thing("b", "x"), thing("c", "4")]).await;
    world.until("SELECT count(*) FROM dlq WHERE status = 'pending'", 3).await;

    let table = world.says(&["list", "--consumer", "event-handler"]).await;
    assert!(table.starts_with("ID ") && table.lines().count() == 4 && table.contains("thing.seen"), "{table}");
    assert_eq!(world.listed(&["--limit", "2"]).await.len(), 2);
    let of_b = world.listed(&["--type", "thing.seen", "--aggregate", "b"]).await;
    let id = of_b[0]["dlq_id"].as_str().expect("an id").to_owned();
    let shown = world.says(&["show", &id]).await;
    assert!(
        shown.contains("fields.sum") && shown.contains("\"v\": \"x\"") && shown.contains("aggregate    b"),
        "{shown}"
    );
    shows_letters(&world, &query, 3).await;

    world.declare("sums.yaml", &sums("int(event.payload.v)"));
    world.until_live("sums", Some(&before)).await;
    let nothing = world.dlq(&["replay"]).await;
    assert!(!nothing.status.success());
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("say which letters"));
    assert_eq!(world.says(&["discard", &id, "--reason", "no number"]).await, "1 letter discarded\n");
    let of_a = world.listed(&["--aggregate", "a"]).await[0]["dlq_id"].as_str().expect("an id").to_owned();
    assert_eq!(world.says(&["replay", &of_a]).await, "1 letter to be replayed\n");
    world.until_state("sums", "a", json!({"sum": 3})).await;
    assert_eq!(world.says(&["replay", "--subject", "sums"]).await, "1 letter to be replayed\n");
    world.until_state("sums", "c", json!({"sum": 4})).await;
    let summary = world.says(&["summary"]).await;
    let cells: Vec<&str> = summary.lines().nth(1).expect("a line").split_whitespace().collect();
    assert_eq!(cells, ["event-handler", "sums", "0", "0", "2", "1"], "{summary}");
    let discarded = world.listed(&["--status", "discarded"]).await;
    assert_eq!((discarded.len(), &discarded[0]["reason"]), (1, &json!("no number")));
    let again = world.dlq(&["replay", &id]).await;
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && told.contains("is discarded already"), "{told}");
    shows_letters(&world, &query, 0).await;
}

/// `get` and the list of projections say how many letters wait.
async fn shows_letters(world: &World, query: &crate::harness::Process, count: i64) {
    let types = http::get(&http::client(), &query.url("/api/v1/projections")).await.expect("an answer").body;
    let types = types["projection_types"].as_array().expect("types").clone();
    let sums = types.iter().find(|known| known["projection_type"] == "sums").expect("the projection");
    assert_eq!(sums["dead_letters"], count, "{sums}");
    let launch = Launch::new("get", 0, &["get", "projection"])
        .env("EVENTHANDLER_DATABASE_URL", world.platform.database().url.clone());
    eventually(SOON, || async {
        let output = run(&launch).await;
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = table.lines().find(|line| line.starts_with("sums ")).map(str::to_owned);
        let shown = line.as_ref().is_some_and(|line| line.split_whitespace().any(|cell| cell == count.to_string()));
        if shown && table.contains("DEAD-LETTERS") { Ok(()) } else { Err(table) }
    })
    .await;
}
