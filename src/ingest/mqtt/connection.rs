//! The connection to the broker: made again with backoff, subscribed to what is declared, handing messages on.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::backoff::Backoff;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::acks::Acks;
use super::client::{Broker, Heard, Link, LinkError, Requests};
use super::instruments::{Ended, Instruments};
use super::intake::Delivered;
use super::message::Message;
use super::routes::Routes;
use super::settings::Settings;
use super::subscriptions::{Ask, Subscriptions};

const BACKOFF: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(30) };
/// How often what the broker refused is asked for again.
const REFUSED_AGAIN: Duration = Duration::from_mins(1);
/// A connection that ends before is tried again ever more slowly: somebody else may have this client id.
const LASTING: Duration = Duration::from_secs(10);
/// Messages, and bytes of them, that may wait beside those handed on.
const WAITING: usize = 100_000;
const WAITING_BYTES: usize = 64 << 20;
/// How long the last acknowledgements may take at the end.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a connection works with.
pub struct Connection {
    pub settings: Settings,
    pub link: Link,
    pub requests: Requests,
    pub acks: Acks,
    pub routes: watch::Receiver<Arc<Routes>>,
    pub instruments: Instruments,
    pub subscriptions: Subscriptions,
    /// `None` while there is no connection.
    pub broker: Option<Broker>,
    /// When it was made.
    pub since: Instant,
    /// What there was no room for on the other side. Brokers that heed the number that we take at a time send no more than
    /// there is room for; for others the connection must go on, since acknowledgements make room.
    pub waiting: VecDeque<Delivered>,
    pub waiting_bytes: usize,
}

impl Connection {
    /// Runs until it is told to stop; then it goes on until all that was handed on is acknowledged (`taken`).
    pub async fn run(mut self, to: mpsc::Sender<Delivered>, mut taken: oneshot::Receiver<()>, stop: CancellationToken) {
        let mut failures = 0;
        let (mut to, mut declares) = (Some(to), true);
        let mut refused_again = interval(REFUSED_AGAIN);
        refused_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.route();
        loop {
            tokio::select! {
                biased;
                _ = &mut taken => break,
                () = stop.cancelled(), if to.is_some() => to = None,
                room = room(to.clone()), if to.is_some() && !self.waiting.is_empty() => {
                    if let (Some(room), Some(first)) = (room, self.waiting.pop_front()) {
                        self.waiting_bytes -= first.message.payload.len();
                        room.send(first);
                    }
                }
                changed = self.routes.changed(), if declares => {
                    declares = changed.is_ok();
                    self.route();
                }
                _ = refused_again.tick() => {
                    self.subscriptions.try_refused_again();
                    self.subscribe();
                }
                heard = self.link.next() => match heard {
                    Ok(heard) => self.hear(heard, to.as_ref()),
                    Err(error) => {
                        failures = if self.lasted() { 0 } else { failures };
                        self.lost(&error, failures);
                        let wait = BACKOFF.delay(failures, rand::random());
                        failures += 1;
                        tokio::select! {
                            () = sleep(wait) => {}
                            () = stop.cancelled() => {
                                // Nothing can be acknowledged, and nothing is lost by that.
                                drop(to);
                                return;
                            }
                        }
                    }
                },
            }
        }
        self.goodbye().await;
    }

    fn hear(&mut self, heard: Heard, to: Option<&mpsc::Sender<Delivered>>) {
        match heard {
            Heard::Connected(broker) => self.connected(broker),
            Heard::Message(message) => self.hand_on(message, to),
            Heard::Subscribed(answer) => {
                if let (Some(filter), Err(why)) = (self.subscriptions.answered(&answer), &answer) {
                    warn!(filter, why, "the broker refuses a subscription: asked again every minute");
                }
                self.count();
            }
            Heard::Other => {}
        }
    }

    fn hand_on(&mut self, message: Message, to: Option<&mpsc::Sender<Delivered>>) {
        // What comes while stopping is not acknowledged, and so comes again.
        let Some(to) = to else { return };
        let acknowledged = message.acknowledged;
        let delivered = Delivered { message, connection: self.acks.connection(), at: Instant::now() };
        let full = if self.waiting.is_empty() {
            match to.try_send(delivered) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(delivered)) => delivered,
            }
        } else {
            delivered
        };
        if acknowledged {
            self.waiting_bytes += full.message.payload.len();
            self.waiting.push_back(full);
        } else {
            self.instruments.ended(Ended::Dropped, 1);
        }
        if self.waiting_bytes > WAITING_BYTES || self.waiting.len() > WAITING {
            warn!(
                "more messages came than there is room for: the connection is given up, and the broker sends them again"
            );
            self.forget();
        }
    }

    /// Gives up the connection, and what came by it and was not handed on.
    fn forget(&mut self) {
        self.broker = None;
        self.instruments.connected.set(0.0);
        self.acks.disconnected();
        self.link.forget_requests();
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    fn connected(&mut self, broker: Broker) {
        let Settings { host, port, client_id, .. } = &self.settings;
        info!(host, port, client_id, resumed = broker.session_present, "connected to the MQTT broker");
        if self.settings.share.is_some() && !broker.shares_subscriptions {
            warn!(
                "this broker shares no subscriptions: run one ingest with --mqtt-url, since each would store every message"
            );
        }
        (self.broker, self.since) = (Some(broker), Instant::now());
        self.instruments.connected.set(1.0);
        self.instruments.connects.increment(1);
        self.subscriptions.connected();
        self.route();
    }

    /// Whether the connection was more than an attempt.
    fn lasted(&self) -> bool {
        self.broker.is_some() && self.since.elapsed() > LASTING
    }

    fn lost(&mut self, error: &LinkError, failures: u32) {
        let Settings { host, port, client_id, .. } = &self.settings;
        match (self.broker.take(), self.since.elapsed() < LASTING) {
            (Some(_), true) => warn!(
                %error, host, port, client_id,
                "the MQTT broker ended the connection soon after it was made: trying again; if it goes on, another client may \
                 have this client id (--mqtt-client-id)"
            ),
            (None, _) if failures > 0 => {}
            _ => warn!(%error, host, port, "no connection to the MQTT broker: trying again"),
        }
        self.forget();
    }

    /// Compares what is subscribed with what is declared.
    fn route(&mut self) {
        let routes = Arc::clone(&self.routes.borrow_and_update());
        if let Some((one, other)) = routes.overlap() {
            warn!(%one, %other, "these topic filters overlap: some brokers send what both match twice, and it is stored twice");
        }
        let shares = self.broker.is_none_or(|broker| broker.shares_subscriptions);
        let filters: BTreeSet<String> =
            routes.subscriptions().iter().map(|filter| self.settings.subscription(filter, shares)).collect();
        self.subscriptions.want(filters);
        self.subscribe();
    }

    fn subscribe(&mut self) {
        if self.broker.is_none() {
            return;
        }
        for ask in self.subscriptions.outstanding() {
            let taken = match &ask {
                Ask::Subscribe(filter) => self.requests.subscribe(filter),
                Ask::Unsubscribe(filter) => self.requests.unsubscribe(filter),
            };
            // The rest is asked for when an answer has made room.
            if !taken {
                break;
            }
            self.subscriptions.asked(&ask);
        }
        self.count();
    }

    #[expect(clippy::cast_precision_loss, reason = "a few subscriptions")]
    fn count(&self) {
        let (granted, refused) = self.subscriptions.count();
        self.instruments.granted.set(granted as f64);
        self.instruments.refused.set(refused as f64);
    }

    /// Sends what was acknowledged last, and goes.
    async fn goodbye(mut self) {
        if self.broker.is_none() {
            return;
        }
        self.requests.disconnect();
        let going = async { while self.link.next().await.is_ok_and(|heard| !matches!(heard, Heard::Connected(_))) {} };
        // The broker notices anyhow.
        let _ = timeout(GOODBYE, going).await;
        self.instruments.connected.set(0.0);
    }
}

/// Room for one message; `None` where the other side has gone.
async fn room(to: Option<mpsc::Sender<Delivered>>) -> Option<mpsc::OwnedPermit<Delivered>> {
    to?.reserve_owned().await.ok()
}
