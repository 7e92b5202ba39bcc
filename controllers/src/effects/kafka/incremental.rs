//! Changes of topic configuration that leave alone what they do not name. The safe client only has the older call, which
//! puts every key that is not named back to its default.
#![expect(unsafe_code, reason = "the safe client has no incremental change of configuration")]

use std::ptr;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings::{
    rd_kafka_AlterConfigOpType_t as Operation, rd_kafka_ConfigResource_add_incremental_config,
    rd_kafka_ConfigResource_destroy, rd_kafka_ConfigResource_error, rd_kafka_ConfigResource_error_string,
    rd_kafka_ConfigResource_name, rd_kafka_ConfigResource_new, rd_kafka_ConfigResource_t,
    rd_kafka_IncrementalAlterConfigs, rd_kafka_IncrementalAlterConfigs_result_resources, rd_kafka_ResourceType_t,
    rd_kafka_admin_op_t, rd_kafka_error_code, rd_kafka_error_destroy, rd_kafka_error_string,
    rd_kafka_event_IncrementalAlterConfigs_result,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::native::{Objection, Owned, ask, given, items, misplaced, objection, text};
use crate::topic::plan::Alteration;

/// What became of each topic.
type Outcomes = Vec<(String, Result<(), Objection>)>;

/// Changes some keys of some topics, with one call; of each topic all of them or none. Blocks.
pub(super) fn alter(
    admin: &AdminClient<DefaultClientContext>,
    changes: &[(String, Vec<Alteration>)],
    limit: Duration,
) -> Result<Outcomes, Objection> {
    let mut outcomes = Outcomes::new();
    let mut resources = Vec::new();
    for (topic, alterations) in changes {
        match resource(topic, alterations) {
            Ok(resource) => resources.push(resource),
            Err(objection) => outcomes.push((topic.clone(), Err(objection))),
        }
    }
    if resources.is_empty() {
        return Ok(outcomes);
    }
    let mut pointers: Vec<_> = resources.iter().map(Owned::get).collect();
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
    let answer = ask(admin, operation, limit, |client, options, queue| {
        // SAFETY: `resources` outlive the call, which copies them.
        unsafe {
            rd_kafka_IncrementalAlterConfigs(client, pointers.as_mut_ptr(), pointers.len(), options, queue);
        }
    })?;
    // SAFETY: everything that the answer points to lives as long as it does; texts are copied.
    unsafe {
        let result = rd_kafka_event_IncrementalAlterConfigs_result(answer.get());
        if result.is_null() {
            return Err(misplaced());
        }
        let mut count = 0;
        let altered = rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count);
        outcomes.extend(items(altered, count).iter().map(|resource| outcome(*resource)));
    }
    Ok(outcomes)
}

/// A topic with the changes of its configuration.
fn resource(topic: &str, alterations: &[Alteration]) -> Result<Owned<rd_kafka_ConfigResource_t>, Objection> {
    let name = given(topic)?;
    // SAFETY: the name ends with a zero, and is copied.
    let made = unsafe { rd_kafka_ConfigResource_new(rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr()) };
    let resource = Owned::new(made, rd_kafka_ConfigResource_destroy)
        .ok_or_else(|| Objection::ours("the Kafka client takes no such topic"))?;
    for alteration in alterations {
        add(&resource, alteration)?;
    }
    Ok(resource)
}

fn add(resource: &Owned<rd_kafka_ConfigResource_t>, alteration: &Alteration) -> Result<(), Objection> {
    let key = given(alteration.key())?;
    let (operation, value) = match alteration {
        Alteration::Set { value, .. } => (Operation::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, Some(given(value)?)),
        Alteration::Reset { .. } => (Operation::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, None),
    };
    let value = value.as_ref().map_or(ptr::null(), |value| value.as_ptr());
    // SAFETY: the texts end with a zero, and are copied; the error is ours to free.
    unsafe {
        let error = rd_kafka_ConfigResource_add_incremental_config(resource.get(), key.as_ptr(), operation, value);
        let Some(error) = Owned::new(error, rd_kafka_error_destroy) else { return Ok(()) };
        let code = RDKafkaErrorCode::from(rd_kafka_error_code(error.get()));
        Err(objection(code, text(rd_kafka_error_string(error.get()))))
    }
}

/// # Safety
/// `resource` is part of an answer that lives.
unsafe fn outcome(resource: *const rd_kafka_ConfigResource_t) -> (String, Result<(), Objection>) {
    // SAFETY: the caller's; texts are copied.
    let (name, code, words) = unsafe {
        let name = text(rd_kafka_ConfigResource_name(resource)).unwrap_or_default();
        (name, rd_kafka_ConfigResource_error(resource), text(rd_kafka_ConfigResource_error_string(resource)))
    };
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => (name, Ok(())),
        code => (name, Err(objection(code, words))),
    }
}
