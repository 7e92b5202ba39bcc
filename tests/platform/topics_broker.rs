//! A Kafka broker as somebody else administers it, beside controllers on a directory; in this process.

use std::collections::BTreeMap;

use cornjacket::lifecycle::Lifecycle;
use cornjacket::registry::{Registry, Role};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::controllers_world::{SOON, World, topic};
use crate::harness::{eventually, shared_kafka, topic_prefix};

/// A topic of a name that no other test has, the Topic `t` that describes it, and who looks after it.
pub struct Case {
    pub world: World,
    pub topic: String,
    admin: AdminClient<DefaultClientContext>,
    brokers: BTreeMap<String, String>,
    _relay: (Registry, Lifecycle),
}

impl Case {
    pub async fn new() -> Self {
        let world = World::new().await;
        let relay = world.data_plane(&[Role::Relay]);
        let brokers = BTreeMap::from([("bootstrap.servers".to_owned(), shared_kafka().await)]);
        let admin = ClientConfig::new().set("bootstrap.servers", &brokers["bootstrap.servers"]).create().unwrap();
        Self { world, topic: format!("{}-kept", topic_prefix()), admin, brokers, _relay: relay }
    }

    /// Starts controllers, which run until the token is cancelled.
    pub fn controllers(&self) -> CancellationToken {
        self.world.controllers(Some(self.brokers.clone())).0
    }

    /// Describes the topic; `spec` are further fields.
    pub fn describe(&self, spec: &str) {
        self.world.write("t.yaml", &topic("t", &format!("{{topicName: {}, {spec}}}", self.topic)));
    }

    pub async fn until_ready(&self) {
        self.world.until_ready_is("Topic", "t", "True", "Available").await;
    }

    /// Waits until it is not ready for this reason; gives the message.
    pub async fn until_not_ready(&self, reason: &str) -> String {
        self.world.until_ready_is("Topic", "t", "False", reason).await
    }

    pub async fn status(&self) -> Value {
        sqlx::query_scalar("SELECT status FROM resource_status WHERE kind = 'Topic' AND name = 't'")
            .fetch_one(&self.world.pool)
            .await
            .unwrap()
    }

    /// Makes the topic, as somebody else.
    pub async fn make(&self, partitions: i32, config: &[(&str, &str)]) {
        let mut new = NewTopic::new(&self.topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            new = new.set(key, value);
        }
        let made = self.admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
        assert!(made[0].is_ok(), "{made:?}");
    }

    /// Sets these keys of the topic and no others, as somebody else.
    pub async fn set(&self, config: &[(&str, &str)]) {
        set(&self.admin, &self.topic, config).await;
        self.until_set(config).await;
    }

    /// Waits until just these keys are set for the topic.
    pub async fn until_set(&self, config: &[(&str, &str)]) {
        let expected: BTreeMap<String, String> =
            config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        eventually(SOON, || async {
            let own = self.own().await;
            if own == expected { Ok(()) } else { Err(format!("{own:?}")) }
        })
        .await;
    }

    /// The keys that are set for the topic.
    pub async fn own(&self) -> BTreeMap<String, String> {
        let described =
            self.admin.describe_configs([&ResourceSpecifier::Topic(&self.topic)], &AdminOptions::new()).await.unwrap();
        let resource = described.into_iter().next().unwrap().unwrap();
        let own = resource.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
        own.map(|entry| (entry.name, entry.value.unwrap())).collect()
    }

    pub async fn partitions(&self) -> Option<i32> {
        let kafka = controllers::effects::kafka::Kafka::new(&self.brokers).unwrap();
        kafka.topics().await.unwrap().get(&self.topic).map(|size| size.partitions)
    }

    pub async fn until_partitions(&self, expected: i32) {
        eventually(SOON, || async {
            let partitions = self.partitions().await;
            if partitions == Some(expected) { Ok(()) } else { Err(format!("{partitions:?}")) }
        })
        .await;
    }

    /// Waits for `Drifted` with this reason; gives the message.
    pub async fn until_drifted(&self, reason: &str) -> String {
        eventually(SOON, || async {
            let drifted = self.world.condition("Topic", "t", "Drifted").await.ok_or("no condition")?;
            if drifted.1 == reason { Ok(drifted.2) } else { Err(format!("{drifted:?}")) }
        })
        .await
    }
}

/// Sets these keys of a topic and no others, as somebody else.
pub async fn set(admin: &AdminClient<DefaultClientContext>, topic: &str, config: &[(&str, &str)]) {
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (key, value) in config {
        change = change.set(key, value);
    }
    let changed = admin.alter_configs([&change], &AdminOptions::new()).await.unwrap();
    assert!(changed[0].is_ok(), "{changed:?}");
}
