//! Which event type a topic belongs to, and what is to be subscribed for that. Pure.

use std::sync::Arc;

use crds::language::topic_filter::{AggregateId, TopicFilter};

use crate::registry::{Catalog, LoadedEventType};

/// What the registered event types say about MQTT.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// False before anything is known of what is declared.
    pub loaded: bool,
    /// The one that says most about a topic first.
    by_filter: Vec<Route>,
    /// In the same order; none covers another.
    subscriptions: Vec<TopicFilter>,
}

/// Events of a type come in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub filter: TopicFilter,
    pub event_type: String,
    aggregate_id: AggregateId,
}

/// A route that takes a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken<'r> {
    pub route: &'r Route,
    pub aggregate_id: String,
}

impl Routes {
    /// A filter that cannot be read, which no controller registers, is left out.
    pub fn of(catalog: &Catalog) -> Self {
        let mut by_filter: Vec<Route> = catalog.event_types.values().flat_map(routes_of).collect();
        by_filter.sort_by(|a, b| a.filter.by_what_they_say(&b.filter).then_with(|| a.event_type.cmp(&b.event_type)));
        let mut subscriptions: Vec<TopicFilter> = by_filter.iter().map(|route| route.filter.clone()).collect();
        subscriptions.dedup();
        let all = subscriptions.clone();
        subscriptions.retain(|filter| !all.iter().any(|other| other != filter && other.covers(filter)));
        Self { loaded: catalog.loaded, by_filter, subscriptions }
    }

    /// The routes that take a topic, the one that says most about it first.
    pub fn taking<'r>(&'r self, topic: &str) -> Vec<Taken<'r>> {
        let taken = |route: &'r Route| {
            let found = route.filter.matches(topic)?;
            Some(Taken { route, aggregate_id: route.aggregate_id.of(&found) })
        };
        self.by_filter.iter().filter_map(taken).collect()
    }

    /// The filters to subscribe to: none that another one covers, so that a broker sends a message as seldom as can be.
    pub fn subscriptions(&self) -> &[TopicFilter] {
        &self.subscriptions
    }

    /// Two subscriptions that may bring the same message, where there are such.
    pub fn overlap(&self) -> Option<(&TopicFilter, &TopicFilter)> {
        self.subscriptions.iter().enumerate().find_map(|(index, one)| {
            self.subscriptions[index + 1..].iter().find(|other| one.overlaps(other)).map(|other| (one, other))
        })
    }
}

fn routes_of(loaded: &Arc<LoadedEventType>) -> impl Iterator<Item = Route> {
    loaded.spec.mqtt.iter().filter_map(|source| {
        let filter: TopicFilter = source.topic_filter.parse().ok()?;
        let aggregate_id = AggregateId::parse(&source.aggregate_id, &filter).ok()?;
        Some(Route { filter, event_type: loaded.spec.event_type.clone(), aggregate_id })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(declared: &[(&str, &str, &str)]) -> Routes {
        let mut catalog = Catalog::default();
        for (event_type, filter, aggregate_id) in declared {
            let mut loaded = crate::registry::testing::event_type(event_type);
            let source = crds::registration::MqttSource {
                topic_filter: (*filter).to_owned(),
                aggregate_id: (*aggregate_id).to_owned(),
            };
            if let Some(before) = catalog.event_types.get(*event_type) {
                loaded.spec.mqtt.extend(before.spec.mqtt.clone());
            }
            loaded.spec.mqtt.push(source);
            catalog.event_types.insert((*event_type).to_owned(), Arc::new(loaded));
        }
        Routes::of(&catalog)
    }

    fn taking(routes: &Routes, topic: &str) -> Vec<(String, String)> {
        routes.taking(topic).into_iter().map(|t| (t.route.event_type.clone(), t.aggregate_id)).collect()
    }

    #[test]
    fn the_filter_that_says_most_about_a_topic_names_type_and_aggregate() {
        let routes = routes(&[
            ("device.message", "devices/#", "{1}"),
            ("sensor.reading", "devices/+/reading", "{1}"),
            ("sensor.reading", "legacy/+", "old-{1}"),
        ]);
        let both =
            [("sensor.reading".to_owned(), "d1".to_owned()), ("device.message".to_owned(), "d1/reading".to_owned())];
        assert_eq!(taking(&routes, "devices/d1/reading"), both);
        assert_eq!(taking(&routes, "legacy/7"), [("sensor.reading".to_owned(), "old-7".to_owned())]);
        assert_eq!(taking(&routes, "elsewhere"), []);
    }

    #[test]
    fn nothing_is_subscribed_that_another_subscription_brings() {
        let routes = routes(&[
            ("a", "devices/#", "{1}"),
            ("b", "devices/+/reading", "{1}"),
            ("c", "sites/+", "{1}"),
            ("d", "sites/+", "{1}"),
        ]);
        let filters: Vec<String> = routes.subscriptions().iter().map(ToString::to_string).collect();
        assert_eq!(filters, ["devices/#", "sites/+"]);
        assert_eq!(routes.overlap(), None);
        let crossing = self::routes(&[("a", "a/+", "{1}"), ("b", "+/b", "{1}")]);
        assert!(crossing.overlap().is_some());
    }
}
