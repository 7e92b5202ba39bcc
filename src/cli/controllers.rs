//! `cornjacket controllers`: the loop that turns resources into what the platform runs, from a directory of manifests or
//! from a cluster.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use controllers::cluster::scale::HandlerDeployment;
use controllers::{Config, Platform, Source, State, cluster};
use crds::secret::PlatformKey;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::namespaces;
use super::process::{BusArgs, LogArgs, Process, ServeArgs, prepare};
use super::secrets_key::SecretsKeyArgs;
use super::url::DatabaseArgs;
use crate::database::{self, Urls};
use crate::handler::BusChoice;
use crate::lifecycle::Stage;
use crate::operate::Gate;
use crate::registry;

#[derive(Args)]
pub struct ControllersArgs {
    /// Directory of manifests (*.yaml, *.yml, *.json), with all below it; watched while running. Without one the resources
    /// are those of the Kubernetes cluster that the pod is in, or that KUBECONFIG names
    #[arg(long, env = "CORNJACKET_RESOURCES", value_name = "DIR")]
    resources: Option<PathBuf>,
    /// Namespaces of the cluster whose resources are reconciled, each a platform instance of its own; default: --namespace
    #[arg(
        long,
        env = "CORNJACKET_WATCH_NAMESPACE",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        conflicts_with = "resources"
    )]
    watch_namespace: Vec<String>,
    /// Directory with a directory for each watched namespace, in which files INGESTION_DATABASE_URL and
    /// EVENTHANDLER_DATABASE_URL (and TSDB_DATABASE_URL, ACTIONS_DATABASE_URL) hold the URLs of its databases. Several namespaces are several platforms, and need it
    #[arg(long, env = "CORNJACKET_NAMESPACE_DATABASES", value_name = "DIR", conflicts_with = "resources")]
    namespace_databases: Option<PathBuf>,
    /// Namespace of the Lease by which one of several controllers is active; default: the one that is watched
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,
    /// Most writes to the Kubernetes API a second, statuses and events, over all namespaces; twice as many at once after a rest
    #[arg(long, env = "CORNJACKET_API_REQUESTS_PER_SECOND", default_value_t = cluster::WRITES_PER_SECOND, value_name = "REQUESTS", conflicts_with = "resources")]
    api_requests_per_second: NonZeroU32,
    #[command(flatten)]
    databases: DatabaseArgs,
    /// Port of /healthz, /readyz, /health and /metrics
    #[arg(long, env = "CORNJACKET_CONTROLLERS_PORT", default_value_t = 8085)]
    port: u16,
    #[command(flatten)]
    handlers: HandlerArgs,
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    drift: DriftArgs,
    #[command(flatten)]
    secrets: SecretsKeyArgs,
    /// How often the Secrets of the cluster that WebhookActions refer to are read again, in seconds
    #[arg(long, env = "CORNJACKET_SECRET_SECONDS", default_value_t = controllers::SECRET_SECONDS, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "SECONDS")]
    secret_seconds: u64,
    #[command(flatten)]
    serve: ServeArgs,
}

/// The pods of the handler, in a cluster.
#[derive(Args)]
#[expect(clippy::struct_field_names, reason = "they are flags, too")]
struct HandlerArgs {
    /// Deployment of the handler that gets as many pods as the projection with the most spec.replicas asks for, in the
    /// namespace of --lease-namespace; without it somebody else sees to that
    #[arg(long, env = "CORNJACKET_HANDLER_DEPLOYMENT", value_name = "NAME", conflicts_with = "resources")]
    handler_deployment: Option<String>,
    /// Pods of the handler for projections that do not ask for a number
    #[arg(long, env = "CORNJACKET_HANDLER_REPLICAS", value_name = "PODS", default_value_t = 1, value_parser = clap::value_parser!(i32).range(0..=64))]
    handler_replicas: i32,
    /// Label selector of the handler's pods, which a Projection's scale has for autoscalers
    #[arg(long, env = "CORNJACKET_HANDLER_SELECTOR", value_name = "SELECTOR")]
    handler_selector: Option<String>,
}

/// How soon what somebody else changed is put back.
#[derive(Args, Clone)]
pub struct DriftArgs {
    /// How often topics on the broker are compared with what is described, in seconds
    #[arg(long, env = "CORNJACKET_DRIFT_SECONDS", default_value_t = controllers::DRIFT_SECONDS, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "SECONDS")]
    drift_seconds: u64,
}

impl DriftArgs {
    pub fn drift(&self) -> Duration {
        Duration::from_secs(self.drift_seconds)
    }
}

/// Name of the readiness of controllers that watch one namespace.
pub const ALONE: &str = "controllers";

/// What the loop works on; also for `up`.
pub struct Controllers {
    pub source: Source,
    pub namespace: String,
    pub urls: Urls,
    pub bus: BusChoice,
    /// Between two looks at a broker that has everything.
    pub drift: Duration,
    /// Seals values of Secrets.
    pub secrets_key: Option<Arc<PlatformKey>>,
    /// Label selector of the handler's pods.
    pub handler_selector: Option<String>,
}

pub async fn run(args: ControllersArgs, logs: &LogArgs) -> anyhow::Result<()> {
    let process = Process::begin(logs)?;
    if let Some(resources) = &args.resources {
        anyhow::ensure!(
            resources.is_dir(),
            "--resources: '{}' is no directory: name the one with the manifests",
            resources.display()
        );
    }
    let secrets_key = args.secrets.key()?;
    let urls = args.databases.urls();
    let watched =
        if args.watch_namespace.is_empty() { vec![args.serve.namespace.clone()] } else { args.watch_namespace };
    let mut databases = namespaces::databases(&watched, args.namespace_databases.as_deref(), &urls)?;
    for urls in databases.values() {
        process.unless_stopped(prepare(urls.distinct(), args.serve.no_migrate)).await?;
    }
    let bus = args.bus.choice()?;
    let instances = if let Some(directory) = args.resources {
        vec![(Source::Directory(directory), args.serve.namespace)]
    } else {
        let secrets = Duration::from_secs(args.secret_seconds);
        let stop = Duration::from_secs(args.serve.drain_seconds);
        let pace = Pace { secrets, stop, writes_per_second: args.api_requests_per_second };
        let watched = (watched, args.serve.namespace);
        in_cluster(&process, watched, args.lease_namespace, pace, &args.handlers).await?
    };
    let several = instances.len() > 1;
    for (source, namespace) in instances {
        let urls = databases.remove(&namespace).unwrap_or_else(|| urls.clone());
        let (bus, drift, secrets_key) = (bus.clone(), args.drift.drift(), secrets_key.clone());
        // Named once, for the life of the process.
        let name = if several { format!("controllers of {namespace}").leak() } else { ALONE };
        let handler_selector = args.handlers.handler_selector.clone();
        let controllers = Controllers { source, namespace, urls, bus, drift, secrets_key, handler_selector };
        start(controllers, name, &process)?;
    }
    let routes = crate::operate::http::routes(process.operations("controllers"));
    process.serve(Stage::Serve, "controllers", SocketAddr::new(args.serve.bind, args.port), routes).await?;
    process.run(Duration::from_secs(args.serve.drain_seconds)).await
}

/// How often the API server is asked, and how long a stop may take.
struct Pace {
    /// Between two readings of the Secrets that actions refer to.
    secrets: Duration,
    stop: Duration,
    writes_per_second: NonZeroU32,
}

/// A source for each namespace that is watched.
async fn in_cluster(
    process: &Process,
    (namespaces, own): (Vec<String>, String),
    lease_namespace: Option<String>,
    pace: Pace,
    handlers: &HandlerArgs,
) -> anyhow::Result<Vec<(Source, String)>> {
    // Also part of a field manager's name, which has at most 128 characters.
    let host: String =
        registry::host().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
    let identity = format!("{host}-{}", process.instance.simple());
    let home = lease_namespace.clone().unwrap_or(own);
    let mut settings =
        cluster::Settings::infer(identity, lease_namespace, pace.secrets, pace.stop, pace.writes_per_second)
            .await
            .context("no cluster was found, and --resources names no directory of manifests to take its place")?;
    settings.handler = handlers.handler_deployment.as_ref().map(|name| HandlerDeployment {
        namespace: home,
        name: name.clone(),
        replicas: handlers.handler_replicas,
    });
    anyhow::ensure!(
        settings.handler.is_none() || namespaces.len() == 1,
        "--handler-deployment: one Deployment is scaled for the projections of one namespace, and {} are watched: leave it out",
        namespaces.len()
    );
    Ok(namespaces.into_iter().map(|namespace| (Source::Cluster(settings.clone()), namespace)).collect())
}

/// Starts the loop within a process; `name` is that of its readiness.
///
/// # Errors
/// A database URL cannot be parsed.
pub fn start(controllers: Controllers, name: &'static str, process: &Process) -> anyhow::Result<()> {
    let options = |url: &SecretString| database::options(url, "controllers");
    let Controllers { source, namespace, urls, bus, drift, secrets_key, handler_selector } = controllers;
    let gate = process.readiness.gate(name, "starting");
    let platform = Platform {
        namespace: namespace.clone(),
        home: options(&urls.eventhandler)?,
        // The query service has no tables: it reads the handler's database, or a replica of it.
        others: vec![options(&urls.ingestion)?],
        tsdb: options(&urls.tsdb)?,
        actions: options(&urls.actions)?,
        kafka: match bus {
            BusChoice::Embedded => None,
            BusChoice::Kafka(settings) => Some(settings.admin()),
        },
        drift,
        secrets_key,
        handler_selector,
    };
    let (report, state) = watch::channel(State::Starting);
    let stop = process.lifecycle.token(Stage::Control);
    let config = Config { source, platform };
    process.lifecycle.spawn(Stage::Control, "controllers", controllers::run(config, report, stop.clone()));
    process.lifecycle.spawn(Stage::Control, "controllers.readiness", follow(state, gate, namespace, stop));
    Ok(())
}

/// A standby does its work: it waits to take over.
async fn follow(
    mut state: watch::Receiver<State>,
    gate: Gate,
    namespace: String,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let active = metrics::gauge!("cornjacket_controllers_active", "namespace" => namespace);
    loop {
        let now = state.borrow_and_update().clone();
        active.set(f64::from(u8::from(now == State::Active)));
        match now {
            State::Starting => gate.close("starting"),
            State::Active | State::Standby => gate.open(),
            State::Retrying(why) => gate.close(&why),
        }
        if !matches!(stop.run_until_cancelled(state.changed()).await, Some(Ok(()))) {
            // The loop ends only when it is stopped.
            stop.cancelled().await;
            return Ok(());
        }
    }
}
