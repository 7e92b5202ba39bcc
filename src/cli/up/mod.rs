//! `cornjacket up`: everything on one machine by one command.

mod broker;
pub(crate) mod database_url;
pub mod postgres;
mod roles;
mod welcome;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use secrecy::SecretString;

use super::actions::ActionArgs;
use super::controllers::DriftArgs;
use super::ingest::IngestTuning;
use super::mqtt::MqttArgs;
use super::process::{BusArgs, LogArgs, PollArgs, Process, prepare};
use super::relay::RelayTuning;
use super::secrets_key::SecretsKeyArgs;
use super::url::DatabaseUrl;
use crate::database::Urls;
use crate::lifecycle::Stage;
use postgres::PrivatePostgres;
use welcome::Steps;

#[derive(Args)]
pub struct UpArgs {
    /// Where the private PostgreSQL keeps its data, and `get` finds the database; also the key of the secrets, if none is given
    #[arg(long, env = "CORNJACKET_DATA_DIR", default_value = ".cornjacket", value_name = "DIR")]
    data_dir: PathBuf,
    /// Manifests of EventTypes, Topics, Projections, WebhookActions and their Secrets; changes are picked up while running
    #[arg(long, env = "CORNJACKET_RESOURCES", default_value = "crds/samples", value_name = "DIR")]
    resources: PathBuf,
    #[command(flatten)]
    bus: BusArgs,
    /// Address to listen on
    #[arg(long, env = "CORNJACKET_BIND", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Port of `POST /api/v1/events`
    #[arg(long, env = "CORNJACKET_INGESTION_PORT", default_value_t = 8080, value_name = "PORT")]
    ingestion_port: u16,
    /// Port of `GET /api/v1/projections`
    #[arg(long, env = "CORNJACKET_QUERY_PORT", default_value_t = 8081, value_name = "PORT")]
    query_port: u16,
    /// Port of webhook deliveries (/api/v1/deliveries) and of dead letters (/api/v1/dead-letters)
    #[arg(long, env = "CORNJACKET_ACTIONS_PORT", default_value_t = 8082, value_name = "PORT")]
    actions_port: u16,
    /// Database of the outbox and the event store. With any of the URLs of databases no private PostgreSQL is started
    #[arg(long, env = "INGESTION_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true, value_name = "URL")]
    ingestion_database_url: Option<SecretString>,
    /// Database of the projections (default: the ingestion database)
    #[arg(long, env = "EVENTHANDLER_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true, value_name = "URL")]
    eventhandler_database_url: Option<SecretString>,
    /// Database that queries read: the handler's or a replica of it (default: the handler's)
    #[arg(long, env = "QUERY_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true, value_name = "URL")]
    query_database_url: Option<SecretString>,
    /// Database of the time series; default: that of the projections
    #[arg(long, env = "TSDB_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true)]
    tsdb_database_url: Option<SecretString>,
    /// Database of the webhook deliveries; default: that of the projections
    #[arg(long, env = "ACTIONS_DATABASE_URL", value_parser = DatabaseUrl, hide_env_values = true)]
    actions_database_url: Option<SecretString>,
    /// Port of a broker of its own for MQTT, where --mqtt-url names none
    #[arg(long, env = "CORNJACKET_MQTT_PORT", default_value_t = 1883, value_name = "PORT")]
    mqtt_port: u16,
    /// Start no MQTT broker
    #[arg(long, env = "CORNJACKET_NO_MQTT")]
    no_mqtt: bool,
    #[command(flatten)]
    mqtt: MqttArgs,
    #[command(flatten)]
    ingest: IngestTuning,
    #[command(flatten)]
    relay: RelayTuning,
    #[command(flatten)]
    poll: PollArgs,
    #[command(flatten)]
    drift: DriftArgs,
    #[command(flatten)]
    secrets: SecretsKeyArgs,
    #[command(flatten)]
    webhooks: ActionArgs,
    /// How long a stop may take, in seconds
    #[arg(long, env = "CORNJACKET_DRAIN_SECONDS", default_value_t = 25, value_name = "SECONDS")]
    drain_seconds: u64,
}

impl UpArgs {
    /// The databases named, if any is. One URL stands for the others that are not given.
    fn urls(&self) -> Option<Urls> {
        let ingestion = self.ingestion_database_url.as_ref();
        let eventhandler = self.eventhandler_database_url.as_ref();
        let query = self.query_database_url.as_ref();
        let (tsdb, actions) = (self.tsdb_database_url.as_ref(), self.actions_database_url.as_ref());
        let any = ingestion.or(eventhandler).or(query).or(tsdb).or(actions)?;
        let or_handlers = |url: Option<&SecretString>| url.or(eventhandler).unwrap_or(any).clone();
        Some(Urls {
            ingestion: ingestion.unwrap_or(any).clone(),
            eventhandler: or_handlers(None),
            query: or_handlers(query),
            tsdb: or_handlers(tsdb),
            actions: or_handlers(actions),
        })
    }
}

impl UpArgs {
    fn starts_a_broker(&self) -> bool {
        !self.no_mqtt && !self.mqtt.names_a_broker()
    }
}

pub async fn run(args: UpArgs, logs: &LogArgs) -> anyhow::Result<()> {
    let process = Process::begin(logs)?;
    let steps = Steps::begin();
    anyhow::ensure!(
        args.resources.is_dir(),
        "--resources {}: not a directory; name one with manifests, such as crds/samples",
        args.resources.display()
    );
    let bus = args.bus.choice()?;
    require_free_ports(&args)?;
    let (postgres, urls) = if let Some(urls) = args.urls() {
        (None, urls)
    } else {
        let postgres = PrivatePostgres::start(&args.data_dir, |step| steps.say(step))
            .await
            .context("cannot start a PostgreSQL of its own (INGESTION_DATABASE_URL names one of yours instead)")?;
        let urls = Urls::one(postgres.url());
        (Some(postgres), urls)
    };
    let died = postgres.as_ref().map(PrivatePostgres::died);
    let (stopping, data_dir) = (process.lifecycle.stopping(), args.data_dir.clone());
    let ended = if stopping.is_cancelled() { Ok(()) } else { serve(args, process, &steps, bus, urls, died).await };
    match postgres {
        Some(postgres) => {
            steps.say("Stopping PostgreSQL");
            postgres.stop().await;
            steps.say(&format!("Stopped; the data is kept in {}", data_dir.display()));
        }
        None => steps.say("Stopped; the data is kept in the database"),
    }
    ended
}

/// A port that is taken is told before a database is made, which takes seconds.
fn require_free_ports(args: &UpArgs) -> anyhow::Result<()> {
    let mqtt = args.starts_a_broker().then_some(("--mqtt-port", args.mqtt_port));
    let ports = [
        ("--ingestion-port", args.ingestion_port),
        ("--query-port", args.query_port),
        ("--actions-port", args.actions_port),
    ];
    for (flag, port) in ports.into_iter().chain(mqtt) {
        let address = SocketAddr::new(args.bind, port);
        match std::net::TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => anyhow::bail!(
                "{flag} {port}: something listens on {address} already: stop it, or choose other ports; a second \
                 `cornjacket up` needs --ingestion-port, --query-port, --actions-port, --mqtt-port and --data-dir of its own"
            ),
            bound => drop(bound.with_context(|| format!("{flag} {port}: cannot listen on {address}"))?),
        }
    }
    Ok(())
}

async fn serve(
    args: UpArgs,
    process: Process,
    steps: &Steps,
    bus: crate::handler::BusChoice,
    urls: Urls,
    died: Option<impl Future<Output = String> + Send + 'static>,
) -> anyhow::Result<()> {
    steps.say("Applying database migrations");
    process.unless_stopped(prepare(urls.distinct(), false)).await?;
    if let Some(died) = died {
        let (stop, stopping) = (process.lifecycle.token(Stage::Serve), process.lifecycle.stopping());
        process.lifecycle.spawn(Stage::Serve, "postgres", async move {
            tokio::select! {
                // While stopping it is ended on purpose.
                how = died => if stopping.is_cancelled() { Ok(()) } else { Err(how) },
                () = stop.cancelled() => Ok(()),
            }
        });
    }
    database_url::write(&args.data_dir, &urls.eventhandler)?;
    steps.say(&format!("Starting the roles: ingest, relay, handle, query, act, controllers ({} bus)", bus.name()));
    let drain = Duration::from_secs(args.drain_seconds);
    let ports = roles::start(&args, &process, bus, &urls).await?;
    let (readiness, resources) = (process.readiness.clone(), args.resources.clone());
    let welcome = welcome::when_ready(readiness, *steps, ports, resources);
    let stopping = process.lifecycle.stopping();
    tokio::spawn(async move { stopping.run_until_cancelled(welcome).await });
    process.run(drain).await
}
