//! What every role's process has: logs, metrics, readiness, migrations before traffic, an orderly end.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use crds::cause::Chain;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tracing::{info, warn};
use uuid::Uuid;

use crate::bus::kafka::KafkaSettings;
use crate::database::{self, MigrationError, Service};
use crate::handler::BusChoice;
use crate::lifecycle::{Lifecycle, Stage};
use crate::operate::http::Operations;
use crate::operate::logs::{self, LogFormat};
use crate::operate::{Readiness, metrics};

/// How logs are written; for every command.
#[derive(Args)]
pub struct LogArgs {
    /// Log lines as text, as JSON, or by whether standard error is a terminal
    #[arg(long, global = true, env = "CORNJACKET_LOG_FORMAT", value_enum, default_value = "auto")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace, or a filter such as `info,cornjacket::relay=debug`
    #[arg(long, global = true, env = "CORNJACKET_LOG", default_value = "info")]
    log: String,
}

impl LogArgs {
    /// Starts logging.
    pub fn install(&self) {
        logs::install(self.log_format, &self.log);
    }
}

/// Flags of every role that runs until it is stopped.
#[derive(Args, Clone)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, env = "CORNJACKET_BIND", default_value = "0.0.0.0")]
    pub bind: IpAddr,
    /// The platform instance: the Kubernetes namespace whose resources are run
    #[arg(long, env = "CORNJACKET_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// How long a stop may take, in seconds: requests under way are answered, what was accepted is committed
    #[arg(long, env = "CORNJACKET_DRAIN_SECONDS", default_value_t = 25, value_name = "SECONDS")]
    pub drain_seconds: u64,
    /// Refuse to start with pending migrations instead of applying them
    #[arg(long, env = "CORNJACKET_NO_MIGRATE")]
    pub no_migrate: bool,
}

/// Which bus is used.
#[derive(Args, Clone)]
pub struct BusArgs {
    /// The bus between relay and handler: the event store itself, or Kafka (Redpanda)
    #[arg(long, env = "CORNJACKET_BUS", value_enum, default_value = "embedded")]
    pub bus: BusKind,
    /// Kafka brokers, host:port, comma-separated; needed with `--bus kafka`
    #[arg(long, env = "KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    pub kafka_brokers: Option<String>,
    /// Further librdkafka properties, name=value, for TLS and SASL (`security.protocol=SASL_SSL`); may be repeated,
    /// separated by `;` in the environment variable, which is the place for passwords
    #[arg(
        long = "kafka-property",
        env = "KAFKA_PROPERTIES",
        value_name = "NAME=VALUE",
        value_delimiter = ';',
        hide_env_values = true
    )]
    pub kafka_properties: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BusKind {
    Embedded,
    Kafka,
}

impl BusArgs {
    /// The bus, with its settings.
    ///
    /// # Errors
    /// Kafka without brokers, or a property that is not `name=value`.
    pub fn choice(&self) -> anyhow::Result<BusChoice> {
        match self.bus {
            BusKind::Embedded => Ok(BusChoice::Embedded),
            BusKind::Kafka => {
                let brokers = self.kafka_brokers.as_deref().context(
                    "--bus kafka needs brokers: set --kafka-brokers or KAFKA_BROKERS, for example localhost:9092",
                )?;
                Ok(BusChoice::Kafka(KafkaSettings::new(brokers, &self.kafka_properties)?))
            }
        }
    }
}

/// How often everything is looked at, whatever was notified.
#[derive(Args, Clone)]
pub struct PollArgs {
    /// How often all work is looked for, whatever was notified, in seconds
    #[arg(long, env = "CORNJACKET_POLL_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60), value_name = "SECONDS")]
    poll_seconds: u64,
}

impl PollArgs {
    pub fn poll(&self) -> Duration {
        Duration::from_secs(self.poll_seconds)
    }
}

/// A running process of one or more roles.
pub struct Process {
    pub lifecycle: Lifecycle,
    pub readiness: Readiness,
    pub metrics: PrometheusHandle,
    /// Identifies this process (UUID v7).
    pub instance: Uuid,
}

impl Process {
    /// Starts logs and metrics.
    pub fn begin(logs: &LogArgs) -> anyhow::Result<Self> {
        logs.install();
        let lifecycle = Lifecycle::new();
        lifecycle.watch_signals().context("cannot listen for signals")?;
        Ok(Self {
            lifecycle,
            readiness: Readiness::default(),
            metrics: metrics::install().context("cannot start the metrics recorder")?,
            instance: Uuid::now_v7(),
        })
    }

    /// What `/healthz`, `/readyz`, `/health` and `/metrics` of a role answer from.
    pub fn operations(&self, role: &'static str) -> Operations {
        ::metrics::gauge!("cornjacket_build_info", "version" => env!("CARGO_PKG_VERSION"), "role" => role).set(1.0);
        Operations { role, readiness: self.readiness.clone(), metrics: self.metrics.clone() }
    }

    /// Serves routes on an address until the stage stops. Returns the address, which names the port that was chosen
    /// where 0 was asked for.
    pub async fn serve(
        &self,
        stage: Stage,
        name: &'static str,
        address: SocketAddr,
        routes: axum::Router,
    ) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("{name} cannot listen on {address}: is the port in use? Choose another"))?;
        let address = listener.local_addr()?;
        let stop = self.lifecycle.token(stage);
        self.lifecycle.spawn(stage, name, crate::operate::http::serve(listener, routes, stop));
        info!(%address, "{name} listens on {address}");
        Ok(address)
    }

    /// Does what comes before a role's tasks; a signal to stop ends it.
    pub fn unless_stopped<T>(
        &self,
        step: impl Future<Output = anyhow::Result<T>>,
    ) -> impl Future<Output = anyhow::Result<T>> {
        let (told, step) = (self.lifecycle.stopping(), Box::pin(step));
        let stopped = || Err(anyhow::anyhow!("told to stop before it had started"));
        async move { told.run_until_cancelled(step).await.unwrap_or_else(stopped) }
    }

    /// Runs until the process is told to stop or a task fails, then stops in order.
    pub async fn run(self, drain: Duration) -> anyhow::Result<()> {
        Ok(self.lifecycle.run(drain).await?)
    }
}

/// Applies pending migrations before anything else, or refuses to start with pending ones.
pub async fn prepare(databases: Vec<(SecretString, BTreeSet<Service>)>, no_migrate: bool) -> anyhow::Result<()> {
    for (url, services) in databases {
        if no_migrate {
            let pending: usize = database::status(&url, &services).await?.iter().map(|s| s.pending.len()).sum();
            anyhow::ensure!(pending == 0, "{pending} migration(s) are pending: run `cornjacket migrate` first");
        } else {
            database::migrate(&url, &services).await?;
        }
    }
    Ok(())
}

/// For a role that only reads: refuses databases that are newer than this binary and, where asked, those with pending
/// migrations. A database that is away is waited for later.
pub async fn inspect(databases: Vec<(SecretString, BTreeSet<Service>)>, no_migrate: bool) -> anyhow::Result<()> {
    for (url, services) in databases {
        match database::status(&url, &services).await {
            Ok(sets) => {
                let pending: usize = sets.iter().map(|set| set.pending.len()).sum();
                anyhow::ensure!(
                    pending == 0 || !no_migrate,
                    "{pending} migration(s) are pending: run `cornjacket migrate` first"
                );
            }
            Err(error @ (MigrationError::Newer { .. } | MigrationError::Changed { .. })) => return Err(error.into()),
            Err(error) => {
                warn!(error = %Chain(&error), "cannot look at the migrations: going on, and waiting for the database");
            }
        }
    }
    Ok(())
}
