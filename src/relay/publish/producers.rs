//! The producers of a relay: one that topics share, and one for each topic whose failures should end no other's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use futures::future::join_all;

use super::standing::{Standings, TOGETHER};
use crate::bus::BusError;
use crate::bus::kafka::{Delivery, KafkaSettings, Message, Producer, Unwritable};

/// Whose producer: a topic's own, or the shared one.
type Whose = Option<String>;

pub(super) struct Producers {
    settings: KafkaSettings,
    shared: Producer,
    own: HashMap<String, (usize, Producer)>,
    /// Topics that need not be asked for: they were written last time.
    known: HashSet<String>,
}

impl Producers {
    pub fn new(settings: &KafkaSettings) -> Result<Self, BusError> {
        let shared = Producer::new(settings, TOGETHER)?;
        Ok(Self { settings: settings.clone(), shared, own: HashMap::new(), known: HashSet::new() })
    }

    /// A gap in a producer's sequence ends it, so after an outage all are new, and all topics are asked for again.
    pub fn renew(&mut self) -> Result<(), BusError> {
        *self = Self::new(&self.settings)?;
        Ok(())
    }

    /// Those of the topics that cannot be written, with the cause and whether the topic is refused. Asks only for topics that were not written before.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn unwritable(&mut self, topics: &BTreeSet<&str>) -> Result<BTreeMap<String, (String, bool)>, String> {
        let asked = topics.iter().filter(|topic| !self.known.contains(**topic));
        let asked = asked.map(async |topic| ((*topic).to_owned(), self.shared.ask(topic).await));
        let mut refused = BTreeMap::new();
        for (topic, answer) in join_all(asked).await {
            match answer {
                Ok(()) => drop(self.known.insert(topic)),
                Err(Unwritable::Refused(cause)) => drop(refused.insert(topic, (cause, true))),
                Err(Unwritable::Leaderless(cause)) => drop(refused.insert(topic, (cause, false))),
                Err(Unwritable::Away(cause)) => return Err(cause),
            }
        }
        Ok(refused)
    }

    /// Publishes in the order given, each topic through its producer, and replaces those that ended.
    pub async fn publish(
        &mut self,
        messages: Vec<Message>,
        standings: &Standings,
        within: Duration,
    ) -> Result<Vec<Delivery>, BusError> {
        let mut groups: BTreeMap<Whose, (Vec<usize>, Vec<Message>)> = BTreeMap::new();
        let mut deliveries = vec![Delivery::Confirmed; messages.len()];
        for (at, message) in messages.into_iter().enumerate() {
            let whose = standings.together(&message.topic).map(|_| message.topic.clone());
            let (places, group) = groups.entry(whose).or_default();
            places.push(at);
            group.push(message);
        }
        self.make(groups.keys(), standings)?;
        let sent = groups.into_iter().map(async |(whose, (places, messages))| {
            let producer = whose.as_ref().and_then(|topic| self.own.get(topic)).map_or(&self.shared, |(_, own)| own);
            (whose, places, producer.publish(&messages, within).await)
        });
        let mut ended = Vec::new();
        for (whose, places, outcomes) in join_all(sent).await {
            if outcomes.iter().any(|outcome| *outcome != Delivery::Confirmed) {
                ended.push(whose);
            }
            for (at, outcome) in places.into_iter().zip(outcomes) {
                deliveries[at] = outcome;
            }
        }
        // At once: what they have not sent yet must not be sent when another holds the shards.
        self.end(ended)?;
        Ok(deliveries)
    }

    /// Asks for a topic again before it is next written.
    pub fn doubt(&mut self, topic: &str) {
        self.known.remove(topic);
    }

    /// Keeps producers only of topics that need one of their own.
    pub fn tidy(&mut self, standings: &Standings) {
        self.own.retain(|topic, _| standings.together(topic).is_some());
    }

    fn make<'a>(&mut self, wanted: impl Iterator<Item = &'a Whose>, standings: &Standings) -> Result<(), BusError> {
        for topic in wanted.flatten() {
            let together = standings.together(topic).unwrap_or(TOGETHER);
            if self.own.get(topic).is_none_or(|(has, _)| *has != together) {
                self.own.insert(topic.clone(), (together, Producer::new(&self.settings, together)?));
            }
        }
        Ok(())
    }

    fn end(&mut self, ended: Vec<Whose>) -> Result<(), BusError> {
        for whose in ended {
            match whose {
                Some(topic) => drop(self.own.remove(&topic)),
                None => self.shared = Producer::new(&self.settings, TOGETHER)?,
            }
        }
        Ok(())
    }
}
