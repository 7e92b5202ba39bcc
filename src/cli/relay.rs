//! `cornjacket relay`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;

use super::process::{BusArgs, LogArgs, PollArgs, Process, ServeArgs, prepare};
use super::url::{DEFAULT_URL, DatabaseUrl};
use crate::bus::wake::Wake;
use crate::database::{self, Service};
use crate::dead_letters;
use crate::handler::BusChoice;
use crate::lifecycle::Stage;
use crate::registry::{self, Role};
use crate::relay::{Relay, Settings};

#[derive(Args)]
pub struct RelayArgs {
    /// Database of the outbox and the event store
    #[arg(long, env = "INGESTION_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    ingestion_database_url: SecretString,
    /// Port of dead letters (/api/v1/dead-letters), and of /healthz, /readyz, /health and /metrics
    #[arg(long, env = "CORNJACKET_RELAY_PORT", default_value_t = 8083)]
    port: u16,
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    tuning: RelayTuning,
    #[command(flatten)]
    poll: PollArgs,
    #[command(flatten)]
    serve: ServeArgs,
}

/// How the relay works; also for `up`.
#[derive(Args, Clone)]
pub struct RelayTuning {
    /// Most events in one transaction of the relay
    #[arg(long, env = "CORNJACKET_RELAY_BATCH", default_value_t = 8000, value_parser = clap::value_parser!(i64).range(1..=20_000), value_name = "EVENTS")]
    relay_batch: i64,
    /// Tasks of the relay that claim shards at the same time
    #[arg(long, env = "CORNJACKET_RELAY_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    relay_workers: u16,
    /// How long events stay in the event store, in hours
    #[arg(long, env = "CORNJACKET_EVENT_RETENTION_HOURS", default_value_t = 168, value_parser = clap::value_parser!(u64).range(1..), value_name = "HOURS")]
    event_retention_hours: u64,
    /// Drop partitions past their retention even if a reader has not read them
    #[arg(long, env = "CORNJACKET_DROP_UNREAD")]
    drop_unread: bool,
}

impl RelayTuning {
    pub fn settings(&self, poll: Duration) -> Settings {
        Settings {
            batch: self.relay_batch,
            workers: usize::from(self.relay_workers),
            poll,
            retention: Duration::from_hours(self.event_retention_hours),
            drop_unread: self.drop_unread,
        }
    }
}

pub async fn run(args: RelayArgs, logs: &LogArgs) -> anyhow::Result<()> {
    let process = Process::begin(logs)?;
    let bus = args.bus.choice()?;
    let database = (args.ingestion_database_url.clone(), BTreeSet::from([Service::Ingestion]));
    process.unless_stopped(prepare(vec![database], args.serve.no_migrate)).await?;
    let pool = database::pool(&args.ingestion_database_url, "relay", 6 + u32::from(args.tuning.relay_workers))?;
    let registry = registry::start(
        registry::Settings {
            pool: pool.clone(),
            namespace: args.serve.namespace,
            roles: vec![Role::Relay],
            instance: process.instance,
        },
        &process.lifecycle,
        process.readiness.gate("registrations", "loading"),
    );
    let letters = dead_letters::routes(vec![database::pool(&args.ingestion_database_url, "dead letters", 2)?], "relay");
    let relay = Relay {
        pool,
        instance: process.instance,
        settings: args.tuning.settings(args.poll.poll()),
        outbox: Wake::default(),
        event_store: Wake::default(),
        catalog: registry.catalog,
        kafka: match bus {
            BusChoice::Embedded => None,
            BusChoice::Kafka(settings) => Some(settings),
        },
        database: process.readiness.gate("database", "connecting"),
        bus: process.readiness.gate("bus", "connecting"),
    };
    relay.start(&process.lifecycle)?;
    let routes = letters.merge(crate::operate::http::routes(process.operations("relay")));
    process.serve(Stage::Serve, "relay", SocketAddr::new(args.serve.bind, args.port), routes).await?;
    process.run(Duration::from_secs(args.serve.drain_seconds)).await
}
