//! Devices: clients that publish, and know what the broker has taken.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The broker takes a message within this time, also when it is away for a while.
const TAKEN: Duration = Duration::from_mins(1);

/// A client at a broker. Dropped, it goes without a word.
pub struct Device {
    client: AsyncClient,
    taken: watch::Receiver<u64>,
    sent: u64,
    polling: JoinHandle<()>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

impl Device {
    pub fn new(port: u16, name: &str) -> Self {
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(5)).set_clean_start(false);
        options.set_session_expiry_interval(Some(300)).set_max_packet_size(Some(64 << 20));
        Self::with(options)
    }

    pub fn with(options: MqttOptions) -> Self {
        let (client, mut events) = AsyncClient::new(options, 1_000);
        let (publish, taken) = watch::channel(0);
        let polling = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::PubAck(_))) => publish.send_modify(|count| *count += 1),
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Self { client, taken, sent: 0, polling }
    }

    /// Hands a message to the broker at QoS 1, and does not wait.
    pub async fn send(&mut self, topic: &str, payload: &str, properties: &[(&str, &str)]) {
        let user_properties = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let properties = PublishProperties { user_properties, ..PublishProperties::default() };
        let payload = payload.to_owned();
        self.client.publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties).await.unwrap();
        self.sent += 1;
    }

    /// Leaves a message with the broker for later subscribers.
    pub async fn retain(&mut self, topic: &str, payload: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, true, payload.to_owned()).await.unwrap();
        self.sent += 1;
        self.until_taken().await;
    }

    /// Waits until the broker has taken everything.
    pub async fn until_taken(&mut self) {
        let sent = self.sent;
        timeout(TAKEN, self.taken.wait_for(|taken| *taken >= sent)).await.expect("taken in time").expect("it runs");
    }

    /// Publishes, and waits until the broker has it.
    pub async fn publish(&mut self, topic: &str, payload: &str) {
        self.publish_with(topic, payload, &[]).await;
    }

    pub async fn publish_with(&mut self, topic: &str, payload: &str, properties: &[(&str, &str)]) {
        self.send(topic, payload, properties).await;
        self.until_taken().await;
    }
}
