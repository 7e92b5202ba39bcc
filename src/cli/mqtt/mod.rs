//! The flags about MQTT, of `ingest` and `up`.

mod tls;
mod url;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use secrecy::SecretString;

use self::tls::Tls;
use self::url::BrokerUrl;
use crate::ingest::mqtt::{Settings, Version};
use crate::registry::host_name;

#[derive(Args, Clone)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names, beside those of other rooms")]
pub struct MqttArgs {
    /// MQTT broker that devices publish to: mqtt://host:1883, or mqtts://host:8883 with TLS. Event types say by
    /// `spec.mqtt` which topics are taken
    #[arg(long, env = "MQTT_URL", value_parser = BrokerUrl::parse, value_name = "URL", hide_env_values = true)]
    mqtt_url: Option<BrokerUrl>,
    /// User at the broker, where the URL names none
    #[arg(long, env = "MQTT_USERNAME", value_name = "NAME")]
    mqtt_username: Option<String>,
    /// Password at the broker; the environment variable is the place for it
    #[arg(long, env = "MQTT_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    mqtt_password: Option<SecretString>,
    /// Certificates (PEM) of the authorities that the broker's certificate is checked with (default: the system's)
    #[arg(long, env = "MQTT_CA_FILE", value_name = "FILE")]
    mqtt_ca_file: Option<PathBuf>,
    /// Certificate (PEM) that is shown to the broker
    #[arg(long, env = "MQTT_CERT_FILE", value_name = "FILE", requires = "mqtt_key_file")]
    mqtt_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(long, env = "MQTT_KEY_FILE", value_name = "FILE", requires = "mqtt_cert_file")]
    mqtt_key_file: Option<PathBuf>,
    /// Version of the protocol
    #[arg(long, env = "MQTT_VERSION", value_enum, default_value = "5", value_name = "VERSION")]
    mqtt_version: VersionArg,
    /// Name of the session at the broker: the same after a restart, and no two processes have it at a time (default:
    /// `cornjacket-`, the namespace and the host's name)
    #[arg(long, env = "MQTT_CLIENT_ID", value_name = "ID")]
    mqtt_client_id: Option<String>,
    /// Group whose members share the messages (`$share/GROUP/…`); empty: every process gets all of them
    #[arg(long, env = "MQTT_SHARE", default_value = "cornjacket", value_name = "GROUP")]
    mqtt_share: String,
    /// The broker gives all messages of a topic, or of a device, to one member of the group (EMQX: `hash_topic`,
    /// `hash_clientid`), so that events keep their order with several processes
    #[arg(long, env = "MQTT_SHARE_KEEPS_ORDER")]
    mqtt_share_keeps_order: bool,
    /// Most messages that the broker sends before the first of them is acknowledged (MQTT 5)
    #[arg(long, env = "MQTT_IN_FLIGHT", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..), value_name = "MESSAGES")]
    mqtt_in_flight: u16,
    /// How long the broker keeps the session while nobody is connected, in seconds (MQTT 5)
    #[arg(long, env = "MQTT_SESSION_SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..), value_name = "SECONDS")]
    mqtt_session_seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum VersionArg {
    #[value(name = "5")]
    Five,
    #[value(name = "3.1.1")]
    Three,
}

impl MqttArgs {
    /// Whether a broker is named.
    pub fn names_a_broker(&self) -> bool {
        self.mqtt_url.is_some()
    }

    /// The connection to the broker that is named, if one is.
    ///
    /// # Errors
    /// Files cannot be read, or a name is none that MQTT takes.
    pub fn settings(&self, namespace: &str, max_event_bytes: usize) -> anyhow::Result<Option<Settings>> {
        self.mqtt_url.as_ref().map(|url| self.settings_for(url, namespace, max_event_bytes)).transpose()
    }

    /// The connection to a broker of this process's own.
    ///
    /// # Errors
    /// As for [`MqttArgs::settings`].
    pub fn settings_at(&self, own: SocketAddr, namespace: &str, max_event_bytes: usize) -> anyhow::Result<Settings> {
        let host = if own.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { own.ip() };
        let (host, port) = (host.to_string(), own.port());
        let url = BrokerUrl { host, port, encrypted: false, user: None, password: None };
        self.settings_for(&url, namespace, max_event_bytes)
    }

    fn settings_for(&self, url: &BrokerUrl, namespace: &str, max_event_bytes: usize) -> anyhow::Result<Settings> {
        let client_id =
            self.mqtt_client_id.clone().unwrap_or_else(|| format!("cornjacket-{namespace}-{}", host_name()));
        anyhow::ensure!(
            !client_id.is_empty() && client_id.len() <= 256 && !client_id.chars().any(|c| c.is_control() || c == ' '),
            "--mqtt-client-id (MQTT_CLIENT_ID) must be 1 to 256 characters without spaces, for example ingest-0"
        );
        let group = &self.mqtt_share;
        anyhow::ensure!(
            !group.contains(['/', '+', '#']),
            "--mqtt-share (MQTT_SHARE) {group}: must hold none of / + #, for example cornjacket"
        );
        let tls = Tls {
            ca: self.mqtt_ca_file.as_deref(),
            own: self.mqtt_cert_file.as_deref().zip(self.mqtt_key_file.as_deref()),
        };
        anyhow::ensure!(
            url.encrypted || !tls.is_given(),
            "--mqtt-ca-file and --mqtt-cert-file are for TLS: write mqtts:// in --mqtt-url (MQTT_URL)"
        );
        let plain = Settings::new(&url.host, url.port, &client_id);
        Ok(Settings {
            tls: if url.encrypted { Some(tls.config().context("cannot set up TLS to the MQTT broker")?) } else { None },
            user: url.user.clone().or_else(|| self.mqtt_username.clone()),
            password: url.password.clone().or_else(|| self.mqtt_password.clone()),
            version: match self.mqtt_version {
                VersionArg::Five => Version::Five,
                VersionArg::Three => Version::Three,
            },
            share: Some(group.clone()).filter(|group| !group.is_empty()),
            share_keeps_order: self.mqtt_share_keeps_order,
            in_flight: self.mqtt_in_flight,
            session: Duration::from_secs(u64::from(self.mqtt_session_seconds)),
            max_event_bytes,
            ..plain
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        mqtt: MqttArgs,
    }

    fn settings(arguments: &[&str]) -> anyhow::Result<Option<Settings>> {
        Cli::try_parse_from([&["ingest"], arguments].concat())?.mqtt.settings("shop", 1 << 20)
    }

    #[test]
    fn the_flags_default_to_what_the_room_defaults_to() {
        assert!(settings(&[]).expect("defaults").is_none());
        let given = settings(&["--mqtt-url", "mqtt://broker"]).expect("a URL").expect("settings");
        let room = Settings::new("broker", 1883, &given.client_id);
        assert_eq!(format!("{given:?}"), format!("{room:?}"));
        assert_eq!(
            (given.in_flight, given.session, given.max_event_bytes),
            (room.in_flight, room.session, room.max_event_bytes)
        );
        assert!(given.client_id.starts_with("cornjacket-shop-"), "{}", given.client_id);
    }

    #[test]
    fn the_user_of_the_url_comes_first_and_no_password_is_shown() {
        let arguments =
            ["--mqtt-url", "mqtt://ann:hunter%322@broker:1884", "--mqtt-username", "bob", "--mqtt-share", ""];
        let given = settings(&arguments).expect("a URL").expect("settings");
        assert_eq!(given.login(), Some(("ann".to_owned(), "hunter22".to_owned())));
        assert_eq!((given.port, given.share.as_deref()), (1884, None));
        assert!(!format!("{given:?}").contains("hunter"));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_a_way_out() {
        let refused = |arguments: &[&str]| settings(arguments).expect_err("refused").to_string();
        let broker = ["--mqtt-url", "mqtt://broker"];
        assert!(refused(&[&broker[..], &["--mqtt-share", "a/b"]].concat()).contains("none of / + #"));
        assert!(refused(&[&broker[..], &["--mqtt-client-id", "a b"]].concat()).contains("without spaces"));
        assert!(refused(&[&broker[..], &["--mqtt-ca-file", "ca.pem"]].concat()).contains("mqtts://"));
        let missing = ["--mqtt-url", "mqtts://broker", "--mqtt-ca-file", "/nowhere/ca.pem"];
        let error = format!("{:#}", settings(&missing).expect_err("refused"));
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }
}
