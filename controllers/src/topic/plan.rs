//! Which topics are missing on the bus. Pure: what is wanted and what exists go in.

use std::collections::BTreeMap;

use crds::registration::Topic;

/// The topics of a broker, by name.
pub type Broker = BTreeMap<String, ExistingTopic>;

/// A topic as the broker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExistingTopic {
    pub partitions: i32,
    /// Copies of the partition that has the fewest.
    pub replication: i32,
}

/// The topics that are wanted and do not exist. What exists is left as it is.
pub fn missing<'a>(wanted: impl IntoIterator<Item = &'a Topic>, existing: &Broker) -> Vec<Topic> {
    wanted.into_iter().filter(|topic| !existing.contains_key(&topic.topic_name)).cloned().collect()
}

/// How an existing topic differs from what is wanted: `(what, wanted, actual)`. A wish of -1 is the broker's default.
pub fn differences(wanted: &Topic, existing: ExistingTopic) -> Vec<(&'static str, i32, i32)> {
    let mut found = Vec::new();
    if wanted.partitions != existing.partitions {
        found.push(("partitions", wanted.partitions, existing.partitions));
    }
    if wanted.replication_factor > 0 && wanted.replication_factor != existing.replication {
        found.push(("replicationFactor", wanted.replication_factor, existing.replication));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, partitions: i32, replication_factor: i32) -> Topic {
        Topic {
            topic_name: name.into(),
            prefixes: Vec::new(),
            default: false,
            partitions,
            replication_factor,
            config: BTreeMap::new(),
        }
    }

    #[test]
    fn only_what_is_missing_is_made() {
        let there = ExistingTopic { partitions: 1, replication: 1 };
        let existing = Broker::from([("a".to_owned(), there)]);
        let (a, b) = (topic("a", 3, 1), topic("b", 3, 1));
        assert_eq!(missing([&a, &b], &existing), std::slice::from_ref(&b));
        assert_eq!(differences(&a, there), [("partitions", 3, 1)]);
        assert_eq!(differences(&topic("a", 1, -1), there), []);
        assert_eq!(differences(&topic("a", 1, 3), there), [("replicationFactor", 3, 1)]);
    }
}
