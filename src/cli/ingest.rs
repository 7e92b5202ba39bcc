//! `cornjacket ingest`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;

use super::mqtt::MqttArgs;
use super::process::{LogArgs, Process, ServeArgs, prepare};
use super::url::{DEFAULT_URL, DatabaseUrl};
use crate::bus::wake::{self, Wake};
use crate::database::{self, Service};
use crate::ingest::{self, Limits, Rules, Settings};
use crate::lifecycle::Stage;
use crate::outbox;
use crate::registry::{self, Role};

/// Connections beside those of the writers: the registry's and the one that notifies relays.
const OTHER_CONNECTIONS: u32 = 4;

#[derive(Args)]
pub struct IngestArgs {
    /// Database of the outbox and the event store
    #[arg(long, env = "INGESTION_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    ingestion_database_url: SecretString,
    /// Port of the events interface, and of /healthz, /readyz, /health and /metrics
    #[arg(long, env = "CORNJACKET_INGESTION_PORT", default_value_t = 8080)]
    port: u16,
    #[command(flatten)]
    mqtt: MqttArgs,
    #[command(flatten)]
    tuning: IngestTuning,
    #[command(flatten)]
    serve: ServeArgs,
}

/// How events are taken in; also for `up`.
#[derive(Args, Clone)]
pub struct IngestTuning {
    /// Refuse events whose type is not registered, instead of sending them to the default topic
    #[arg(long, env = "CORNJACKET_STRICT_TYPES")]
    strict_types: bool,
    /// Largest event, in bytes; above it: 413
    #[arg(long, env = "CORNJACKET_MAX_EVENT_BYTES", default_value_t = 1_048_576, value_parser = size(1_024, 64 << 20), value_name = "BYTES")]
    max_event_bytes: u64,
    /// Largest batch, in bytes; above it: 413
    #[arg(long, env = "CORNJACKET_MAX_BATCH_BYTES", default_value_t = 5_242_880, value_parser = size(1_024, 256 << 20), value_name = "BYTES")]
    max_batch_bytes: u64,
    /// Most events in a batch; above it: 413
    #[arg(long, env = "CORNJACKET_MAX_BATCH_EVENTS", default_value_t = 1_000, value_parser = size(1, 100_000), value_name = "EVENTS")]
    max_batch_events: u64,
    /// Deepest nesting of a payload, in levels; above it: 400
    #[arg(long, env = "CORNJACKET_MAX_DEPTH", default_value_t = 64, value_parser = size(1, 100), value_name = "LEVELS")]
    max_depth: u64,
    /// How long a request may take to arrive, in seconds; after it: 408
    #[arg(long, env = "CORNJACKET_REQUEST_SECONDS", default_value_t = 10, value_parser = size(1, 600), value_name = "SECONDS")]
    request_seconds: u64,
    /// Connections that write events; more help when commits are slow
    #[arg(long, env = "CORNJACKET_OUTBOX_WRITERS", default_value_t = 3, value_parser = size(1, 64), value_name = "CONNECTIONS")]
    outbox_writers: u64,
    /// Most events that wait to be stored; above it: 429
    #[arg(long, env = "CORNJACKET_QUEUE_EVENTS", default_value_t = 20_000, value_parser = size(1, 1_000_000), value_name = "EVENTS")]
    queue_events: u64,
    /// Most bytes of events that wait to be stored; above it: 429
    #[arg(long, env = "CORNJACKET_QUEUE_BYTES", default_value_t = 67_108_864, value_parser = size(1 << 20, 4 << 30), value_name = "BYTES")]
    queue_bytes: u64,
    /// Most bytes of requests in memory at a time; above it: 429
    #[arg(long, env = "CORNJACKET_BODIES_BYTES", default_value_t = 134_217_728, value_parser = size(1 << 20, 16 << 30), value_name = "BYTES")]
    bodies_bytes: u64,
    /// How long events wait for a database that went away, in milliseconds; after it: 503
    #[arg(long, env = "CORNJACKET_DATABASE_PATIENCE_MS", default_value_t = 2_000, value_parser = size(0, 60_000), value_name = "MS")]
    database_patience_ms: u64,
    /// Largest difference between this machine's clock and the database's, in milliseconds; above it nothing is
    /// accepted, since ids of events hold their time
    #[arg(long, env = "CORNJACKET_MAX_CLOCK_SKEW_MS", default_value_t = 10_000, value_parser = size(100, 3_600_000), value_name = "MS")]
    max_clock_skew_ms: u64,
}

fn size(min: u64, max: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(min..=max)
}

impl IngestTuning {
    /// # Errors
    /// Two bounds contradict each other.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let defaults = outbox::Settings::default();
        let patience = Duration::from_millis(self.database_patience_ms);
        anyhow::ensure!(
            self.queue_events >= self.max_batch_events
                && self.queue_bytes >= 2 * self.max_batch_bytes
                && self.bodies_bytes >= self.max_batch_bytes.max(self.max_event_bytes),
            "a batch must have room: set --queue-events to at least --max-batch-events ({}), --queue-bytes to at least \
             twice --max-batch-bytes ({}), and --bodies-bytes to no less than the largest request",
            self.max_batch_events,
            self.max_batch_bytes
        );
        Ok(Settings {
            rules: Rules { max_depth: count(self.max_depth), strict_types: self.strict_types },
            limits: Limits {
                event_bytes: count(self.max_event_bytes),
                batch_bytes: count(self.max_batch_bytes),
                batch_events: count(self.max_batch_events),
                bodies_bytes: count(self.bodies_bytes),
                request_time: Duration::from_secs(self.request_seconds),
                ..Limits::default()
            },
            outbox: outbox::Settings {
                writers: count(self.outbox_writers),
                queue_events: count(self.queue_events),
                queue_bytes: count(self.queue_bytes),
                patience,
                answer_deadline: defaults.answer_deadline + patience,
                max_clock_skew: Duration::from_millis(self.max_clock_skew_ms),
                ..defaults
            },
        })
    }
}

fn count(bounded: u64) -> usize {
    usize::try_from(bounded).unwrap_or(usize::MAX)
}

pub async fn run(args: IngestArgs, logs: &LogArgs) -> anyhow::Result<()> {
    let process = Process::begin(logs)?;
    let settings = args.tuning.settings()?;
    let mqtt = args.mqtt.settings(&args.serve.namespace, settings.limits.event_bytes)?;
    let url = &args.ingestion_database_url;
    let writers = database::options(url, "outbox writer")?;
    process
        .unless_stopped(prepare(vec![(url.clone(), BTreeSet::from([Service::Ingestion]))], args.serve.no_migrate))
        .await?;
    let pool = database::pool(url, "ingest", OTHER_CONNECTIONS)?;
    let registry = registry::start(
        registry::Settings {
            pool: pool.clone(),
            namespace: args.serve.namespace,
            roles: vec![Role::Ingest],
            instance: process.instance,
        },
        &process.lifecycle,
        process.readiness.gate("registrations", "loading"),
    );
    let (news, letters) = (Wake::default(), pool.clone());
    let token = process.lifecycle.token(Stage::Relay);
    let telling = wake::tell(news.clone(), wake::OUTBOX, process.instance, pool, token);
    process.lifecycle.spawn(Stage::Relay, "wake relays", async move {
        telling.await;
        Ok::<_, std::convert::Infallible>(())
    });
    let state = ingest::start(
        &process.lifecycle,
        &writers,
        registry.catalog,
        &settings,
        process.readiness.gate("database", "connecting"),
        &(Arc::new(move |shards| news.add(shards)) as outbox::OnCommit),
    );
    ingest::mqtt::start_replays(&process.lifecycle, &state, &letters);
    if let Some(mqtt) = mqtt {
        ingest::mqtt::start(&process.lifecycle, &state, letters, mqtt);
    }
    let routes = ingest::routes(state).merge(crate::operate::http::routes(process.operations("ingest")));
    process.serve(Stage::Accept, "ingest", SocketAddr::new(args.serve.bind, args.port), routes).await?;
    process.run(Duration::from_secs(args.serve.drain_seconds)).await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        tuning: IngestTuning,
    }

    fn settings(arguments: &[&str]) -> anyhow::Result<Settings> {
        Cli::try_parse_from([&["ingest"], arguments].concat())?.tuning.settings()
    }

    #[test]
    fn the_flags_default_to_what_the_rooms_default_to() {
        let (flags, rooms) = (settings(&[]).expect("defaults"), Settings::default());
        assert_eq!(format!("{:?}{:?}", flags.rules, flags.limits), format!("{:?}{:?}", rooms.rules, rooms.limits));
        assert_eq!(
            (flags.outbox.writers, flags.outbox.queue_events),
            (rooms.outbox.writers, rooms.outbox.queue_events)
        );
        assert_eq!(
            (flags.outbox.queue_bytes, flags.outbox.patience),
            (rooms.outbox.queue_bytes, rooms.outbox.patience)
        );
        assert_eq!(flags.outbox.max_clock_skew, rooms.outbox.max_clock_skew);
    }

    #[test]
    fn a_queue_that_could_never_hold_a_batch_is_refused() {
        let error = settings(&["--queue-events", "10"]).expect_err("refused").to_string();
        assert!(error.contains("--max-batch-events (1000)"), "{error}");
    }
}
