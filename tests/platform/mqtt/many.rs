//! Several processes share the messages.

use super::{World, until_subscribed};
use crate::harness::eventually;

const MESSAGES: i64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn several_share_the_messages_and_each_is_stored_once_also_when_one_goes() {
    let world = World::new("shared").await;
    let mut processes = vec![world.launch("-0").ready().await, world.launch("-1").ready().await];
    for process in &processes {
        until_subscribed(process, 1.0).await;
    }
    let mut device = world.device("d1");
    for value in 1..=MESSAGES {
        device.send(&format!("devices/{}/reading", value % 40), &format!("{{\"value\": {value}}}"), &[]).await;
    }
    device.until_taken().await;
    world.until_stored("sensor.reading", MESSAGES).await;
    for process in &processes {
        let taken = process.metric("cornjacket_mqtt_messages_total{outcome=\"accepted\"}").await;
        assert!(taken > Some(0.0), "{}", process.log());
    }
    let mut second = processes.pop().unwrap();
    assert!(second.terminate().success());
    for value in MESSAGES + 1..=2 * MESSAGES {
        device.send(&format!("devices/{}/reading", value % 40), &format!("{{\"value\": {value}}}"), &[]).await;
    }
    device.until_taken().await;
    second.start_again();
    until_subscribed(&second, 1.0).await;
    world.until_stored("sensor.reading", 2 * MESSAGES).await;
    let values: Vec<i64> = sqlx::query_scalar("SELECT (payload->>'value')::bigint FROM event_store ORDER BY 1")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(values, (1..=2 * MESSAGES).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_with_one_client_id_say_so() {
    let world = World::new("same-id").await;
    let first = world.ingest().await;
    let mut launch = world.launch("-other").env("MQTT_CLIENT_ID", "ingest");
    launch.name.push_str("-other");
    let second = launch.start();
    eventually(super::SOON, || async {
        let told = [&first, &second].iter().any(|process| process.log().contains("--mqtt-client-id"));
        if told { Ok(()) } else { Err(first.log()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_more_than_is_taken_at_a_time_gets_through() {
    let world = World::new("burst").await;
    // This broker sends all that it has, however little is asked for.
    let ingest = world.launch("").env("MQTT_IN_FLIGHT", "5").ready().await;
    until_subscribed(&ingest, 1.0).await;
    let mut device = world.device("d1");
    for value in 1..=3_000 {
        device.send("devices/1/reading", &format!("{{\"value\": {value}}}"), &[]).await;
    }
    device.until_taken().await;
    world.until_stored("sensor.reading", 3_000).await;
    let values: Vec<i64> = world.events("device-1").await.iter().map(|e| e.1["value"].as_i64().unwrap()).collect();
    assert_eq!(values, (1..=3_000).collect::<Vec<_>>());
}
