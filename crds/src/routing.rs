//! Which topic an event type goes to, where nothing names one: the longest prefix, else the default topic.

use std::collections::HashMap;

use crate::registration::Topic;

/// The topic for an event type by prefix, else the catch-all, else none.
pub fn route<'a>(topics: impl IntoIterator<Item = &'a Topic>, event_type: &str) -> Option<&'a Topic> {
    let mut best: Option<(usize, &Topic)> = None;
    let mut fallback = None;
    for topic in topics {
        if topic.default {
            fallback = fallback.or(Some(topic));
        }
        let longest = topic.prefixes.iter().filter(|p| event_type.starts_with(p.as_str())).map(String::len).max();
        if let Some(length) = longest
            && best.is_none_or(|(l, _)| length > l)
        {
            best = Some((length, topic));
        }
    }
    best.map(|(_, topic)| topic).or(fallback)
}

/// The prefixes of all topics, for many event types: each is looked up by its beginnings, however many topics there are.
#[derive(Default)]
pub struct Routes {
    by_prefix: HashMap<String, String>,
    default: Option<String>,
}

/// Where an event type goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    pub topic_name: &'a str,
    /// False where it is the default.
    pub by_prefix: bool,
}

impl Routes {
    /// Of topics with one prefix, and of defaults, the first counts.
    pub fn of<'a>(topics: impl IntoIterator<Item = &'a Topic>) -> Self {
        let mut routes = Self::default();
        for topic in topics {
            let name = || topic.topic_name.clone();
            if topic.default && routes.default.is_none() {
                routes.default = Some(name());
            }
            for prefix in &topic.prefixes {
                routes.by_prefix.entry(prefix.clone()).or_insert_with(name);
            }
        }
        routes
    }

    /// As [`route`] answers.
    pub fn route(&self, event_type: &str) -> Option<Route<'_>> {
        let ends = event_type.char_indices().map(|(at, _)| at).chain([event_type.len()]);
        let longest = ends.rev().find_map(|end| self.by_prefix.get(&event_type[..end]));
        let by_prefix = longest.map(|name| Route { topic_name: name, by_prefix: true });
        by_prefix.or(self.default.as_ref().map(|name| Route { topic_name: name, by_prefix: false }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, prefixes: &[&str], default: bool) -> Topic {
        Topic {
            topic_name: name.into(),
            prefixes: prefixes.iter().map(|p| (*p).to_owned()).collect(),
            default,
            partitions: 1,
            replication_factor: 1,
            config: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn the_longest_prefix_wins_then_the_default() {
        let topics =
            [topic("all", &[], true), topic("sensor", &["sensor."], false), topic("lab", &["sensor.lab."], false)];
        let name = |event_type| route(&topics, event_type).map(|t| t.topic_name.as_str());
        assert_eq!(name("sensor.lab.reading"), Some("lab"));
        assert_eq!(name("sensor.reading"), Some("sensor"));
        assert_eq!(name("sensors"), Some("all"));
        assert_eq!(route(&topics[1..], "user.login").map(|t| t.topic_name.as_str()), None);
    }

    #[test]
    fn the_index_answers_as_the_search_does() {
        let topics = [
            topic("all", &["s"], true),
            topic("sensor", &["sensor.", "é"], false),
            topic("late", &["sensor.", "sensor.lab."], true),
        ];
        for some in [&topics[..], &topics[1..2], &[]] {
            let routes = Routes::of(some);
            for event_type in ["sensor.lab.reading", "sensor.x", "sensor.", "sensor", "s", "été", "user.login"] {
                let found = routes.route(event_type);
                let wanted = route(some, event_type).map(|t| t.topic_name.as_str());
                assert_eq!(found.map(|route| route.topic_name), wanted, "{event_type}");
                let by_prefix = some.iter().flat_map(|t| &t.prefixes).any(|p| event_type.starts_with(p.as_str()));
                assert!(found.is_none_or(|route| route.by_prefix == by_prefix), "{event_type}");
            }
        }
    }
}
