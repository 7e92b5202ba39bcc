//! Many topics cost as many calls of the broker as few.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::controllers_world::{World, topic};
use crate::harness::http::{client, get};
use crate::harness::{Launch, eventually, free_port, fresh_database, shared_kafka, topic_prefix};
use crate::topics_broker::set;

const TOPICS: usize = 300;
const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn three_hundred_topics_are_looked_after_with_a_number_of_calls_that_does_not_grow_with_them() {
    let database = fresh_database().await;
    let world = World::on(&database).await;
    let prefix = topic_prefix();
    let write = |retention: &str| {
        let all = (0..TOPICS)
            .map(|n| topic(&format!("n{n}"), &format!("{{topicName: {prefix}-{n}, retention: {retention}}}")));
        world.write("topics.yaml", &all.collect::<String>());
    };
    write("1h");
    let (port, directory) = (free_port(), world.resources.path().to_string_lossy().into_owned());
    let port_text = port.to_string();
    let arguments =
        ["controllers", "--resources", &directory, "--port", &port_text, "--bus", "kafka", "--drift-seconds", "1"];
    let process = Launch::new("controllers-many", port, &arguments)
        .env("EVENTHANDLER_DATABASE_URL", &database.url)
        .env("INGESTION_DATABASE_URL", &database.url)
        .env("KAFKA_BROKERS", &shared_kafka().await)
        .ready()
        .await;

    // No relay runs: nothing but the acknowledgement is missing.
    until_applied(&world, "NoInstances").await;
    let made = calls(port).await;
    assert_eq!(made["create_topics"], 1, "{made:?}");
    let idle = after_rounds(port, &made, 3).await;
    assert_eq!(idle["create_topics"], 1);
    assert!(!idle.contains_key("alter_configs") && !idle.contains_key("create_partitions"), "{idle:?}");
    for call in ["describe_configs", "describe_topics"] {
        assert!(idle[call] <= idle["metadata"], "one call a round: {idle:?}");
    }

    write("2h");
    eventually(LONG, || async {
        let altered = calls(port).await.get("alter_configs").copied().unwrap_or(0);
        if altered > 0 { Ok(()) } else { Err("nothing is altered") }
    })
    .await;
    let altered = after_rounds(port, &calls(port).await, 3).await;
    assert_eq!((altered["create_topics"], altered["alter_configs"]), (1, 1), "all at once, and once: {altered:?}");

    let admin = ClientConfig::new().set("bootstrap.servers", shared_kafka().await).create().unwrap();
    set(&admin, &format!("{prefix}-7"), &[("retention.ms", "5000")]).await;
    eventually(LONG, || async { process.log().contains("put back") }).await;
    let corrected = after_rounds(port, &calls(port).await, 3).await;
    assert_eq!(corrected["alter_configs"], 2, "{corrected:?}");
    assert_eq!(process.log().matches("put back").count(), 1, "an edit is none, and a correction is said once");
    let counted = counters(port, "cornjacket_controllers_drift_corrected_total").await;
    assert_eq!(counted, [(String::new(), 1)]);
}

/// Waits until every topic is as described, and ready but for `reason`.
async fn until_applied(world: &World, reason: &str) {
    eventually(LONG, || async {
        let count: i64 = sqlx::query_scalar(
            r#"SELECT count(*) FROM resource_status WHERE kind = 'Topic'
               AND status @@ '$.conditions[*].reason == "ConfigApplied"'
               AND status @@ ('$.conditions[*] ? (@.type == "Ready").reason == "' || $1 || '"')::jsonpath"#,
        )
        .bind(reason)
        .fetch_one(&world.pool)
        .await
        .map_err(|error| error.to_string())?;
        if count == i64::try_from(TOPICS).unwrap() { Ok(()) } else { Err(format!("{count} of {TOPICS}")) }
    })
    .await;
}

/// The calls so far, some looks at the broker later.
async fn after_rounds(port: u16, before: &BTreeMap<String, u64>, rounds: u64) -> BTreeMap<String, u64> {
    eventually(LONG, || async {
        let now = calls(port).await;
        if now["metadata"] >= before["metadata"] + rounds { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await
}

/// Calls of the broker by name.
async fn calls(port: u16) -> BTreeMap<String, u64> {
    let call =
        |(labels, value): (String, u64)| Some((labels.split("call=\"").nth(1)?.split('"').next()?.to_owned(), value));
    counters(port, "cornjacket_controllers_broker_calls_total").await.into_iter().filter_map(call).collect()
}

/// Labels and values of a counter, as `/metrics` has it.
async fn counters(port: u16, name: &str) -> Vec<(String, u64)> {
    let answer = get(&client(), &format!("http://127.0.0.1:{port}/metrics")).await.unwrap();
    let line = |line: &str| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        Some((labels.to_owned(), value.parse().ok()?))
    };
    answer.body.as_str().unwrap().lines().filter_map(line).collect()
}
