//! `cornjacket query`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;

use super::process::{LogArgs, Process, ServeArgs, inspect};
use super::url::{DEFAULT_URL, DatabaseUrl};
use crate::database::{self, Service};
use crate::lifecycle::Stage;
use crate::query::{self, Limits, Sources};
use crate::registry::{self, Role};

#[derive(Args)]
pub struct QueryArgs {
    /// Database of the projections: the handler's, or a replica of it (which cannot stream projections)
    #[arg(long, env = "QUERY_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    query_database_url: SecretString,
    /// Database of the time series, or a replica of it; default: the one that projections are read from
    #[arg(long, env = "TSDB_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true)]
    tsdb_database_url: Option<SecretString>,
    /// Database of the outbox and the event store
    #[arg(long, env = "INGESTION_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    ingestion_database_url: SecretString,
    /// Port of the query API, and of /healthz, /readyz, /health and /metrics
    #[arg(long, env = "CORNJACKET_QUERY_PORT", default_value_t = 8081)]
    port: u16,
    #[command(flatten)]
    tuning: QueryTuning,
    #[command(flatten)]
    serve: ServeArgs,
}

/// How much the query service takes on; also for `up`.
#[derive(Args, Clone)]
pub struct QueryTuning {
    /// Most streams (Server-Sent Events, exports of time series) open at a time
    #[arg(long = "query-streams", env = "CORNJACKET_QUERY_STREAMS", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..), value_name = "STREAMS")]
    streams: u16,
    /// Most requests that wait for an event to be projected (`after_event`) at a time
    #[arg(long = "query-waiters", env = "CORNJACKET_QUERY_WAITERS", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..), value_name = "REQUESTS")]
    waiters: u16,
    /// Most connections to each of the databases
    #[arg(long = "query-connections", env = "CORNJACKET_QUERY_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "CONNECTIONS")]
    connections: u32,
}

impl QueryTuning {
    pub fn limits(&self) -> Limits {
        Limits { streams: self.streams.into(), waiters: self.waiters.into(), ..Limits::default() }
    }

    pub fn connections(&self) -> u32 {
        self.connections
    }
}

/// The service owns no tables: it applies no migrations and waits until those it reads are there.
pub async fn run(args: QueryArgs, logs: &LogArgs) -> anyhow::Result<()> {
    let process = Process::begin(logs)?;
    let tsdb = args.tsdb_database_url.unwrap_or_else(|| args.query_database_url.clone());
    let databases = vec![
        (args.query_database_url.clone(), BTreeSet::from([Service::EventHandler])),
        (tsdb.clone(), BTreeSet::from([Service::Tsdb])),
        (args.ingestion_database_url.clone(), BTreeSet::from([Service::Ingestion])),
    ];
    process.unless_stopped(inspect(databases, args.serve.no_migrate)).await?;
    let connections = args.tuning.connections();
    let projections = database::pool_of_projections(&args.query_database_url, "query", connections)?;
    let registry = registry::start(
        registry::Settings {
            pool: projections.clone(),
            namespace: args.serve.namespace,
            roles: vec![Role::Query],
            instance: process.instance,
        },
        &process.lifecycle,
        process.readiness.gate("registrations", "loading"),
    );
    let sources = Sources {
        projections,
        series: database::pool_of_projections(&tsdb, "query", connections)?,
        events: database::pool(&args.ingestion_database_url, "query", connections)?,
        catalog: registry.catalog,
    };
    let gate = process.readiness.gate("database", "connecting");
    let query = query::start(sources, args.tuning.limits(), &process.lifecycle, gate);
    let routes = query::routes(query).merge(crate::operate::http::routes(process.operations("query")));
    process.serve(Stage::Serve, "query", SocketAddr::new(args.serve.bind, args.port), routes).await?;
    process.run(Duration::from_secs(args.serve.drain_seconds)).await
}
