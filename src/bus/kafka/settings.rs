//! How clients of Kafka are set up: what the platform needs, and what the operator passes through (TLS, SASL).

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use secrecy::{ExposeSecret, SecretString};

/// Connection settings of a Kafka cluster.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// Further librdkafka properties by name, for example `security.protocol`. Values may be secrets.
    pub properties: BTreeMap<String, SecretString>,
}

/// A property that is not `name=value`.
#[derive(Debug, thiserror::Error)]
#[error("a Kafka property must be name=value: number {0} of those given has no '=' (a value cannot hold a ';')")]
pub struct PropertyError(usize);

/// Properties on which order and exactly-once effects stand: nobody may set them otherwise.
const OURS: [&str; 8] = [
    "enable.idempotence",
    "enable.gapless.guarantee",
    "acks",
    "partitioner",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "group.id",
];

impl KafkaSettings {
    /// From brokers and `name=value` properties.
    ///
    /// # Errors
    /// A property has no `=`.
    pub fn new(brokers: &str, properties: &[String]) -> Result<Self, PropertyError> {
        let properties = properties
            .iter()
            .enumerate()
            .map(|(at, p)| p.split_once('=').ok_or(PropertyError(at + 1)))
            .map(|p| p.map(|(name, value)| (name.trim().to_owned(), SecretString::from(value.trim().to_owned()))))
            .collect::<Result<_, _>>()?;
        Ok(Self { brokers: brokers.to_owned(), properties })
    }

    fn client(&self, role: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", format!("cornjacket-{role}"))
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "10000")
            // Errors of connections are reported by what fails because of them.
            .set("log.connection.close", "false")
            .set("log_level", "3");
        for (name, value) in self.passed_through() {
            config.set(name, value.expose_secret());
        }
        config
    }

    fn passed_through(&self) -> impl Iterator<Item = (&String, &SecretString)> {
        self.properties.iter().filter(|(name, _)| !OURS.contains(&name.as_str()))
    }

    /// Properties of a client that administers topics.
    pub fn admin(&self) -> BTreeMap<String, String> {
        let config = self.client("controllers");
        let ours = config.config_map().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        // The client's own map holds a placeholder in place of each password.
        let theirs = self.passed_through().map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
        ours.chain(theirs).collect()
    }

    /// `together`: most bytes of messages that are put together. Idempotent, gapless, acks=all, murmur2 partitioner as Java clients have it.
    pub(super) fn producer(&self, deadline_ms: u128, together: usize) -> ClientConfig {
        let mut config = self.client("relay");
        config
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .set("batch.size", together.max(1).to_string())
            .set("queue.buffering.max.messages", "100000")
            // Longer than anybody waits: a message that expired in the client would let a later one overtake it. Who
            // waited in vain purges the client instead, which keeps a prefix.
            .set("message.timeout.ms", "60000")
            .set("request.timeout.ms", deadline_ms.to_string());
        config
    }

    /// Reads nothing. Ends of partitions count every message, also those behind another producer's open transaction.
    pub(super) fn watermarks(&self) -> ClientConfig {
        let mut config = self.client("handler-watermarks");
        // Each failed connection would be a line; who asks says it once.
        config.set("isolation.level", "read_uncommitted").set("log_level", "2");
        config
    }

    /// Offsets are ours (in PostgreSQL), a dead member is noticed after 6 s, partitions move one by one.
    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client("handler");
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1500")
            .set("allow.auto.create.topics", "false")
            .set("topic.metadata.refresh.interval.ms", "2000")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "16384")
            .set("isolation.level", "read_committed");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_shows_the_value_of_a_property() {
        let Err(error) = KafkaSettings::new("b:9092", &["a=b".to_owned(), "hunter2".to_owned()]) else {
            panic!("it has no '='")
        };
        assert!(error.to_string().contains("number 2") && !error.to_string().contains("hunter2"), "{error}");
        let settings = KafkaSettings::new("b:9092", &["sasl.pasword=hunter2".to_owned()]).expect("pairs");
        let Err(error) = super::super::Producer::new(&settings, 1_000_000) else { panic!("there is no such property") };
        let error = crate::bus::BusError::from(error);
        assert!(error.to_string().contains("sasl.pasword") && !error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn tls_and_sasl_pass_through_but_not_what_exactly_once_stands_on() {
        let properties = ["security.protocol=SASL_SSL", "sasl.password = a=b", "acks=0", "enable.auto.commit=true"]
            .map(str::to_owned);
        let settings = KafkaSettings::new("broker:9092", &properties).expect("well-formed");
        assert_eq!(settings.producer(5000, 1_000_000).get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(settings.producer(5000, 1_000_000).get("sasl.password"), Some("a=b"));
        assert_eq!(settings.admin().get("sasl.password").map(String::as_str), Some("a=b"));
        assert_eq!(settings.admin().get("acks"), None);
        assert_eq!(settings.producer(5000, 1_000_000).get("acks"), Some("all"));
        assert_eq!(settings.consumer("g").get("enable.auto.commit"), Some("false"));
        assert!(KafkaSettings::new("broker:9092", &["no-value".to_owned()]).is_err());
    }
}
