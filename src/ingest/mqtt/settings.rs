//! Which broker, as whom, and how much at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Five,
    /// 3.1.1
    Three,
}

/// A connection to a broker.
#[derive(Clone)]
pub struct Settings {
    pub host: String,
    pub port: u16,
    /// `None`: not encrypted.
    pub tls: Option<Arc<ClientConfig>>,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    /// Names the session. The same after a restart, and no two processes at a time have it.
    pub client_id: String,
    pub version: Version,
    /// The group whose members share the messages; `None`: every process gets all of them.
    pub share: Option<String>,
    /// The broker gives all messages of a topic to one member, so that order is kept with several.
    pub share_keeps_order: bool,
    /// Most messages that the broker sends before the first of them is acknowledged. Default 1 000.
    pub in_flight: u16,
    /// How long the broker keeps the session, with what comes in meanwhile, while nobody is connected. Default 1 h.
    pub session: Duration,
    /// Silence after which either side takes the other for gone. Default 30 s.
    pub keep_alive: Duration,
    /// Largest payload that becomes an event, in bytes.
    pub max_event_bytes: usize,
}

impl Settings {
    /// A plain connection with the defaults.
    pub fn new(host: &str, port: u16, client_id: &str) -> Self {
        Self {
            host: host.to_owned(),
            port,
            tls: None,
            user: None,
            password: None,
            client_id: client_id.to_owned(),
            version: Version::Five,
            share: Some("cornjacket".to_owned()),
            share_keeps_order: false,
            in_flight: 1_000,
            session: Duration::from_hours(1),
            keep_alive: Duration::from_secs(30),
            max_event_bytes: 1 << 20,
        }
    }

    /// User and password, where there is one of them.
    pub fn login(&self) -> Option<(String, String)> {
        let password = self.password.as_ref().map(|password| password.expose_secret().to_owned());
        (self.user.is_some() || password.is_some())
            .then(|| (self.user.clone().unwrap_or_default(), password.unwrap_or_default()))
    }

    /// What a broker is told (MQTT 5): four times the largest event, so that what is too large is refused here, with a dead
    /// letter, and not dropped by the broker without a word.
    pub fn largest_packet(&self) -> usize {
        self.max_event_bytes.saturating_mul(4).saturating_add(64 << 10)
    }

    /// A filter as it is subscribed to.
    pub fn subscription(&self, filter: &impl fmt::Display, broker_shares: bool) -> String {
        match &self.share {
            Some(group) if broker_shares => format!("$share/{group}/{filter}"),
            _ => filter.to_string(),
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls.is_some())
            .field("client_id", &self.client_id)
            .field("version", &self.version)
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}
