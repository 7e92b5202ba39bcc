//! `cornjacket act`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;

use super::actions::ActionArgs;
use super::process::{LogArgs, PollArgs, Process, ServeArgs, prepare};
use super::secrets_key::SecretsKeyArgs;
use super::url::{DEFAULT_URL, DatabaseUrl};
use crate::actions::{self, Actions};
use crate::bus::wake::Wake;
use crate::database::{self, Service, Urls};
use crate::lifecycle::Stage;
use crate::registry::{self, Role};

#[derive(Args)]
pub struct ActArgs {
    /// Database of the webhook deliveries
    #[arg(long, env = "ACTIONS_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    actions_database_url: SecretString,
    /// Database of the event store, which is read on either bus
    #[arg(long, env = "INGESTION_DATABASE_URL", value_parser = DatabaseUrl, default_value = DEFAULT_URL, hide_env_values = true)]
    ingestion_database_url: SecretString,
    /// Port of the deliveries interface, and of /healthz, /readyz, /health and /metrics
    #[arg(long, env = "CORNJACKET_ACTIONS_PORT", default_value_t = 8082)]
    port: u16,
    #[command(flatten)]
    actions: ActionArgs,
    #[command(flatten)]
    secrets: SecretsKeyArgs,
    #[command(flatten)]
    poll: PollArgs,
    #[command(flatten)]
    serve: ServeArgs,
}

pub async fn run(args: ActArgs, logs: &LogArgs) -> anyhow::Result<()> {
    let process = Process::begin(logs)?;
    let settings = args.actions.settings(Vec::new())?;
    let platform = args.secrets.key()?;
    let state = args.actions.state(&args.serve.namespace)?;
    let mut urls = Urls::one(&args.actions_database_url);
    urls.ingestion = args.ingestion_database_url;
    let services = [Service::Ingestion, Service::Actions];
    process.unless_stopped(prepare(urls.of(&services), args.serve.no_migrate)).await?;
    let pool = database::pool(&urls.actions, "act", 8)?;
    let registry = registry::start(
        registry::Settings {
            pool: pool.clone(),
            namespace: args.serve.namespace.clone(),
            roles: vec![Role::Act],
            instance: process.instance,
        },
        &process.lifecycle,
        process.readiness.gate("registrations", "loading"),
    );
    let actions = Actions {
        pool,
        ingestion: database::pool(&urls.ingestion, "act", 4)?,
        instance: process.instance,
        namespace: args.serve.namespace,
        platform,
        catalog: registry.catalog,
        acks: registry.acks,
        state,
        event_store: Wake::default(),
        poll: args.poll.poll(),
        settings,
        loaded: process.readiness.gate("actions", "loading"),
        intake: process.readiness.gate("events", "connecting to the databases"),
        dispatch: process.readiness.gate("deliveries", "connecting to the database"),
        settle: process.readiness.gate("answers", "connecting to the database"),
    };
    let service = actions.start(&process.lifecycle)?;
    let operations = crate::operate::http::routes(process.operations("actions"));
    let letters = vec![database::pool(&urls.actions, "dead letters", 2)?];
    let routes = actions::http::routes(service, letters).merge(operations);
    process.serve(Stage::Serve, "actions", SocketAddr::new(args.serve.bind, args.port), routes).await?;
    process.run(Duration::from_secs(args.serve.drain_seconds)).await
}
