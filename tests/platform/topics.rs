//! Topics on a real broker are made and kept as they are described, and no more of them is touched than is asked for.

use serde_json::json;

use crate::topics_broker::Case;

#[tokio::test]
async fn configuration_changed_behind_the_controllers_back_is_put_right_and_other_keys_are_left_alone() {
    let case = Case::new().await;
    case.describe("retention: 1h, config: {max.message.bytes: '70000', segment.ms: null}");
    let stop = case.controllers();
    case.until_ready().await;
    case.until_set(&[("max.message.bytes", "70000"), ("retention.ms", "3600000")]).await;

    // One key is ours, one is explicitly not, and of one nothing was said.
    case.set(&[("retention.ms", "1000"), ("segment.ms", "1234567"), ("min.insync.replicas", "1")]).await;
    case.until_set(&[
        ("max.message.bytes", "70000"),
        ("min.insync.replicas", "1"),
        ("retention.ms", "3600000"),
        ("segment.ms", "1234567"),
    ])
    .await;
    case.until_drifted("InSync").await;
    // The broker tells the id of a new topic a little later.
    let status = crate::harness::eventually(crate::controllers_world::SOON, || async {
        let status = case.status().await;
        if status["topicId"].as_str().is_some_and(|id| id.len() == 22) { Ok(status) } else { Err(status.to_string()) }
    })
    .await;
    assert_eq!((&status["partitions"], &status["replicationFactor"]), (&json!(1), &json!(1)));
    assert_eq!(status.get("drift"), None);
    stop.cancel();
}

#[tokio::test]
async fn exact_puts_every_other_key_back_to_the_brokers_default_except_those_that_are_not_ours() {
    let case = Case::new().await;
    case.describe("config: {retention.ms: '3600000'}");
    let stop = case.controllers();
    case.until_ready().await;
    case.set(&[("retention.ms", "3600000"), ("segment.ms", "1234567"), ("max.message.bytes", "70000")]).await;

    case.describe("configPolicy: Exact, config: {retention.ms: '3600000', segment.ms: null}");
    case.until_set(&[("retention.ms", "3600000"), ("segment.ms", "1234567")]).await;
    case.until_ready().await;
    case.set(&[("segment.ms", "7654321"), ("flush.messages", "10")]).await;
    case.until_set(&[("retention.ms", "3600000"), ("segment.ms", "7654321")]).await;
    stop.cancel();
}

#[tokio::test]
async fn partitions_are_added_where_that_was_accepted_and_refused_where_not() {
    let case = Case::new().await;
    case.describe("partitions: 1");
    let stop = case.controllers();
    case.until_ready().await;
    case.describe("partitions: 3");
    let message = case.until_not_ready("RepartitionRefused").await;
    assert!(message.contains("allowRepartition: true"), "{message}");
    assert_eq!(case.partitions().await, Some(1));
    case.describe("partitions: 3, allowRepartition: true");
    case.until_partitions(3).await;
    case.until_ready().await;
    assert_eq!(case.status().await["partitions"], json!(3));
    stop.cancel();

    let other = Case::new().await;
    other.make(1, &[]).await;
    other.describe("partitions: 2, adoptionPolicy: Always");
    let stop = other.controllers();
    other.until_not_ready("RepartitionRefused").await;
    assert_eq!(other.partitions().await, Some(1));
    other.describe("partitions: 2, adoptionPolicy: Always, allowRepartition: true");
    other.until_partitions(2).await;
    other.until_ready().await;
    stop.cancel();
}

#[tokio::test]
async fn a_topic_that_existed_before_is_taken_over_if_identical_always_or_never() {
    let same = Case::new().await;
    same.make(2, &[("retention.ms", "3600000"), ("segment.ms", "1234567")]).await;
    same.describe("partitions: 2, retention: 1h");
    let stop = same.controllers();
    same.until_ready().await;
    same.set(&[("retention.ms", "5000")]).await;
    same.until_set(&[("retention.ms", "3600000")]).await;
    stop.cancel();

    let other = Case::new().await;
    other.make(2, &[("retention.ms", "5000")]).await;
    other.describe("partitions: 2, retention: 1h");
    let stop = other.controllers();
    let message = other.until_not_ready("AdoptionRefused").await;
    assert!(message.contains("retention.ms is 5000, described is 3600000"), "{message}");
    assert_eq!(other.status().await["drift"], json!([{"key": "retention.ms", "desired": "3600000", "actual": "5000"}]));
    other.describe("partitions: 2, adoptionPolicy: Never");
    let message = other.until_not_ready("AdoptionRefused").await;
    assert!(message.contains("adoptionPolicy"), "{message}");
    other.until_set(&[("retention.ms", "5000")]).await;
    other.describe("partitions: 2, retention: 1h, adoptionPolicy: Always");
    other.until_set(&[("retention.ms", "3600000")]).await;
    other.until_ready().await;
    stop.cancel();
}

#[tokio::test]
async fn what_was_made_is_known_after_a_restart_and_a_resource_made_anew_meets_its_topic_like_any_other() {
    let case = Case::new().await;
    case.describe("retention: 1h, adoptionPolicy: Never");
    let stop = case.controllers();
    case.until_ready().await;
    stop.cancel();
    case.set(&[("retention.ms", "5000")]).await;
    let stop = case.controllers();
    case.until_set(&[("retention.ms", "3600000")]).await;
    case.until_ready().await;

    case.world.remove("t.yaml");
    crate::harness::eventually(crate::controllers_world::SOON, || async {
        case.world.condition("Topic", "t", "Ready").await.is_none()
    })
    .await;
    case.describe("retention: 1h, adoptionPolicy: Never");
    case.until_not_ready("AdoptionRefused").await;
    stop.cancel();
}

#[tokio::test]
async fn who_observes_is_told_of_differences_and_nothing_is_written() {
    let case = Case::new().await;
    case.make(1, &[("retention.ms", "5000")]).await;
    case.describe(
        "partitions: 4, allowRepartition: true, retention: 1h, managementPolicy: Observe, configPolicy: Exact",
    );
    let stop = case.controllers();
    let message = case.until_drifted("DriftDetected").await;
    assert!(message.starts_with("partitions is 1, described is 4; retention.ms is 5000"), "{message}");
    case.until_ready().await;
    // Several looks later it is as it was.
    case.set(&[("retention.ms", "6000"), ("segment.ms", "1234567")]).await;
    crate::harness::eventually(crate::controllers_world::SOON, || async {
        case.status().await["drift"].as_array().is_some_and(|drift| drift.len() == 3)
    })
    .await;
    assert_eq!(case.partitions().await, Some(1));
    case.until_set(&[("retention.ms", "6000"), ("segment.ms", "1234567")]).await;
    stop.cancel();
}

#[tokio::test]
async fn what_the_broker_refuses_is_stalled_with_its_words_until_it_is_mended() {
    let case = Case::new().await;
    case.describe("config: {retention.ms: soon}");
    let stop = case.controllers();
    let message = case.until_not_ready("ConfigRejected").await;
    assert!(message.contains("retention.ms") && message.contains("soon"), "{message}");
    assert_eq!(case.partitions().await, None);

    case.describe("config: {retention.ms: '3600000'}");
    case.until_ready().await;
    case.describe("config: {retention.ms: '7200000', compression.type: tar}");
    let message = case.until_not_ready("ConfigRejected").await;
    assert!(message.contains("compression.type") && message.contains("tar"), "{message}");
    let applied = case.world.condition("Topic", "t", "ConfigApplied").await.unwrap();
    assert_eq!((applied.0.as_str(), applied.1.as_str()), ("False", "ConfigRejected"));
    case.until_set(&[("retention.ms", "3600000")]).await;

    case.describe("config: {retention.ms: '7200000', no.such.key: '1'}");
    let message = loop {
        let message = case.until_not_ready("ConfigRejected").await;
        if !message.contains("tar") {
            break message;
        }
    };
    assert!(message.contains("no.such.key"), "{message}");
    case.describe("config: {retention.ms: '7200000', compression.type: zstd}");
    case.until_ready().await;
    case.until_set(&[("compression.type", "zstd"), ("retention.ms", "7200000")]).await;
    stop.cancel();
}
