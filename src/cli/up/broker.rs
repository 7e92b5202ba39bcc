//! A broker of `up`'s own for MQTT (5 and 3.1.1), where none is given: sessions and what waits for them are kept with the
//! other data.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use mqtt5::broker::config::AuthConfig;
use mqtt5::broker::{BrokerConfig, MqttBroker, StorageConfig};
use tokio_util::sync::CancellationToken;

/// How long a session, and what waits for it, is kept while nobody is connected.
const SESSION: Duration = Duration::from_hours(24);
/// Largest packet.
const PACKET_BYTES: usize = 8 << 20;

/// A broker that listens.
pub struct Broker {
    broker: MqttBroker,
    pub address: SocketAddr,
}

impl Broker {
    /// Listens on an address; anybody who reaches it may publish and subscribe.
    pub async fn listen(address: SocketAddr, data_dir: &Path) -> anyhow::Result<Self> {
        let storage = StorageConfig::new().with_base_dir(data_dir.join("mqtt"));
        let config = BrokerConfig::new()
            .with_bind_address(address)
            .with_session_expiry(SESSION)
            .with_max_packet_size(PACKET_BYTES)
            .with_sys_topics_enabled(false)
            .with_auth(AuthConfig::new().with_allow_anonymous(true))
            .with_storage(storage);
        let broker = MqttBroker::with_config(config).await.with_context(|| {
            format!("the MQTT broker cannot listen on {address}: choose another --mqtt-port, name your own broker by --mqtt-url, or give --no-mqtt")
        })?;
        let address = broker.local_addr().unwrap_or(address);
        Ok(Self { broker, address })
    }

    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { mut broker, .. } = self;
        let handle = broker.shutdown_handle();
        let stopping = async {
            stop.cancelled().await;
            handle.shutdown();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = broker.run() => ended.context("the MQTT broker failed"),
            () = stopping => Ok(()),
        }
    }
}
