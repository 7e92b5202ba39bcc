//! A real Kafka broker: one for all tests, with topic names of each test's own; and brokers of one's own for tests that
//! stop it. Apache Kafka in KRaft mode, one node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Server, free_port, reaper};

/// Who the listener with SASL lets in.
pub const SASL_USER: &str = "cornjacket";
pub const SASL_PASSWORD: &str = "frotz-gnusto-4711";

/// A broker of the test's own, which it may stop, start and freeze. Its port and data stay.
pub struct OwnKafka {
    name: String,
    dir: PathBuf,
    libs: PathBuf,
    port: u16,
    /// Of the listener that asks for a password.
    sasl_port: u16,
    server: Option<Server>,
}

impl OwnKafka {
    /// Makes a broker and starts it (about 9 s). `name` names its log.
    pub fn start_new(name: &str) -> Self {
        let dir = reaper::run_dir().join(name);
        std::fs::create_dir(&dir).expect("one broker of a name");
        let mut own =
            Self { name: name.to_owned(), dir, libs: libs(), port: free_port(), sasl_port: free_port(), server: None };
        own.format();
        own.start();
        own
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        command.arg("-cp").arg(self.libs.join("*"));
        command.current_dir(&self.dir);
        command
    }

    fn format(&self) {
        std::fs::write(self.dir.join("server.properties"), self.properties()).expect("our own directory");
        let mut tool = self.java();
        tool.args(["kafka.tools.StorageTool", "format", "--standalone", "-t", "Y29ybmphY2tldC10ZXN0cw"]);
        let output = tool.args(["-c", "server.properties"]).output().expect("Java 17 or newer is on PATH");
        assert!(output.status.success(), "format: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn properties(&self) -> String {
        let (broker, sasl, controller) = (self.port, self.sasl_port, free_port());
        format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{broker},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{broker},SASL://127.0.0.1:{sasl}\n\
             sasl.enabled.mechanisms=PLAIN\n\
             listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_{SASL_USER}=\"{SASL_PASSWORD}\";\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT\n\
             log.dirs={dir}/data\n\
             log.retention.check.interval.ms=1000\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n",
            dir = self.dir.display()
        )
    }

    /// What goes into `KAFKA_BROKERS`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.server.is_none(), "{} runs already", self.name);
        let mut command = self.java();
        command.args(["kafka.Kafka", "server.properties"]);
        self.server = Some(Server::start(&self.name, command, "KILL"));
        self.wait_until_ready(Duration::from_mins(1));
    }

    /// Starts or resumes it, if a test that failed left it stopped or frozen.
    pub fn ensure_running(&mut self) {
        match &self.server {
            Some(server) => server.signal(Signal::SIGCONT),
            None => self.start(),
        }
    }

    fn wait_until_ready(&mut self, deadline: Duration) {
        let start = Instant::now();
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.brokers())
            .set("reconnect.backoff.max.ms", "100")
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
            .create()
            .expect("a client without options to fail on");
        while client.fetch_metadata(None, Duration::from_millis(500)).is_err() {
            let server = self.server.as_mut().expect("started");
            assert!(server.ended().is_none(), "{} ended:\n{}", self.name, server.log_tail());
            assert!(start.elapsed() < deadline, "{} not ready:\n{}", self.name, server.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it in an orderly way.
    pub fn stop(&mut self) {
        let mut server = self.server.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        server.end(Signal::SIGTERM, Duration::from_mins(1));
    }

    /// Freezes (`SIGSTOP`) or resumes (`SIGCONT`) it: connections stay open and nobody answers.
    pub fn signal(&self, signal: Signal) {
        self.server.as_ref().expect("running").signal(signal);
    }
}

/// The directory of the broker's jars: fetched by the script that `make test` uses as well.
fn libs() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka-libs");
    let output = Command::new(script).output().expect("scripts/kafka-libs starts");
    assert!(output.status.success(), "Kafka's jars cannot be fetched: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}

/// The broker that all tests share. The first that asks starts it.
async fn shared() -> &'static OwnKafka {
    static SHARED: OnceLock<OwnKafka> = OnceLock::new();
    let shared = tokio::task::spawn_blocking(|| SHARED.get_or_init(|| OwnKafka::start_new("kafka")));
    shared.await.expect("the shared broker starts")
}

/// Its address, as `KAFKA_BROKERS`.
pub async fn shared_kafka() -> String {
    shared().await.brokers()
}

/// Its listener that asks for [`SASL_USER`] and [`SASL_PASSWORD`].
pub async fn shared_kafka_with_sasl() -> String {
    format!("127.0.0.1:{}", shared().await.sasl_port)
}

/// A broker as the controllers see it.
pub fn administered(brokers: &str) -> controllers::effects::kafka::Kafka {
    let settings = BTreeMap::from([("bootstrap.servers".to_owned(), brokers.to_owned())]);
    controllers::effects::kafka::Kafka::new(&settings).expect("settings that the client knows")
}

/// A word that no other test has, to begin topic names with.
pub fn topic_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
