//! TLS, user and password, and a client's certificate.

use super::{World, until_subscribed};
use crate::harness::{Authority, Mosquitto, eventually};

/// What `mosquitto_passwd` makes of `ann` with the password `frotz`.
fn password_file(dir: &std::path::Path) -> std::path::PathBuf {
    let file = dir.join("passwords");
    std::fs::write(&file, "ann:frotz\n").unwrap();
    let hashed = std::process::Command::new("mosquitto_passwd").arg("-U").arg(&file).status().unwrap();
    assert!(hashed.success());
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_asks_for_certificates_and_a_password_is_spoken_to() {
    let broker = Mosquitto::start_with("secured", |dir| {
        let authority = Authority::new(dir.join("pki"));
        authority.server(&["localhost", "127.0.0.1"]);
        let (certificate, key) = authority.client("ingest", None);
        std::fs::write(authority.path("client.crt"), certificate).unwrap();
        std::fs::write(authority.path("client.key"), key).unwrap();
        let path = |file: &str| authority.path(file).display().to_string();
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\npassword_file {}\nallow_anonymous false",
            path("ca.crt"),
            path("server.crt"),
            path("server.key"),
            password_file(dir).display()
        )
    });
    let (port, pki) = (broker.port(), broker.dir().join("pki"));
    let world = World::at("secured", broker).await;
    let file = |name: &str| pki.join(name).display().to_string();
    let launch = world
        .launch("")
        .env("MQTT_URL", format!("mqtts://localhost:{port}"))
        .env("MQTT_USERNAME", "ann")
        .env("MQTT_PASSWORD", "frotz")
        .env("MQTT_CA_FILE", file("ca.crt"))
        .env("MQTT_CERT_FILE", file("client.crt"))
        .env("MQTT_KEY_FILE", file("client.key"));
    let mut ingest = launch.clone().ready().await;
    until_subscribed(&ingest, 1.0).await;
    ingest.kill9();

    let mut wrong = launch.clone().env("MQTT_PASSWORD", "gnusto-4711");
    wrong.name.push_str("-wrong");
    let mut refused = wrong.start();
    eventually(super::SOON, || async {
        let log = refused.log();
        if log.contains("NotAuthorized") || log.contains("BadUserNamePassword") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!refused.log().contains("gnusto-4711"));
    refused.kill9();

    let mut without = launch.clone();
    without.environment.remove("MQTT_CERT_FILE");
    without.environment.remove("MQTT_KEY_FILE");
    without.name.push_str("-without");
    let without = without.start();
    eventually(super::SOON, || async {
        let log = without.log();
        if log.contains("no connection to the MQTT broker") { Ok(()) } else { Err(log) }
    })
    .await;
}
