//! What the status of a WebhookAction says of its endpoint, as deliveries show it.

use std::process::Command;

use serde_json::{Value, json};

use crate::controllers_world::{SOON, manifest};
use crate::harness::{Answer, Bus, Launch, Platform, Process, Receiver, eventually, fresh_database, http};

/// One failure opens the breaker, and no delivery is tried twice.
const CAREFUL: &str = "circuitBreaker: {failures: 1, cooldown: 1h}, retry: {maxAttempts: 1}";

/// Delivers a test event to an endpoint.
pub async fn try_out(act: &Process, action: &str) {
    let url = act.url(&format!("/api/v1/actions/{action}/test"));
    let answer = http::post(&http::client(), &url, &json!({})).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
}

async fn condition(platform: &Platform, name: &str) -> Result<(String, String, String), String> {
    let pool = platform.database().pool().await;
    let status: Value = sqlx::query_scalar("SELECT status FROM resource_status WHERE kind = 'WebhookAction'")
        .fetch_one(&pool)
        .await
        .map_err(|e| e.to_string())?;
    let found = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == name).ok_or("not there")?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("reason"), text("message")))
}

/// Waits until a condition is so; its message.
async fn until(platform: &Platform, name: &str, status: &str, reason: &str) -> String {
    eventually(SOON, || async {
        let is = condition(platform, name).await?;
        if (is.0.as_str(), is.1.as_str()) == (status, reason) { Ok(is.2) } else { Err(format!("{is:?}")) }
    })
    .await
}

fn action(act: &Process, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cornjacket"));
    let output = command.args(["action"]).args(arguments).args(["--url", &act.url("")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn get(platform: &Platform) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cornjacket"));
    let output = command.args(["get", "wha", "--database-url", &platform.database().url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_endpoint_is_told_as_deliveries_show_it_and_its_action_stays_ready() {
    let (receiver, platform) =
        (Receiver::start().await, Platform::new("health", fresh_database().await, Bus::Embedded));
    // Somebody lives in the database that `get` reads; deliveries are in one of their own.
    let _relay = platform.relay("").ready().await;
    let deliveries = fresh_database().await;
    let on_it = |launch: Launch| launch.env("ACTIONS_DATABASE_URL", &deliveries.url);
    let (_controllers, act) = (on_it(platform.controllers()).ready().await, on_it(platform.act("")).ready().await);
    let spec = format!("{{source: {{prefixes: [a.]}}, url: '{}', {CAREFUL}}}", receiver.url("/hook"));
    std::fs::write(platform.resources().join("action.yaml"), manifest("WebhookAction", "tell", &spec)).unwrap();
    until(&platform, "Ready", "True", "Available").await;
    assert_eq!(condition(&platform, "EndpointHealthy").await.unwrap().1, "NotTried");

    receiver.script("/hook", [Answer::status(200), Answer::status(500), Answer::status(410), Answer::status(200)]);
    try_out(&act, "tell").await;
    until(&platform, "EndpointHealthy", "True", "EndpointAnswers").await;

    try_out(&act, "tell").await;
    let message = until(&platform, "EndpointHealthy", "False", "CircuitOpen").await;
    assert!(message.contains("answered 500") && message.contains("deliveries wait"), "{message}");
    let shown = get(&platform);
    let line = shown.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(line[..3], ["tell", "True", "Available"], "{shown}");
    assert_eq!(line[3..5], [format!("127.0.0.1:{}", receiver.port()).as_str(), "False"], "{shown}");
    assert!(shown.contains("answered 500"), "{shown}");

    action(&act, &["disable", "tell", "--reason", "maintenance until noon"]);
    let message = until(&platform, "EndpointHealthy", "False", "EndpointDisabled").await;
    assert!(message.contains("maintenance until noon") && message.contains("action enable tell"), "{message}");

    action(&act, &["enable", "tell"]);
    try_out(&act, "tell").await;
    let message = until(&platform, "EndpointHealthy", "False", "EndpointGone").await;
    assert!(message.contains("410") && message.contains("action enable tell"), "{message}");
    assert_eq!(condition(&platform, "Ready").await.unwrap().0, "True", "this generation is what is delivered by");

    action(&act, &["enable", "tell"]);
    try_out(&act, "tell").await;
    until(&platform, "EndpointHealthy", "True", "EndpointAnswers").await;
}
