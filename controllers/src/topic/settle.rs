//! What was written to a broker and may not show yet: for some tenths of a second its answers are those of before. That is no
//! difference, and no reason to write again. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::differences::{Actual, REDPANDA_REPLICATION, Setting};
use super::plan::{Alteration, Broker};
use super::wanted::Wanted;

/// For so long an old answer is not believed.
const SETTLE: Duration = Duration::from_secs(5);

/// What was written of late.
#[derive(Debug, Default)]
pub struct Unsettled {
    made: BTreeMap<String, (Instant, Actual)>,
    /// By topic and what of it was changed.
    changed: BTreeMap<(String, Change), (Instant, Option<Setting>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// To so many.
    Partitions(i32),
    /// A key, and the value that it was given; `None` for the broker's default.
    Config(String, Option<String>),
}

impl Change {
    fn of(alteration: &Alteration) -> Self {
        match alteration {
            Alteration::Set { key, value } => Self::Config(key.clone(), Some(value.clone())),
            Alteration::Reset { key } => Self::Config(key.clone(), None),
        }
    }

    /// What a topic has where this changes it.
    fn current(&self, actual: &Actual) -> Option<Setting> {
        let number = |n: i32| Some(Setting { value: Some(n.to_string()), own: true });
        match self {
            Self::Partitions(_) => number(actual.partitions),
            Self::Config(key, _) if key == REDPANDA_REPLICATION => number(actual.replication),
            Self::Config(key, _) => actual.config.as_ref().ok()?.get(key).cloned(),
        }
    }

    fn apply(&self, actual: &mut Actual) {
        match self {
            Self::Partitions(total) => actual.partitions = *total,
            Self::Config(key, value) if key == REDPANDA_REPLICATION => {
                actual.replication = value.as_ref().and_then(|v| v.parse().ok()).unwrap_or(actual.replication);
            }
            Self::Config(key, value) => {
                if let Ok(config) = &mut actual.config {
                    config.insert(key.clone(), Setting { value: value.clone(), own: value.is_some() });
                }
            }
        }
    }
}

impl Unsettled {
    /// A topic was made as described. Gives it as it will show.
    pub fn made(&mut self, wanted: &Wanted, now: Instant) -> Actual {
        let spec = &wanted.spec;
        let own = |(key, value): (&String, &String)| (key.clone(), Setting { value: Some(value.clone()), own: true });
        let actual = Actual {
            id: None,
            partitions: spec.partitions,
            replication: spec.replication_factor.max(1),
            config: Ok(spec.config.iter().map(own).collect()),
        };
        self.made.insert(spec.topic_name.clone(), (now, actual.clone()));
        actual
    }

    /// A topic has more partitions now.
    pub fn grown(&mut self, topic: &str, actual: &mut Actual, total: i32, now: Instant) {
        self.change(topic, actual, Change::Partitions(total), now);
    }

    /// Keys of a topic have other values now.
    pub fn altered(&mut self, topic: &str, actual: &mut Actual, alterations: &[Alteration], now: Instant) {
        for alteration in alterations {
            self.change(topic, actual, Change::of(alteration), now);
        }
    }

    fn change(&mut self, topic: &str, actual: &mut Actual, change: Change, now: Instant) {
        let before = change.current(actual);
        change.apply(actual);
        self.changed.insert((topic.to_owned(), change), (now, before));
    }

    /// A topic was deleted.
    pub fn forget(&mut self, topic: &str) {
        self.made.remove(topic);
        self.changed.retain(|(name, _), _| name != topic);
    }

    /// Puts what was written where the broker still shows what was there before.
    pub fn overlay(&mut self, broker: &mut Broker, now: Instant) {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < SETTLE;
        self.made.retain(|_, (at, _)| recent(at));
        self.changed.retain(|_, (at, _)| recent(at));
        for (topic, (_, made)) in &self.made {
            let shown = broker.entry(topic.clone()).or_insert_with(|| made.clone());
            if shown.config.is_err() {
                shown.config.clone_from(&made.config);
            }
        }
        for ((topic, change), (_, before)) in &self.changed {
            if let Some(actual) = broker.get_mut(topic)
                && change.current(actual) == *before
            {
                change.apply(actual);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn shown(value: &str) -> Actual {
        let setting = Setting { value: Some(value.into()), own: true };
        Actual { id: None, partitions: 1, replication: 1, config: Ok([("k".to_owned(), setting)].into()) }
    }

    fn value(broker: &Broker) -> Option<&str> {
        broker["t"].config.as_ref().ok()?["k"].value.as_deref()
    }

    #[test]
    fn an_old_answer_is_not_believed_for_a_while_and_a_foreign_one_is() {
        let (mut unsettled, now) = (Unsettled::default(), Instant::now());
        let set = Alteration::Set { key: "k".into(), value: "new".into() };
        unsettled.altered("t", &mut shown("old"), &[set], now);
        unsettled.grown("t", &mut shown("old"), 3, now);
        let mut look = |value: &str, later: Duration| {
            let mut broker = Broker::from([("t".to_owned(), shown(value))]);
            unsettled.overlay(&mut broker, now + later);
            broker
        };
        let soon = look("old", SETTLE / 2);
        assert_eq!((value(&soon), soon["t"].partitions), (Some("new"), 3));
        assert_eq!(value(&look("theirs", SETTLE / 2)), Some("theirs"));
        let late = look("old", SETTLE);
        assert_eq!((value(&late), late["t"].partitions), (Some("old"), 1));
    }

    #[test]
    fn a_topic_that_was_made_exists_though_it_does_not_show_yet() {
        let (mut unsettled, now) = (Unsettled::default(), Instant::now());
        unsettled.made(&testing::wanted("t"), now);
        let mut broker = Broker::new();
        unsettled.overlay(&mut broker, now);
        assert!(broker.contains_key("t"));
        let mut broker = Broker::new();
        unsettled.overlay(&mut broker, now + SETTLE);
        assert!(broker.is_empty());
    }
}
