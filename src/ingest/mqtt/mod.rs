//! MQTT: where devices' events come in. In: messages on the topics that event types declare. Out: entries for the outbox
//! (and dead letters), and acknowledgements.
//!
//! ```text
//! broker ──▶ connection ──▶ intake: read, check ──▶ outbox (or dead letter) ──▶ acknowledgement
//! ```
//!
//! Guarantees, for QoS 1: a message is acknowledged only after its event, or its dead letter, is committed, and in the
//! order in which messages came; a message that cannot become an event never holds up another. What the broker sends again
//! because an acknowledgement was lost is told by packet id and content, as far as one client's session goes, and stored
//! once. While the database is away nothing is acknowledged, and the broker keeps what comes.
//!
//! Retained messages are not taken: they are states from before, not events. QoS 0 is taken as it comes, and dropped first.
//! Events of one device keep their order with one ingest, or where the broker gives all messages of a topic to one member
//! of the group that shares them.

mod acks;
mod client;
mod connection;
mod instruments;
mod intake;
mod message;
mod read;
mod replay;
mod routes;
mod settings;
mod store;
mod subscriptions;
mod window;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::backoff::Backoff;
use crds::cause::Chain;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::acks::Acks;
use self::connection::Connection;
use self::instruments::Instruments;
use self::intake::Intake;
use self::routes::Routes;
use self::subscriptions::Subscriptions;
use self::window::Window;
use super::Ingest;
use crate::lifecycle::{Lifecycle, Stage};

pub use self::replay::start as start_replays;
pub use self::settings::{Settings, Version};

const BACKOFF: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(10) };

/// Starts taking messages in. `pool` is of the database of the outbox.
pub fn start(lifecycle: &Lifecycle, ingest: &Arc<Ingest>, pool: PgPool, settings: Settings) {
    let (publish, routes) = watch::channel(Arc::default());
    let stop = || lifecycle.token(Stage::Accept);
    lifecycle.spawn(Stage::Accept, "mqtt routes", follow(ingest.catalog.clone(), publish, stop()));
    let run = run(Arc::clone(ingest), pool, settings, routes, stop());
    lifecycle.spawn(Stage::Accept, "mqtt", async move {
        run.await;
        Ok::<_, Infallible>(())
    });
}

/// Keeps the routes as the catalog has them.
async fn follow(
    mut catalog: watch::Receiver<Arc<crate::registry::Catalog>>,
    publish: watch::Sender<Arc<Routes>>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        let routes = Routes::of(&catalog.borrow_and_update());
        publish.send_if_modified(|before| {
            let changed = **before != routes;
            if changed {
                *before = Arc::new(routes);
            }
            changed
        });
        if !matches!(stop.run_until_cancelled(catalog.changed()).await, Some(Ok(()))) {
            break;
        }
    }
    stop.cancelled().await;
    Ok(())
}

async fn run(
    ingest: Arc<Ingest>,
    pool: PgPool,
    settings: Settings,
    mut routes: watch::Receiver<Arc<Routes>>,
    stop: CancellationToken,
) {
    if settings.share.is_some() && !settings.share_keeps_order {
        info!(
            "events of one device keep their order with one ingest; with several, have the broker share by topic or client \
             (EMQX: hash_topic, hash_clientid), and say so by --mqtt-share-keeps-order"
        );
    }
    let ready = async {
        // Before, every message would be one that nothing takes. The sender lives as long as this room.
        let _ = routes.wait_for(|routes| routes.loaded).await;
        known(&pool, &settings).await
    };
    let Some(window) = stop.run_until_cancelled(ready).await else { return };
    let (link, requests) = client::link(&settings);
    let (acks, instruments) = (Acks::new(requests.clone()), Instruments::new());
    let (to, messages) = mpsc::channel(usize::from(settings.in_flight));
    let (done, taken) = oneshot::channel();
    let intake = Intake {
        ingest,
        pool,
        client_id: settings.client_id.clone(),
        max_event_bytes: settings.max_event_bytes,
        routes: routes.clone(),
        window,
        acks: acks.clone(),
        instruments: instruments.clone(),
        stop: stop.clone(),
    };
    let subscriptions = Subscriptions::default();
    let connection = Connection {
        settings,
        link,
        requests,
        acks,
        routes,
        instruments,
        subscriptions,
        broker: None,
        since: Instant::now(),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
    };
    let taking_in = tokio::spawn(async move {
        intake.run(messages).await;
        drop(done);
    });
    connection.run(to, taken, stop).await;
    if let Err(panic) = taking_in.await {
        std::panic::resume_unwind(panic.into_panic());
    }
}

/// The deliveries that the broker may repeat.
async fn known(pool: &PgPool, settings: &Settings) -> Window {
    let mut window = Window::default();
    for failures in 0.. {
        match store::stored(pool, &settings.client_id).await {
            Ok(deliveries) => {
                for delivery in deliveries {
                    window.note(delivery.packet, delivery.fingerprint);
                }
                break;
            }
            Err(error) => {
                let wait = BACKOFF.delay(failures, rand::random());
                warn!(error = %Chain(&error), "cannot read which messages are stored: trying again");
                sleep(wait).await;
            }
        }
    }
    window
}
