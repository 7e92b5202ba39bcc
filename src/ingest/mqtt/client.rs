//! The only file that speaks MQTT, by rumqttc: MQTT 5, or 3.1.1 where a broker knows no better.
//!
//! What rumqttc leaves to who uses it is done next door: backoff, subscribing again, acknowledging in order.

use rumqttc::v5::mqttbytes::v5 as five;
use rumqttc::{TlsConfiguration, Transport, mqttbytes as three, v5};

use super::message::Message;
use super::settings::{Settings, Version};

/// Requests that may wait for the connection beside acknowledgements: subscriptions.
const OTHER_REQUESTS: usize = 256;
/// Largest packet that MQTT knows: 3.1.1 cannot tell the broker less, and a packet above would break every connection.
const LARGEST_PACKET: usize = 268_435_455;

/// What a broker said.
#[derive(Debug)]
pub enum Heard {
    Connected(Broker),
    Message(Message),
    /// The answer to the oldest subscription that was not answered; the error is the broker's.
    Subscribed(Result<(), String>),
    /// Something that matters to nobody here.
    Other,
}

/// What a broker is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broker {
    /// It knows this client from before: subscriptions and messages not acknowledged.
    pub session_present: bool,
    pub shares_subscriptions: bool,
}

/// A connection broke, or could not be made. Transient: try again with backoff.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LinkError(String);

/// A connection that is made anew whenever it is asked for news.
pub enum Link {
    Five(Box<v5::EventLoop>),
    Three(Box<rumqttc::EventLoop>),
}

/// Asks the broker for something, through a [`Link`]. Cheap to clone.
#[derive(Clone)]
pub enum Requests {
    Five(v5::AsyncClient),
    Three(rumqttc::AsyncClient),
}

/// Makes a link; nothing is connected yet.
pub fn link(settings: &Settings) -> (Link, Requests) {
    let requests = usize::from(settings.in_flight) + OTHER_REQUESTS;
    match settings.version {
        Version::Five => {
            let (client, events) = v5::AsyncClient::new(options_five(settings), requests);
            (Link::Five(Box::new(events)), Requests::Five(client))
        }
        Version::Three => {
            let (client, events) = rumqttc::AsyncClient::new(options_three(settings), requests);
            (Link::Three(Box::new(events)), Requests::Three(client))
        }
    }
}

fn transport(settings: &Settings) -> Transport {
    match &settings.tls {
        Some(config) => Transport::tls_with_config(TlsConfiguration::Rustls(config.clone())),
        None => Transport::tcp(),
    }
}

fn options_five(settings: &Settings) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new(&settings.client_id, &settings.host, settings.port);
    options.set_transport(transport(settings)).set_keep_alive(settings.keep_alive).set_clean_start(false);
    options.set_session_expiry_interval(Some(u32::try_from(settings.session.as_secs()).unwrap_or(u32::MAX)));
    options.set_receive_maximum(Some(settings.in_flight)).set_manual_acks(true);
    options.set_max_packet_size(Some(u32::try_from(settings.largest_packet()).unwrap_or(u32::MAX)));
    if let Some((user, password)) = settings.login() {
        options.set_credentials(user, password);
    }
    options
}

fn options_three(settings: &Settings) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(&settings.client_id, &settings.host, settings.port);
    options.set_transport(transport(settings)).set_keep_alive(settings.keep_alive).set_clean_session(false);
    options.set_max_packet_size(LARGEST_PACKET, LARGEST_PACKET).set_manual_acks(true);
    if let Some((user, password)) = settings.login() {
        options.set_credentials(user, password);
    }
    options
}

impl Link {
    /// What the broker says next; connects where there is no connection. Safe to give up at any moment, but for an attempt
    /// to connect, which then is lost.
    pub async fn next(&mut self) -> Result<Heard, LinkError> {
        match self {
            Self::Five(events) => events.poll().await.map(heard_five).map_err(|e| LinkError(words_five(&e))),
            Self::Three(events) => events.poll().await.map(heard_three).map_err(|e| LinkError(e.to_string())),
        }
    }

    /// Forgets requests that were made before the connection broke, above all acknowledgements.
    pub fn forget_requests(&mut self) {
        match self {
            Self::Five(events) => {
                events.clean();
                events.pending.clear();
            }
            Self::Three(events) => {
                events.clean();
                events.pending.clear();
            }
        }
    }
}

fn words_five(error: &v5::ConnectionError) -> String {
    match error {
        v5::ConnectionError::MqttState(v5::StateError::ServerDisconnect {
            reason_code: five::DisconnectReasonCode::SessionTakenOver,
            ..
        }) => {
            "another client came with this client id: give each ingest an id of its own by --mqtt-client-id".to_owned()
        }
        v5::ConnectionError::MqttState(v5::StateError::ServerDisconnect { reason_code, reason_string }) => {
            let words = reason_string.as_deref().map(|words| format!(" ({words})")).unwrap_or_default();
            format!("the broker ended the connection: {reason_code:?}{words}")
        }
        v5::ConnectionError::ConnectionRefused(code) => format!("the broker refuses the connection: {code:?}"),
        other => other.to_string(),
    }
}

fn heard_five(event: v5::Event) -> Heard {
    let v5::Event::Incoming(packet) = event else { return Heard::Other };
    match packet {
        five::Packet::ConnAck(ack) => {
            let shares = ack.properties.as_ref().and_then(|properties| properties.shared_subscription_available);
            Heard::Connected(Broker { session_present: ack.session_present, shares_subscriptions: shares != Some(0) })
        }
        five::Packet::Publish(publish) => Heard::Message(message_five(publish)),
        five::Packet::SubAck(ack) => {
            let refused = ack.return_codes.iter().find(|code| !matches!(code, five::SubscribeReasonCode::Success(_)));
            Heard::Subscribed(refused.map_or(Ok(()), |code| Err(format!("{code:?}"))))
        }
        _ => Heard::Other,
    }
}

fn message_five(publish: five::Publish) -> Message {
    let properties = publish.properties.unwrap_or_default();
    Message {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        payload: publish.payload,
        acknowledged: publish.qos != v5::mqttbytes::QoS::AtMostOnce,
        packet: publish.pkid,
        duplicate: publish.dup,
        retained: publish.retain,
        content_type: properties.content_type,
        properties: properties.user_properties,
    }
}

fn heard_three(event: rumqttc::Event) -> Heard {
    let rumqttc::Event::Incoming(packet) = event else { return Heard::Other };
    match packet {
        rumqttc::Packet::ConnAck(ack) => {
            Heard::Connected(Broker { session_present: ack.session_present, shares_subscriptions: true })
        }
        rumqttc::Packet::Publish(publish) => Heard::Message(message_three(publish)),
        rumqttc::Packet::SubAck(ack) => {
            let refused = ack.return_codes.contains(&three::v4::SubscribeReasonCode::Failure);
            Heard::Subscribed(if refused { Err("refused".to_owned()) } else { Ok(()) })
        }
        _ => Heard::Other,
    }
}

fn message_three(publish: three::v4::Publish) -> Message {
    Message {
        topic: publish.topic,
        payload: publish.payload,
        acknowledged: publish.qos != three::QoS::AtMostOnce,
        packet: publish.pkid,
        duplicate: publish.dup,
        retained: publish.retain,
        ..Message::default()
    }
}

impl Requests {
    /// Acknowledges a packet; false where too many requests wait.
    pub fn acknowledge(&self, packet: u16) -> bool {
        match self {
            Self::Five(client) => {
                let publish =
                    five::Publish { qos: v5::mqttbytes::QoS::AtLeastOnce, pkid: packet, ..five::Publish::default() };
                client.try_ack(&publish).is_ok()
            }
            Self::Three(client) => {
                let mut publish = three::v4::Publish::new("", three::QoS::AtLeastOnce, Vec::new());
                publish.pkid = packet;
                client.try_ack(&publish).is_ok()
            }
        }
    }

    /// Subscribes at QoS 1. False where too many requests wait.
    pub fn subscribe(&self, filter: &str) -> bool {
        match self {
            Self::Five(client) => {
                let mut wanted = five::Filter::new(filter, v5::mqttbytes::QoS::AtLeastOnce);
                // What was kept is old; it is not sent for a subscription.
                wanted.retain_forward_rule = five::RetainForwardRule::Never;
                // The sender's own flag would say nothing of that.
                wanted.preserve_retain = false;
                client.try_subscribe_many([wanted]).is_ok()
            }
            Self::Three(client) => client.try_subscribe(filter, three::QoS::AtLeastOnce).is_ok(),
        }
    }

    /// False where too many requests wait.
    pub fn unsubscribe(&self, filter: &str) -> bool {
        match self {
            Self::Five(client) => client.try_unsubscribe(filter).is_ok(),
            Self::Three(client) => client.try_unsubscribe(filter).is_ok(),
        }
    }

    /// Says goodbye after all that was asked before.
    pub fn disconnect(&self) {
        // Where it cannot be said, the broker hears of it when the connection closes.
        let _ = match self {
            Self::Five(client) => client.try_disconnect().map_err(drop),
            Self::Three(client) => client.try_disconnect().map_err(drop),
        };
    }
}
