//! The roles of `up`, started in the order in which an event walks through them backwards: who reads before who writes.

use std::net::SocketAddr;
use std::sync::Arc;

use controllers::Source;
use crds::secret::PlatformKey;
use secrecy::{ExposeSecret, SecretString};

use super::UpArgs;
use super::broker::Broker;
use super::welcome::Addresses;
use crate::actions::guard::loopback;
use crate::actions::{self, Actions};
use crate::bus::wake::{self, Wake};
use crate::cli::controllers::{self as control, Controllers};
use crate::cli::process::Process;
use crate::database::{self, Urls};
use crate::event::ShardSet;
use crate::handler::{BusChoice, Handler};
use crate::lifecycle::Stage;
use crate::registry::{self, Registry, Role};
use crate::relay::Relay;
use crate::time_series::TimeSeries;
use crate::{ingest, operate, query};

/// Of the only platform instance here.
const NAMESPACE: &str = "default";

/// Starts every role; returns where they listen.
pub(super) async fn start(args: &UpArgs, process: &Process, bus: BusChoice, urls: &Urls) -> anyhow::Result<Addresses> {
    let source = Source::Directory(args.resources.clone());
    let (namespace, drift) = (NAMESPACE.to_owned(), args.drift.drift());
    let secrets_key = args.secrets.key_or_own(&args.data_dir)?;
    let controllers = Controllers {
        source,
        namespace,
        urls: urls.clone(),
        bus: bus.clone(),
        drift,
        secrets_key: Some(secrets_key.clone()),
        handler_selector: None,
    };
    control::start(controllers, control::ALONE, process)?;
    let (outbox, [handler_news, actions_news, series_news]) =
        (Wake::default(), [Wake::default(), Wake::default(), Wake::default()]);
    let event_store = Wake::for_all(vec![handler_news.clone(), actions_news.clone(), series_news.clone()]);
    let registry = load(process, urls)?;
    handle(args, process, &bus, urls, &registry, handler_news)?;
    write_series(args, process, urls, &registry, series_news)?;
    let deliveries = deliver(args, process, urls, &registry, (actions_news, secrets_key))?;
    relay(args, process, &bus, urls, &registry, (outbox.clone(), event_store))?;
    let broker = listen_to_devices(args, process).await?;
    Ok(Addresses {
        query: serve_queries(args, process, urls, &registry).await?,
        actions: serve_deliveries(args, process, urls, deliveries).await?,
        ingest: take_in(args, process, urls, &registry, outbox, broker).await?,
        broker,
    })
}

/// What is registered, as the handler's database has it; who delivers is heard of where the deliveries are.
fn load(process: &Process, urls: &Urls) -> anyhow::Result<Registry> {
    let mut roles = vec![Role::Ingest, Role::Relay, Role::Handle, Role::Query];
    if urls.actions.expose_secret() == urls.eventhandler.expose_secret() {
        roles.push(Role::Act);
    }
    registry(process, &urls.eventhandler, roles, "registrations")
}

fn registry(process: &Process, url: &SecretString, roles: Vec<Role>, gate: &'static str) -> anyhow::Result<Registry> {
    let settings = registry::Settings {
        pool: database::pool(url, "up", 4)?,
        namespace: NAMESPACE.to_owned(),
        roles,
        instance: process.instance,
    };
    Ok(registry::start(settings, &process.lifecycle, process.readiness.gate(gate, "loading")))
}

fn deliver(
    args: &UpArgs,
    process: &Process,
    urls: &Urls,
    registry: &Registry,
    (event_store, secrets_key): (Wake, Arc<PlatformKey>),
) -> anyhow::Result<actions::http::Service> {
    let own = if urls.actions.expose_secret() == urls.eventhandler.expose_secret() {
        registry.clone()
    } else {
        self::registry(process, &urls.actions, vec![Role::Act], "registrations of actions")?
    };
    let actions = Actions {
        pool: database::pool(&urls.actions, "act", 8)?,
        ingestion: database::pool(&urls.ingestion, "act", 4)?,
        instance: process.instance,
        namespace: NAMESPACE.to_owned(),
        platform: Some(secrets_key),
        catalog: own.catalog,
        acks: own.acks,
        state: args.webhooks.state(NAMESPACE)?,
        event_store,
        poll: args.poll.poll(),
        // Receivers of a developer are on this machine.
        settings: args.webhooks.settings(loopback())?,
        loaded: process.readiness.gate("actions", "loading"),
        intake: process.readiness.gate("events", "connecting to the databases"),
        dispatch: process.readiness.gate("deliveries", "connecting to the database"),
        settle: process.readiness.gate("answers", "connecting to the database"),
    };
    Ok(actions.start(&process.lifecycle)?)
}

fn handle(
    args: &UpArgs,
    process: &Process,
    bus: &BusChoice,
    urls: &Urls,
    registry: &Registry,
    event_store: Wake,
) -> anyhow::Result<()> {
    let handler = Handler {
        pool: database::pool_of_projections(&urls.eventhandler, "handle", 8)?,
        ingestion: database::pool(&urls.ingestion, "handle", 4)?,
        instance: process.instance,
        bus: bus.clone(),
        poll: args.poll.poll(),
        event_store,
        catalog: registry.catalog.clone(),
        acks: registry.acks.clone(),
        gate: process.readiness.gate("projections", "reconciling"),
        batches: process.readiness.gate("batches", "none has got through yet"),
        bus_gate: process.readiness.gate("handler bus", "connecting"),
    };
    Ok(handler.start(&process.lifecycle)?)
}

fn write_series(
    args: &UpArgs,
    process: &Process,
    urls: &Urls,
    registry: &Registry,
    event_store: Wake,
) -> anyhow::Result<()> {
    let series = TimeSeries {
        pool: database::pool(&urls.tsdb, "tsdb-writer", 4)?,
        ingestion: database::pool(&urls.ingestion, "tsdb-writer", 2)?,
        instance: process.instance,
        event_store,
        poll: args.poll.poll(),
        catalog: registry.catalog.clone(),
        acks: registry.acks.clone(),
        gate: process.readiness.gate("time series", "looking after them"),
    };
    series.start(&process.lifecycle);
    Ok(())
}

fn relay(
    args: &UpArgs,
    process: &Process,
    bus: &BusChoice,
    urls: &Urls,
    registry: &Registry,
    (outbox, event_store): (Wake, Wake),
) -> anyhow::Result<()> {
    let relay = Relay {
        pool: database::pool(&urls.ingestion, "relay", 8)?,
        instance: process.instance,
        settings: args.relay.settings(args.poll.poll()),
        outbox,
        event_store,
        catalog: registry.catalog.clone(),
        kafka: match bus {
            BusChoice::Embedded => None,
            BusChoice::Kafka(settings) => Some(settings.clone()),
        },
        database: process.readiness.gate("relay", "connecting to the database"),
        bus: process.readiness.gate("bus", "connecting"),
    };
    Ok(relay.start(&process.lifecycle)?)
}

async fn take_in(
    args: &UpArgs,
    process: &Process,
    urls: &Urls,
    registry: &Registry,
    outbox: Wake,
    broker: Option<SocketAddr>,
) -> anyhow::Result<SocketAddr> {
    let settings = args.ingest.settings()?;
    let gate = process.readiness.gate("outbox", "connecting to the database");
    let options = database::options(&urls.ingestion, "ingest")?;
    let wake = outbox.clone();
    let on_commit: crate::outbox::OnCommit = Arc::new(move |shards: ShardSet| wake.add(shards));
    let state = ingest::start(&process.lifecycle, &options, registry.catalog.clone(), &settings, gate, &on_commit);
    let (pool, stop) = (database::pool(&urls.ingestion, "ingest", 3)?, process.lifecycle.token(Stage::Relay));
    let largest = settings.limits.event_bytes;
    let mqtt = match broker {
        Some(own) => Some(args.mqtt.settings_at(own, "default", largest)?),
        None if args.no_mqtt => None,
        None => args.mqtt.settings("default", largest)?,
    };
    ingest::mqtt::start_replays(&process.lifecycle, &state, &pool);
    if let Some(mqtt) = mqtt {
        ingest::mqtt::start(&process.lifecycle, &state, pool.clone(), mqtt);
    }
    let instance = process.instance;
    process.lifecycle.spawn(Stage::Relay, "ingest.tell", async move {
        wake::tell(outbox, wake::OUTBOX, instance, pool, stop).await;
        Ok::<(), std::convert::Infallible>(())
    });
    let routes = ingest::routes(state).merge(operate::http::routes(process.operations("ingest")));
    process.serve(Stage::Accept, "ingest", SocketAddr::new(args.bind, args.ingestion_port), routes).await
}

/// The broker of this process's own, where none is given.
async fn listen_to_devices(args: &UpArgs, process: &Process) -> anyhow::Result<Option<SocketAddr>> {
    if !args.starts_a_broker() {
        return Ok(None);
    }
    let broker = Broker::listen(SocketAddr::new(args.bind, args.mqtt_port), &args.data_dir).await?;
    let address = broker.address;
    process.lifecycle.spawn(Stage::Serve, "mqtt broker", broker.run(process.lifecycle.token(Stage::Serve)));
    Ok(Some(address))
}

async fn serve_queries(
    args: &UpArgs,
    process: &Process,
    urls: &Urls,
    registry: &Registry,
) -> anyhow::Result<SocketAddr> {
    let sources = query::Sources {
        projections: database::pool_of_projections(&urls.query, "query", 8)?,
        series: database::pool_of_projections(&urls.tsdb, "query", 4)?,
        events: database::pool(&urls.ingestion, "query", 4)?,
        catalog: registry.catalog.clone(),
    };
    let service = query::start(
        sources,
        query::Limits::default(),
        &process.lifecycle,
        process.readiness.gate("query", "connecting to the database"),
    );
    let routes = query::routes(service).merge(operate::http::routes(process.operations("query")));
    process.serve(Stage::Serve, "query", SocketAddr::new(args.bind, args.query_port), routes).await
}

/// The port of actions: deliveries, and dead letters of all databases.
async fn serve_deliveries(
    args: &UpArgs,
    process: &Process,
    urls: &Urls,
    service: actions::http::Service,
) -> anyhow::Result<SocketAddr> {
    let databases = urls.distinct();
    let letters = databases.iter().map(|(url, _)| database::pool(url, "dead letters", 2)).collect::<Result<_, _>>()?;
    let routes = actions::http::routes(service, letters).merge(operate::http::routes(process.operations("actions")));
    process.serve(Stage::Serve, "actions", SocketAddr::new(args.bind, args.actions_port), routes).await
}
