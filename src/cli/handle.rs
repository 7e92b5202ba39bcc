//! `cornjacket handle`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;

use super::process::{BusArgs, LogArgs, PollArgs, Process, ServeArgs, prepare};
use super::url::{DEFAULT_URL, DatabaseUrl};
use crate::bus::wake::Wake;
use crate::database::{self, Service, Urls};
use crate::dead_letters;
use crate::handler::Handler;
use crate::lifecycle::Stage;
use crate::registry::{self, Role};
use crate::time_series::TimeSeries;

#[derive(Args)]
pub struct HandleArgs {
    /// Database of the projections
    #[arg(long, env = "EVENTHANDLER_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    eventhandler_database_url: SecretString,
    /// Database of the event store, which is read on the embedded bus and for rebuilds
    #[arg(long, env = "INGESTION_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    ingestion_database_url: SecretString,
    /// Database of the time series; default: that of the projections
    #[arg(long, env = "TSDB_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true)]
    tsdb_database_url: Option<SecretString>,
    /// Port of dead letters (/api/v1/dead-letters), and of /healthz, /readyz, /health and /metrics
    #[arg(long, env = "CORNJACKET_HANDLER_PORT", default_value_t = 8084)]
    port: u16,
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    poll: PollArgs,
    #[command(flatten)]
    serve: ServeArgs,
}

pub async fn run(args: HandleArgs, logs: &LogArgs) -> anyhow::Result<()> {
    let process = Process::begin(logs)?;
    let bus = args.bus.choice()?;
    let urls = Urls::new(args.ingestion_database_url, args.eventhandler_database_url);
    let urls = Urls { tsdb: args.tsdb_database_url.unwrap_or_else(|| urls.tsdb.clone()), ..urls };
    let services = [Service::Ingestion, Service::EventHandler, Service::Tsdb];
    process.unless_stopped(prepare(urls.of(&services), args.serve.no_migrate)).await?;
    let pool = database::pool_of_projections(&urls.eventhandler, "handler", 8)?;
    let registry = registry::start(
        registry::Settings {
            pool: pool.clone(),
            namespace: args.serve.namespace,
            roles: vec![Role::Handle],
            instance: process.instance,
        },
        &process.lifecycle,
        process.readiness.gate("registrations", "loading"),
    );
    let series = TimeSeries {
        pool: database::pool(&urls.tsdb, "tsdb-writer", 4)?,
        ingestion: database::pool(&urls.ingestion, "tsdb-writer", 2)?,
        instance: process.instance,
        event_store: Wake::default(),
        poll: args.poll.poll(),
        catalog: registry.catalog.clone(),
        acks: registry.acks.clone(),
        gate: process.readiness.gate("time series", "looking after them"),
    };
    series.start(&process.lifecycle);
    let handler = Handler {
        pool,
        ingestion: database::pool(&urls.ingestion, "handler", 4)?,
        instance: process.instance,
        bus,
        poll: args.poll.poll(),
        event_store: Wake::default(),
        catalog: registry.catalog,
        acks: registry.acks,
        gate: process.readiness.gate("projections", "reconciling"),
        batches: process.readiness.gate("batches", "none has got through yet"),
        bus_gate: process.readiness.gate("handler bus", "connecting"),
    };
    handler.start(&process.lifecycle)?;
    let own = urls.of(&[Service::EventHandler, Service::Tsdb]);
    let pools = own.iter().map(|(url, _)| database::pool(url, "dead letters", 2)).collect::<Result<_, _>>()?;
    let letters = dead_letters::routes(pools, "handler");
    let routes = letters.merge(crate::operate::http::routes(process.operations("handler")));
    process.serve(Stage::Serve, "handler", SocketAddr::new(args.serve.bind, args.port), routes).await?;
    process.run(Duration::from_secs(args.serve.drain_seconds)).await
}
