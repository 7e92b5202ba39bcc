//! `cornjacket up` brings a broker of its own.

use serde_json::json;

use super::SOON;
use super::device::Device;
use crate::harness::{Launch, by_mqtt, eventually, free_port, http, sensor_resources};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_publishes_to_the_broker_of_up_and_its_state_is_served_also_after_a_restart() {
    let resources = sensor_resources("mqtt-up");
    by_mqtt(resources.path());
    let data = tempfile::tempdir().unwrap();
    let [ingest, query, actions, mqtt] = [free_port(), free_port(), free_port(), free_port()];
    let (data, resources) = (data.path().display().to_string(), resources.path().display().to_string());
    let arguments = ["up", "--data-dir", &data, "--resources", &resources];
    let mut launch = Launch::new("mqtt-up", ingest, &arguments);
    for (flag, port) in
        [("--ingestion-port", ingest), ("--query-port", query), ("--actions-port", actions), ("--mqtt-port", mqtt)]
    {
        launch.arguments.extend([flag.to_owned(), port.to_string()]);
    }
    let mut up = launch.ready().await;
    let mut device = Device::new(mqtt, "d1");
    for value in 1..=2 {
        device.publish("devices/1/reading", &json!({"value": value}).to_string()).await;
        let url = format!("http://127.0.0.1:{query}/api/v1/projections/sensor_state/device-1");
        eventually(SOON, || async {
            let answer = http::get(&http::client(), &url).await.map_err(|e| e.to_string())?;
            let state = &answer.body["state"];
            if *state == json!({"value": value}) { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
        })
        .await;
        assert!(up.terminate().success());
        up.start_again();
        up.until_ready(SOON).await;
    }
}
