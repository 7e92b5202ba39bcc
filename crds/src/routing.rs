//! Which topic an event type goes to, where nothing names one: the longest prefix, else the default topic.

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
}
