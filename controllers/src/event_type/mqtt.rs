//! What an EventType says about MQTT can be subscribed to. Pure.

use crds::language::topic_filter::{AggregateId, FilterError, TopicFilter};
use crds::reason::Reason;

use crate::resolve::Failure;

/// Checks topic filters, and what aggregate ids are made of.
///
/// # Errors
/// Names the field, its value and what is wrong with it.
pub(super) fn check(resource: &crds::EventType) -> Result<(), Failure> {
    for (index, source) in resource.spec.mqtt.iter().flatten().enumerate() {
        let failure = |field: &str, value: &str, error: FilterError| {
            Failure::new(Reason::InvalidSpec, format!("spec.mqtt[{index}].{field} '{value}': {error}"))
        };
        let filter: TopicFilter =
            source.topic_filter.parse().map_err(|error| failure("topicFilter", &source.topic_filter, error))?;
        AggregateId::parse(&source.aggregate_id, &filter)
            .map_err(|error| failure("aggregateId", &source.aggregate_id, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crds::event_type::{EventTypeSpec, MqttSource};

    use super::*;

    fn said(topic_filter: &str, aggregate_id: &str) -> String {
        let source = MqttSource { topic_filter: topic_filter.to_owned(), aggregate_id: aggregate_id.to_owned() };
        let spec = EventTypeSpec { mqtt: Some(vec![source]), ..EventTypeSpec::default() };
        check(&crds::EventType::new("sensor.reading", spec)).err().map_or_else(String::new, |failure| failure.message)
    }

    #[test]
    fn a_filter_or_an_aggregate_id_that_mqtt_does_not_know_is_named() {
        assert_eq!(said("devices/+/reading", "{1}"), "");
        assert!(said("devices/+x", "{1}").starts_with("spec.mqtt[0].topicFilter 'devices/+x': a wildcard must be"));
        let no_wildcard = said("devices/1", "{1}");
        assert!(no_wildcard.starts_with("spec.mqtt[0].aggregateId '{1}': '{1}' names no wildcard"), "{no_wildcard}");
    }
}
