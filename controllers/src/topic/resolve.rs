//! A Topic's compiled form, and the changes that a bus cannot follow. Pure.

use crds::condition::ConditionType;
use crds::reason::Reason;
use crds::registration::{Compiled, Topic};

use crate::resolve::Failure;

/// Compiles a Topic, compared with what was registered for it before.
pub fn compile(resource: &crds::Topic, before: Option<&Compiled>) -> Result<Topic, Failure> {
    let spec = &resource.spec;
    let topic = Topic {
        topic_name: resource.topic_name().to_owned(),
        prefixes: spec.prefixes().to_vec(),
        default: spec.is_default(),
        partitions: spec.partitions(),
        replication_factor: spec.replication_factor(),
        config: spec.managed_config(),
    };
    if let Some(Compiled::Topic(before)) = before {
        check_change(&topic, before, spec.allow_repartition.unwrap_or(false))?;
    }
    Ok(topic)
}

fn check_change(topic: &Topic, before: &Topic, allow_repartition: bool) -> Result<(), Failure> {
    if topic.topic_name != before.topic_name {
        return Err(Failure::new(
            Reason::InvalidSpec,
            format!(
                "spec.topicName cannot change from '{}' to '{}': make a new Topic, move its consumers, then delete this one",
                before.topic_name, topic.topic_name
            ),
        ));
    }
    let (was, is) = (before.partitions, topic.partitions);
    let refusal = if is < was {
        format!(
            "spec.partitions cannot decrease from {was} to {is}: the bus keeps what is written; make a new Topic instead"
        )
    } else if is > was && !allow_repartition {
        format!(
            "spec.partitions from {was} to {is} breaks the order of each aggregate's events once: \
             set allowRepartition: true to accept that"
        )
    } else {
        return Ok(());
    };
    Err(Failure::new(Reason::RepartitionRefused, refusal).of(ConditionType::ConfigApplied))
}
