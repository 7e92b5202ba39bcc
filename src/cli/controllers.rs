//! `cornjacket controllers`: the loop that turns a directory of manifests into what the platform runs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use controllers::State;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::process::{BusArgs, LogArgs, Process, ServeArgs, prepare};
use super::url::{DEFAULT_URL, DatabaseUrl};
use crate::database::{self, Urls};
use crate::handler::BusChoice;
use crate::lifecycle::Stage;
use crate::operate::Gate;

#[derive(Args)]
pub struct ControllersArgs {
    /// Directory of manifests (*.yaml, *.yml, *.json), with all below it; watched while running
    #[arg(long, env = "CORNJACKET_RESOURCES", value_name = "DIR")]
    resources: PathBuf,
    /// Database of the projections; the status of each resource is kept there
    #[arg(long, env = "EVENTHANDLER_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    eventhandler_database_url: SecretString,
    /// Database of the outbox and the event store
    #[arg(long, env = "INGESTION_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    ingestion_database_url: SecretString,
    /// Port of /healthz, /readyz, /health and /metrics
    #[arg(long, env = "CORNJACKET_CONTROLLERS_PORT", default_value_t = 8085)]
    port: u16,
    #[command(flatten)]
    bus: BusArgs,
    #[command(flatten)]
    serve: ServeArgs,
}

/// What the loop works on; also for `up`.
pub struct Controllers {
    pub resources: PathBuf,
    pub namespace: String,
    pub urls: Urls,
    pub bus: BusChoice,
}

pub async fn run(args: ControllersArgs, logs: &LogArgs) -> anyhow::Result<()> {
    let process = Process::begin(logs)?;
    anyhow::ensure!(
        args.resources.is_dir(),
        "--resources: '{}' is no directory: name the one with the manifests",
        args.resources.display()
    );
    let query = args.eventhandler_database_url.clone();
    let urls = Urls { ingestion: args.ingestion_database_url, eventhandler: args.eventhandler_database_url, query };
    prepare(urls.distinct(), args.serve.no_migrate).await?;
    let bus = args.bus.choice()?;
    start(Controllers { resources: args.resources, namespace: args.serve.namespace, urls, bus }, &process)?;
    let routes = crate::operate::http::routes(process.operations("controllers"));
    process.serve(Stage::Serve, "controllers", SocketAddr::new(args.serve.bind, args.port), routes).await?;
    process.run(Duration::from_secs(args.serve.drain_seconds)).await
}

/// Starts the loop within a process.
///
/// # Errors
/// A database URL cannot be parsed.
pub fn start(controllers: Controllers, process: &Process) -> anyhow::Result<()> {
    let options = |url: &SecretString| database::options(url, "controllers");
    let Controllers { resources, namespace, urls, bus } = controllers;
    let config = controllers::Config {
        directory: resources,
        namespace,
        home: options(&urls.eventhandler)?,
        // The query service has no tables: it reads the handler's database, or a replica of it.
        others: vec![options(&urls.ingestion)?],
        kafka: match bus {
            BusChoice::Embedded => None,
            BusChoice::Kafka(settings) => Some(settings.admin()),
        },
    };
    let (report, state) = watch::channel(State::Starting);
    let stop = process.lifecycle.token(Stage::Control);
    let gate = process.readiness.gate("controllers", "starting");
    process.lifecycle.spawn(Stage::Control, "controllers", controllers::run(config, report, stop.clone()));
    process.lifecycle.spawn(Stage::Control, "controllers.readiness", follow(state, gate, stop));
    Ok(())
}

/// A standby does its work: it waits to take over.
async fn follow(mut state: watch::Receiver<State>, gate: Gate, stop: CancellationToken) -> Result<(), Infallible> {
    loop {
        let now = state.borrow_and_update().clone();
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
