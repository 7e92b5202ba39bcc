//! Events by MQTT at QoS 1, through a real broker: how many a second are committed, beside what a subscriber that only
//! acknowledges takes, and how long one takes to its projection.

use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use sqlx::PgPool;

use crate::harness::{Bus, Mosquitto, Platform, Process, by_mqtt, eventually, fresh_database};
use crate::report::{Report, percentile};
use crate::scene::PATIENCE;
use crate::sections::{rate, until_shown};

/// Messages of a measurement.
const MANY: usize = 50_000;
const PUBLISHERS: usize = 4;
/// Messages that one publisher has under way.
const UNDER_WAY: u16 = 200;
const DEVICES: usize = 1_000;

pub async fn run(report: &mut Report) {
    let broker = Mosquitto::start_new("bench");
    let limit = bare(&broker).await;
    report.add("MQTT: a subscriber that only acknowledges (the limit)", format!("{limit:.0}/s"), "");
    let scene = Scene::start(broker).await;
    let reached = scene.accepted().await;
    let share = format!("{:.0} % of that (target 5 000/s)", 100.0 * reached / limit);
    report.add("MQTT: messages at QoS 1 committed to the outbox", format!("{reached:.0}/s"), share);
    let mut times = scene.latency().await;
    let p50 = percentile(&mut times, 50.0);
    report.add("MQTT: time from publish to projection at 50/s, p50", format!("{p50:.1} ms"), "");
    let p99 = percentile(&mut times, 99.0);
    report.add("MQTT: time from publish to projection at 50/s, p99", format!("{p99:.1} ms"), "");
}

fn connect(broker: &Mosquitto, name: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, "127.0.0.1", broker.port());
    options.set_keep_alive(Duration::from_secs(30)).set_outgoing_inflight_upper_limit(UNDER_WAY);
    options.set_receive_maximum(Some(1_000));
    AsyncClient::new(options, 1_000)
}

/// Messages a second that a subscriber gets which does nothing with them.
async fn bare(broker: &Mosquitto) -> f64 {
    let (client, mut events) = connect(broker, "bare");
    client.subscribe("devices/+/reading", QoS::AtLeastOnce).await.expect("a request");
    while !matches!(events.poll().await.expect("a broker"), Event::Incoming(Packet::SubAck(_))) {}
    let begun = Instant::now();
    let publishing = tokio::spawn(publish_many(broker.port()));
    let mut received = 0;
    while received < MANY {
        if let Event::Incoming(Packet::Publish(_)) = events.poll().await.expect("a broker") {
            received += 1;
        }
    }
    publishing.await.expect("published");
    rate(MANY, begun.elapsed().as_secs_f64())
}

async fn publish_many(port: u16) {
    let publishers = (0..PUBLISHERS).map(|number| tokio::spawn(publish(port, number)));
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("published");
    }
}

/// One publisher's share; returns when the broker has all of it.
async fn publish(port: u16, number: usize) {
    let mut options = MqttOptions::new(format!("publisher-{number}"), "127.0.0.1", port);
    options.set_outgoing_inflight_upper_limit(UNDER_WAY);
    let (client, mut events) = AsyncClient::new(options, 1_000);
    let share = MANY / PUBLISHERS;
    let sending = tokio::spawn(async move {
        for n in 0..share {
            let device = (n * PUBLISHERS + number) % DEVICES;
            let payload = format!("{{\"value\":{n}}}");
            let topic = format!("devices/{device}/reading");
            client.publish(topic, QoS::AtLeastOnce, false, payload).await.expect("a request");
        }
        client
    });
    let mut taken = 0;
    while taken < share {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.expect("a broker") {
            taken += 1;
        }
    }
    sending.await.expect("sent");
}

struct Scene {
    broker: Mosquitto,
    platform: Platform,
    pool: PgPool,
    _controllers: Process,
    _ingest: Process,
}

impl Scene {
    async fn start(broker: Mosquitto) -> Self {
        let platform = Platform::new("bench-mqtt", fresh_database().await, Bus::Embedded);
        by_mqtt(platform.resources());
        let controllers = platform.controllers().ready().await;
        let ingest = platform.ingest().env("MQTT_URL", broker.url()).ready().await;
        eventually(PATIENCE, || async {
            ingest.metric("cornjacket_mqtt_subscriptions{state=\"granted\"}").await == Some(1.0)
        })
        .await;
        let pool = platform.database().pool().await;
        Self { broker, platform, pool, _controllers: controllers, _ingest: ingest }
    }

    /// Messages a second from the first publish until all are committed.
    async fn accepted(&self) -> f64 {
        let begun = Instant::now();
        publish_many(self.broker.port()).await;
        let wanted = i64::try_from(MANY).expect("a count");
        loop {
            let question = "SELECT count(*) FROM outbox";
            let now: i64 = sqlx::query_scalar(question).fetch_one(&self.pool).await.expect("an answer");
            if now >= wanted {
                return rate(MANY, begun.elapsed().as_secs_f64());
            }
            assert!(begun.elapsed() < PATIENCE, "{now} of {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Seconds from before a publish until a projection shows it.
    async fn latency(&self) -> Vec<f64> {
        let _relay = self.platform.relay("").ready().await;
        let _handler = self.platform.handle("").ready().await;
        eventually(PATIENCE, || async {
            let drained = "SELECT NOT EXISTS (SELECT FROM outbox)";
            sqlx::query_scalar::<_, bool>(drained).fetch_one(&self.pool).await.is_ok_and(|drained| drained)
        })
        .await;
        let (client, mut events) = connect(&self.broker, "probe");
        let polling = tokio::spawn(async move { while events.poll().await.is_ok() {} });
        let mut next = tokio::time::interval(Duration::from_millis(20));
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut times = Vec::new();
        for number in 1..=500 {
            next.tick().await;
            let begun = Instant::now();
            let payload = format!("{{\"value\":{number}}}");
            client.publish("devices/probe/reading", QoS::AtLeastOnce, false, payload).await.expect("a request");
            until_shown(&self.pool, "device-probe", number, begun, Duration::from_micros(500)).await;
            times.push(begun.elapsed().as_secs_f64());
        }
        polling.abort();
        times
    }
}
