//! A whole platform of separate processes on one database, with resources of the test's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::{Database, Launch, free_port, topic_prefix};

/// What carries events from the relay to the handler.
#[derive(Clone, Debug)]
pub enum Bus {
    Embedded,
    /// With what goes into `KAFKA_BROKERS`.
    Kafka(String),
}

/// Knows how each role is started; starts none by itself.
pub struct Platform {
    /// Names the logs.
    name: String,
    database: Database,
    /// Of the projections, if that is another.
    handler_database: Option<Database>,
    bus: Bus,
    resources: Arc<TempDir>,
    /// Begins the names of its topics.
    prefix: String,
    /// Of every role.
    environment: BTreeMap<String, String>,
}

/// One event type, and projections that show every loss, repetition and change of order.
const SENSORS: &str = r#"
apiVersion: cornjacket.io/v1alpha1
kind: Topic
metadata: {name: events}
spec:
  topicName: PREFIX-events
  partitions: 4
  replicationFactor: 1
  retention: 1h
  default: true
---
apiVersion: cornjacket.io/v1alpha1
kind: EventType
metadata: {name: sensor.reading}
spec:
  versions:
    - version: 1
      schema:
        type: object
        required: [value]
        properties: {value: {type: integer}}
---
apiVersion: cornjacket.io/v1alpha1
kind: Projection
metadata: {name: sensor-state}
spec:
  type: sensor_state
  source: {eventTypes: [sensor.reading]}
  latest: {}
---
apiVersion: cornjacket.io/v1alpha1
kind: Projection
metadata: {name: sensor-history}
spec:
  type: sensor_history
  source: {eventTypes: [sensor.reading]}
  fields:
    count: "has(state.count) ? state.count + 1 : 1"
    sum: "has(state.sum) ? state.sum + event.payload.value : event.payload.value"
    last: "event.payload.value"
    ordered: "has(state.last) ? state.ordered && event.payload.value == state.last + 1 : event.payload.value == 1"
"#;

/// A directory of manifests: one topic (`PREFIX-events`), one event type, two projections.
pub fn sensor_resources(prefix: &str) -> TempDir {
    let resources = tempfile::tempdir().expect("a temporary directory");
    let text = SENSORS.trim_start().replace("PREFIX", prefix);
    std::fs::write(resources.path().join("sensors.yaml"), text).expect("our own directory");
    resources
}

/// Has the sensor resources of a directory take `devices/+/reading` as readings of the aggregate `device-+`.
pub fn by_mqtt(resources: &Path) {
    let file = resources.join("sensors.yaml");
    let text = std::fs::read_to_string(&file).expect("our own directory");
    let taken = "spec:\n  mqtt: [{topicFilter: devices/+/reading, aggregateId: 'device-{1}'}]\n  versions:";
    std::fs::write(&file, text.replace("spec:\n  versions:", taken)).expect("our own directory");
}

impl Platform {
    /// With the sensor resources.
    pub fn new(name: &str, database: Database, bus: Bus) -> Self {
        let prefix = topic_prefix();
        let resources = Arc::new(sensor_resources(&prefix));
        let (name, environment) = (name.to_owned(), BTreeMap::new());
        Self { name, database, handler_database: None, bus, resources, prefix, environment }
    }

    /// The same platform on another bus.
    pub fn on(&self, bus: Bus) -> Self {
        let name = format!("{}-other", self.name);
        let (database, handler_database) = (self.database.clone(), self.handler_database.clone());
        let (resources, prefix, environment) =
            (Arc::clone(&self.resources), self.prefix.clone(), self.environment.clone());
        Self { name, database, handler_database, bus, resources, prefix, environment }
    }

    /// The handler keeps its projections in a database of its own, which query reads.
    #[must_use]
    pub fn with_handler_database(mut self, database: Database) -> Self {
        self.handler_database = Some(database);
        self
    }

    /// Time series are kept in a database of their own.
    #[must_use]
    #[allow(dead_code, reason = "the benchmark, which shares this file, keeps them beside the rest")]
    pub fn with_series_database(mut self, database: &Database) -> Self {
        self.environment.insert("TSDB_DATABASE_URL".to_owned(), database.url.clone());
        self
    }

    /// Polls come too seldom to help anybody: whatever gets through in less than a minute was woken.
    #[must_use]
    pub fn polling_once_a_minute(mut self) -> Self {
        self.environment.insert("CORNJACKET_POLL_SECONDS".to_owned(), "60".to_owned());
        self
    }

    /// Resources are those of a namespace of a cluster.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.environment.insert("CORNJACKET_NAMESPACE".to_owned(), namespace.to_owned());
        self
    }

    /// The directory of manifests, for tests that change them.
    pub fn resources(&self) -> &Path {
        self.resources.path()
    }

    pub fn topic(&self) -> String {
        format!("{}-events", self.prefix)
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    fn role(&self, role: &str, instance: &str, arguments: &[&str]) -> Launch {
        let port = free_port();
        let name = format!("{}-{role}{instance}", self.name);
        let handlers = self.handler_database.as_ref().unwrap_or(&self.database);
        let mut launch = Launch::new(&name, port, arguments)
            .env("INGESTION_DATABASE_URL", &self.database.url)
            .env("EVENTHANDLER_DATABASE_URL", &handlers.url)
            .env("QUERY_DATABASE_URL", &handlers.url)
            .env("TSDB_DATABASE_URL", &handlers.url)
            .env("ACTIONS_DATABASE_URL", &handlers.url);
        launch.environment.extend(self.environment.clone());
        launch.arguments.insert(0, role.to_owned());
        launch.arguments.extend(["--bind".to_owned(), "127.0.0.1".to_owned(), "--port".to_owned(), port.to_string()]);
        match &self.bus {
            Bus::Embedded => launch.env("CORNJACKET_BUS", "embedded"),
            Bus::Kafka(brokers) => launch.env("CORNJACKET_BUS", "kafka").env("KAFKA_BROKERS", brokers),
        }
    }

    /// `cornjacket migrate`, to its end.
    pub fn migrate(&self) -> Command {
        let mut launch = self.role("migrate", "", &[]);
        launch.arguments.truncate(1);
        launch.command()
    }

    pub fn ingest(&self) -> Launch {
        self.role("ingest", "", &[])
    }

    /// `instance` tells several apart.
    pub fn relay(&self, instance: &str) -> Launch {
        self.role("relay", instance, &[])
    }

    pub fn handle(&self, instance: &str) -> Launch {
        self.role("handle", instance, &[])
    }

    /// Delivers to receivers of this machine. `instance` tells several apart.
    pub fn act(&self, instance: &str) -> Launch {
        self.role("act", instance, &["--webhook-allow", "127.0.0.0/8"])
    }

    pub fn query(&self) -> Launch {
        self.role("query", "", &[])
    }

    pub fn controllers(&self) -> Launch {
        let resources = self.resources.path().display().to_string();
        self.role("controllers", "", &["--resources", &resources])
    }

    /// Controllers of the cluster that a kubeconfig names. `instance` tells several apart.
    pub fn controllers_of(&self, kubeconfig: &Path, instance: &str) -> Launch {
        self.role("controllers", instance, &[]).env("KUBECONFIG", kubeconfig.display().to_string())
    }
}
