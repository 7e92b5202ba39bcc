//! An EventType's compiled form: schemas compiled, examples run, topic decided. Pure.

use crds::condition::{ConditionType, Finding};
use crds::event_type::Compatibility;
use crds::language::schema::PayloadSchema;
use crds::reason::Reason;
use crds::registration::{Compiled, EventType, MqttSource, SchemaVersion};

use super::{compatibility, mqtt};
use crate::resolve::{Failure, Known};

/// The topic on the bus that an EventType's events go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub topic_name: String,
    /// Why that one, for people.
    pub why: String,
}

/// Compiles an EventType. What holds is added to `findings`, up to the first thing that does not.
pub(crate) fn compile(
    resource: &crds::EventType,
    before: Option<&Compiled>,
    destination: &Result<Destination, Failure>,
    findings: &mut Vec<Finding>,
) -> Result<EventType, Failure> {
    let event_type = resource.event_type();
    let before = match before {
        Some(Compiled::EventType(before)) => Some(before),
        _ => None,
    };
    if let Some(before) = before {
        check_change(event_type, before)?;
    }
    mqtt::check(resource)?;
    check_schemas(resource)?;
    let versions = resource.spec.versions().len();
    let compiled = format!("{versions} version(s) compiled, {} example(s) valid", resource.spec.examples().len());
    findings.push(Finding::new(ConditionType::SchemaCompiled, true, Reason::Compiled, compiled));
    let Destination { topic_name, why } = destination.clone()?;
    findings.push(Finding::new(ConditionType::TopicResolved, true, Reason::TopicResolved, why));
    let form = form(resource, topic_name);
    findings.push(check_compatible(&form, before, resource.spec.compatibility.unwrap_or_default())?);
    Ok(form)
}

/// Each version fits its predecessor, and its own text as it is served.
fn check_compatible(form: &EventType, before: Option<&EventType>, mode: Compatibility) -> Result<Finding, Failure> {
    let finding = |reason, message: &str| Finding::new(ConditionType::Compatible, true, reason, message);
    if mode == Compatibility::None {
        return Ok(finding(Reason::NotCompared, "spec.compatibility is None: versions are not compared"));
    }
    for (what, older, newer) in pairs(form, before) {
        if let Err(differences) = compatibility::compare(&older.schema, &newer.schema, mode) {
            let message = format!(
                "version {} is not compatible with {what} ({mode:?}): {differences}; mend it, or set \
                 spec.compatibility: None to serve it all the same",
                newer.version
            );
            return Err(Failure::new(Reason::Incompatible, message).of(ConditionType::Compatible));
        }
    }
    Ok(finding(Reason::Compatible, &format!("versions are {mode:?} compatible")))
}

/// Each version with what it must fit: the one before it, which may be served and declared no more, and its own text as
/// it is served.
fn pairs<'a>(
    form: &'a EventType,
    before: Option<&'a EventType>,
) -> impl Iterator<Item = (String, &'a SchemaVersion, &'a SchemaVersion)> {
    let served = move || before.into_iter().flat_map(|before| &before.versions);
    form.versions.iter().flat_map(move |newer| {
        let gone = served().map(|served| (format!("version {}, which is served", served.version), served));
        let declared = form.versions.iter().map(|older| (format!("version {}", older.version), older));
        // Of equal ones the last is taken: the one that is declared.
        let older = gone.chain(declared).filter(|(_, older)| older.version < newer.version);
        let older = older.max_by_key(|(_, older)| older.version);
        let itself = served().find(|served| served.version == newer.version);
        let itself = itself.map(|served| (format!("version {} as it is served", served.version), served));
        older.into_iter().chain(itself).map(move |(what, older)| (what, older, newer))
    })
}

fn form(resource: &crds::EventType, topic: String) -> EventType {
    let spec = &resource.spec;
    let mut versions: Vec<SchemaVersion> = spec.versions().iter().map(version).collect();
    versions.sort_by_key(|v| v.version);
    let mqtt = spec.mqtt.iter().flatten();
    EventType {
        event_type: resource.event_type().to_owned(),
        description: spec.description.clone(),
        owner: spec.owner.clone(),
        topic,
        validation: spec.validation.unwrap_or_default(),
        versions,
        examples: spec.examples().to_vec(),
        mqtt: mqtt
            .map(|m| MqttSource { topic_filter: m.topic_filter.clone(), aggregate_id: m.aggregate_id.clone() })
            .collect(),
    }
}

fn version(declared: &crds::event_type::EventTypeVersion) -> SchemaVersion {
    SchemaVersion {
        version: declared.version,
        schema: declared.schema.clone(),
        deprecated: declared.deprecated.unwrap_or(false),
    }
}

fn check_change(event_type: &str, before: &EventType) -> Result<(), Failure> {
    if event_type == before.event_type {
        return Ok(());
    }
    let message = format!(
        "spec.type cannot change from '{}' to '{event_type}': make a new EventType, and delete this one when nothing \
         sends it any more",
        before.event_type
    );
    Err(Failure::new(Reason::InvalidSpec, message))
}

/// Compiles every version and runs the examples against the one in force.
fn check_schemas(resource: &crds::EventType) -> Result<(), Failure> {
    let spec = &resource.spec;
    let in_force = spec.effective_version().map(|v| v.version);
    for (index, declared) in spec.versions().iter().enumerate() {
        let schema = PayloadSchema::compile(&declared.schema).map_err(|error| {
            let place = format!("spec.versions[{index}].schema (version {}): {error}", declared.version);
            Failure::new(Reason::InvalidSchema, place).of(ConditionType::SchemaCompiled)
        })?;
        if Some(declared.version) == in_force {
            check_examples(resource, declared.version, &schema)?;
        }
    }
    Ok(())
}

fn check_examples(resource: &crds::EventType, version: i32, schema: &PayloadSchema) -> Result<(), Failure> {
    for (index, example) in resource.spec.examples().iter().enumerate() {
        if let Some(violation) = schema.validate(example).first() {
            let message = format!(
                "spec.examples[{index}] is not valid under version {version}: {}; mend the example or the schema",
                violation.message
            );
            return Err(Failure::new(Reason::InvalidExample, message).of(ConditionType::SchemaCompiled));
        }
    }
    Ok(())
}

/// The topic named, else the one by prefix, else the default.
pub(crate) fn destination(resource: &crds::EventType, known: &Known) -> Result<Destination, Failure> {
    let to = |name: &str, why: &str| Destination { topic_name: name.to_owned(), why: format!("topic '{name}' {why}") };
    if let Some(reference) = &resource.spec.topic_ref {
        let Some(topic) = known.topics.get(&reference.name) else {
            let message = format!(
                "spec.topicRef names the Topic '{}', which does not exist or is not valid: there are {}",
                reference.name,
                listed(known.topics.keys())
            );
            return Err(Failure::new(Reason::TopicNotFound, message).of(ConditionType::TopicResolved));
        };
        return Ok(to(&topic.topic_name, "by topicRef"));
    }
    let event_type = resource.event_type();
    let Some(route) = known.routes.route(event_type) else {
        let message = format!(
            "no Topic has a prefix of '{event_type}' and none is the default: give topicRef, add a prefix to a Topic, \
             or set default: true on one"
        );
        return Err(Failure::new(Reason::Unroutable, message).of(ConditionType::TopicResolved));
    };
    Ok(to(route.topic_name, if route.by_prefix { "by prefix" } else { "as the default" }))
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.take(10).map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
