//! Event types that come by another topic than before (Kafka). Within a topic an aggregate's events are in order, between
//! two topics they are not: a type's first event of the new topic may be read before the last of the old one. Its
//! projections therefore leave the bus before such an event is folded, and read the event store until the type has come
//! by one topic only for [`SETTLE_SECONDS`]; by then every relay routes it alike.
//!
//! Seen in two ways: by what is registered ([`look`], also where it changed while no handler ran), and by what comes
//! ([`follow`], also where a relay is faster or slower than the handler).

mod store;

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;
use tracing::info;

use self::store::Registered;
use super::store as progress;
use crate::bus::{BusError, Claim, EVENT_HANDLER};
use crate::event::StoredEvent;

pub use self::store::readable;

/// Relays reload what is registered within 5 s at the latest, and hold what they claimed for 10 s at most.
const SETTLE_SECONDS: f64 = 15.0;

/// Looks at what is registered about the routing of each event type, under the group's lock.
pub(super) async fn look(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let now = registered(&store::topics(connection).await?, &store::event_types(connection).await?);
    let before = store::registered(connection, EVENT_HANDLER).await?;
    let changed: Vec<&str> = now
        .iter()
        .filter(|(event_type, routing)| before.get(*event_type).is_some_and(|before| before != *routing))
        .map(|(event_type, _)| event_type.as_str())
        .collect();
    detach(connection, &changed).await?;
    if now.iter().any(|(event_type, routing)| before.get(event_type) != Some(routing)) {
        store::keep_registered(connection, EVENT_HANDLER, &now).await?;
    }
    Ok(())
}

/// Whether [`look`] would find something new. Needs no lock.
pub(super) async fn has_news(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let now = registered(&store::topics(connection).await?, &store::event_types(connection).await?);
    let before = store::registered(connection, EVENT_HANDLER).await?;
    Ok(now.iter().any(|(event_type, routing)| before.get(event_type) != Some(routing)))
}

/// Looks at the topics that a claim's events came by; changes what is fed in the claim's transaction.
pub(super) async fn follow(claim: &mut Claim) -> Result<(), BusError> {
    let topics = || claim.topics.iter().map(|topic| &**topic);
    let came_by = last_topics(&claim.events, topics());
    if came_by.is_empty() {
        return Ok(());
    }
    let types: Vec<&str> = came_by.keys().copied().collect();
    let known = store::last_topics(&mut claim.tx, EVENT_HANDLER, &types).await?;
    detach(&mut claim.tx, &moved(&claim.events, topics(), &known)).await?;
    if came_by.iter().any(|(event_type, topic)| known.get(*event_type).is_none_or(|last| last != topic)) {
        store::keep_last_topics(&mut claim.tx, EVENT_HANDLER, &came_by).await?;
    }
    Ok(())
}

async fn detach(connection: &mut PgConnection, moved: &[&str]) -> Result<(), sqlx::Error> {
    if moved.is_empty() {
        return Ok(());
    }
    let rows = progress::progress(connection).await?;
    let reads = |row: &&progress::Progress| {
        row.live_spec.as_ref().is_some_and(|spec| moved.iter().any(|event_type| spec.source.matches(event_type)))
    };
    let readers: Vec<&str> = rows.iter().filter(reads).map(|row| row.projection_type.as_str()).collect();
    let detached = progress::detach(connection, Some(&readers), SETTLE_SECONDS).await?;
    progress::unsettle(connection, SETTLE_SECONDS).await?;
    if detached > 0 {
        info!(
            event_types = ?moved, projections = detached,
            "event types come by another topic: their projections read the event store meanwhile"
        );
    }
    Ok(())
}

/// What is registered about the routing of each type: its topic, and every topic that would take it or would have until
/// it was removed.
fn registered(topics: &[Registered], event_types: &[(String, String)]) -> BTreeMap<String, String> {
    let routing = |event_type: &str, topic: &str| {
        let takes = |other: &&Registered| {
            other.topic.default || other.topic.prefixes.iter().any(|prefix| event_type.starts_with(prefix.as_str()))
        };
        let others = topics.iter().filter(takes).map(|other| match other.removed_at {
            None => other.topic.topic_name.clone(),
            Some(at) => format!("{} until {}", other.topic.topic_name, at.timestamp_micros()),
        });
        std::iter::once(topic.to_owned()).chain(others).collect::<Vec<_>>().join(", ")
    };
    event_types.iter().map(|(event_type, topic)| (event_type.clone(), routing(event_type, topic))).collect()
}

/// The topic by which each type came last.
fn last_topics<'a>(events: &'a [StoredEvent], topics: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, &'a str> {
    events.iter().zip(topics).map(|(event, topic)| (event.event_type.as_str(), topic)).collect()
}

/// The types of which an event came by another topic than the one before it.
fn moved<'a>(
    events: &'a [StoredEvent],
    topics: impl Iterator<Item = &'a str>,
    known: &'a HashMap<String, String>,
) -> Vec<&'a str> {
    let mut last: HashMap<&str, &str> = known.iter().map(|(name, topic)| (name.as_str(), topic.as_str())).collect();
    let mut moved = Vec::new();
    for (event, topic) in events.iter().zip(topics) {
        let before = last.insert(&event.event_type, topic);
        if before.is_some_and(|before| before != topic) && !moved.contains(&event.event_type.as_str()) {
            moved.push(event.event_type.as_str());
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use uuid::Uuid;

    fn event(event_type: &str) -> StoredEvent {
        StoredEvent {
            shard: 0,
            position: 1,
            event_id: Uuid::nil(),
            event_type: event_type.to_owned(),
            aggregate_id: "a".to_owned(),
            timestamp: chrono::DateTime::UNIX_EPOCH,
            payload: Value::Null,
            metadata: Value::Null,
            ingested_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn topic(name: &str, prefixes: &[&str], default: bool, removed: Option<i64>) -> Registered {
        let prefixes: Vec<&str> = prefixes.to_vec();
        let spec = serde_json::json!({"topicName": name, "prefixes": prefixes, "default": default, "partitions": 1,
            "replicationFactor": 1});
        let removed_at = removed.and_then(chrono::DateTime::from_timestamp_micros);
        Registered { topic: serde_json::from_value(spec).expect("a topic"), removed_at }
    }

    #[test]
    fn a_routing_changes_with_the_topics_that_take_the_type_also_when_one_came_and_went() {
        let types = [("sensor.a".to_owned(), "all".to_owned())];
        let all = || topic("all", &[], true, None);
        let before = registered(&[all()], &types);
        assert_eq!(before, registered(&[all(), topic("users", &["user."], false, None)], &types));
        let gone = |at| registered(&[all(), topic("sensors", &["sensor."], false, Some(at))], &types);
        assert!(before != gone(1) && gone(1) != gone(2));
        assert_ne!(before, registered(&[all(), topic("sensors", &["sensor."], false, None)], &types));
    }

    fn moves(events: &[(&str, &str)], known: &[(&str, &str)]) -> Vec<String> {
        let known = known.iter().map(|(name, topic)| ((*name).to_owned(), (*topic).to_owned())).collect();
        let stored: Vec<StoredEvent> = events.iter().map(|(name, _)| event(name)).collect();
        moved(&stored, events.iter().map(|(_, topic)| *topic), &known).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_type_has_moved_where_it_comes_by_another_topic_than_before() {
        assert!(moves(&[("t", "a"), ("t", "a"), ("u", "b")], &[("t", "a")]).is_empty(), "a new type has not moved");
        assert_eq!(moves(&[("t", "b"), ("u", "b")], &[("t", "a"), ("u", "b")]), ["t"]);
        assert_eq!(moves(&[("t", "a"), ("t", "b"), ("t", "a")], &[]), ["t"], "within a batch, and back");
    }
}
