//! Replays the dead letters of MQTT: the message that became no event is read and checked again, by what is declared now,
//! and its outbox row is written in the transaction that marks the letter. Every ingest does so, also without a broker.
//!
//! The event gets an id of its own, as one that is accepted now; where the message says no time, it happened when the
//! message came.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::message::Message;
use super::read::{Read, read};
use super::routes::Routes;
use super::store::CONSUMER;
use crate::database;
use crate::dead_letters::replay::{self, Outcome, Replay, Requested, Serial};
use crate::event::{MqttOrigin, ShardSet};
use crate::ingest::Ingest;
use crate::ingest::accept::{Circumstances, admit};
use crate::ingest::refusal::Refusal;
use crate::lifecycle::{Lifecycle, Stage};
use crate::outbox::{self, Entry};

/// Starts replaying. `pool` is of the database of the outbox.
pub fn start(lifecycle: &Lifecycle, ingest: &Arc<Ingest>, pool: &PgPool) {
    let replays = Replays { ingest: Arc::clone(ingest), shards: ShardSet::EMPTY };
    replay::start(lifecycle, Stage::Accept, pool, Serial::new(database::own(pool, 1), replays));
}

struct Replays {
    ingest: Arc<Ingest>,
    /// What relays are told once it is committed.
    shards: ShardSet,
}

impl Replay for Replays {
    const CONSUMER: &'static str = CONSUMER;

    fn is_ready(&self) -> bool {
        self.ingest.catalog().loaded
    }

    async fn replay(&mut self, connection: &mut PgConnection, letter: &Requested) -> Result<Outcome, sqlx::Error> {
        let entry = match message(letter).and_then(|message| self.admit(&message, letter)) {
            Ok(entry) => entry,
            Err(cause) => return Ok(Outcome::Failed(cause)),
        };
        match outbox::write_one(connection, &entry).await? {
            Ok(accepted) if accepted.repeated => {
                Ok(Outcome::Replayed(Some(format!("it was accepted before, as event {}", accepted.event_id))))
            }
            Ok(accepted) => {
                self.shards.insert(entry.shard);
                Ok(Outcome::Replayed(Some(format!("accepted as event {}", accepted.event_id))))
            }
            Err(refused) => Ok(Outcome::Failed(Refusal::from(refused).detail())),
        }
    }

    fn settled(&mut self, committed: bool) {
        let shards = std::mem::take(&mut self.shards);
        if committed && !shards.is_empty() {
            (self.ingest.on_commit)(shards);
        }
    }
}

impl Replays {
    fn admit(&self, message: &Message, letter: &Requested) -> Result<Entry, String> {
        let catalog = self.ingest.catalog();
        let routes = Routes::of(&catalog);
        let now = self.ingest.clock.now();
        let admitted = read(message, &routes, self.ingest.limits.event_bytes).and_then(|read| {
            let Read { mut candidate, key, traceparent } = read;
            candidate.event_time = candidate.event_time.or_else(|| letter.event_id.and_then(came_at));
            let mqtt = Some(MqttOrigin { topic: message.topic.clone(), delivery: None });
            let event_id = self.ingest.ids.next(now);
            let known = Circumstances { event_id, now, key, traceparent, transport: "mqtt", mqtt };
            admit(&candidate, &catalog, self.ingest.rules, known)
        });
        admitted.map(|admitted| admitted.entry).map_err(|refusal| refusal.detail())
    }
}

/// When the message came: the id that its event would have had says so.
fn came_at(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

/// A message as letters keep it.
#[derive(Deserialize)]
struct Kept {
    topic: String,
    content_type: Option<String>,
    #[serde(default)]
    user_properties: Vec<(String, String)>,
    payload: Payload,
    payload_bytes: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Payload {
    Text(String),
    Base64(String),
}

fn message(letter: &Requested) -> Result<Message, String> {
    let kept =
        Kept::deserialize(&letter.event_payload).map_err(|error| format!("the letter holds no message: {error}"))?;
    let payload = match kept.payload {
        Payload::Text(text) => text.into_bytes(),
        Payload::Base64(text) => {
            STANDARD.decode(text).map_err(|error| format!("the letter holds no message: {error}"))?
        }
    };
    if payload.len() != kept.payload_bytes {
        let (had, kept) = (kept.payload_bytes, payload.len());
        return Err(format!("the payload was {had} bytes, of which {kept} are kept: it cannot be replayed"));
    }
    Ok(Message {
        topic: kept.topic,
        payload: payload.into(),
        content_type: kept.content_type,
        properties: kept.user_properties,
        ..Message::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::store::Letter;
    use super::*;

    fn requested(event_payload: Value) -> Requested {
        Requested {
            dlq_id: Uuid::nil(),
            subject: None,
            lane_name: "t".to_owned(),
            event_id: None,
            event_payload,
            shard: None,
            position: None,
            append: false,
            retry_count: 0,
        }
    }

    #[test]
    fn a_message_comes_out_of_its_letter_as_it_came() {
        for payload in [&b"{\"v\":1}"[..], &[0xff, 0, 0xfe], b""] {
            let came = Message {
                topic: "devices/a".to_owned(),
                payload: payload.to_vec().into(),
                content_type: Some("application/json".to_owned()),
                properties: vec![("event-type".to_owned(), "t".to_owned())],
                ..Message::default()
            };
            let letter = Letter::new(Uuid::nil(), &came, "why");
            assert_eq!(message(&requested(letter.message)), Ok(came));
        }
    }

    #[test]
    fn what_was_cut_is_refused() {
        let cut = json!({"topic": "t", "content_type": null, "payload": {"text": "abc"}, "payload_bytes": 5});
        let said = message(&requested(cut)).expect_err("refused");
        assert!(said.contains("5 bytes, of which 3 are kept"), "{said}");
        assert!(message(&requested(json!({}))).expect_err("refused").contains("no message"));
    }

    #[test]
    fn the_time_of_a_message_is_that_of_the_id_it_got() {
        let at = DateTime::from_timestamp_millis(1_800_000_000_123).expect("a time");
        let id = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 1_800_000_000, 123_000_000));
        assert_eq!(came_at(id), Some(at));
        assert_eq!(came_at(Uuid::nil()), None);
    }
}
