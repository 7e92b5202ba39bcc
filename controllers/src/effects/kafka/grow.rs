//! Topics are made, and get more partitions, with the broker's own words where it refuses: the safe client only gives a code.
#![expect(unsafe_code, reason = "the safe client keeps the broker's words to itself")]

use std::ffi::c_char;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings::{
    rd_kafka_CreatePartitions, rd_kafka_CreatePartitions_result_topics, rd_kafka_CreateTopics,
    rd_kafka_CreateTopics_result_topics, rd_kafka_NewPartitions_destroy, rd_kafka_NewPartitions_new,
    rd_kafka_NewPartitions_t, rd_kafka_NewTopic_destroy, rd_kafka_NewTopic_new, rd_kafka_NewTopic_set_config,
    rd_kafka_NewTopic_t, rd_kafka_admin_op_t, rd_kafka_event_CreatePartitions_result,
    rd_kafka_event_CreateTopics_result, rd_kafka_topic_result_error, rd_kafka_topic_result_error_string,
    rd_kafka_topic_result_name, rd_kafka_topic_result_t,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::native::{Objection, Owned, REASON, ask, given, items, misplaced, objection, text};
use crate::topic::wanted::Wanted;

/// What became of each topic.
type Outcomes = Vec<(String, Result<(), Objection>)>;

/// Makes topics, with one call. Blocks.
pub(super) fn create(
    admin: &AdminClient<DefaultClientContext>,
    missing: &[&Wanted],
    limit: Duration,
) -> Result<Outcomes, Objection> {
    let named = missing.iter().map(|wanted| (wanted.spec.topic_name.as_str(), new_topic(wanted)));
    let (new, mut outcomes) = sort_out(named);
    if new.is_empty() {
        return Ok(outcomes);
    }
    let mut pointers: Vec<_> = new.iter().map(Owned::get).collect();
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS;
    let answer = ask(admin, operation, limit, |client, options, queue| {
        // SAFETY: `new` outlives the call, which copies it.
        unsafe { rd_kafka_CreateTopics(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
    })?;
    // SAFETY: everything that the answer points to lives as long as it does.
    unsafe {
        let result = rd_kafka_event_CreateTopics_result(answer.get());
        if result.is_null() {
            return Err(misplaced());
        }
        let mut count = 0;
        let topics = rd_kafka_CreateTopics_result_topics(result, &raw mut count);
        outcomes.extend(items(topics, count).iter().map(|topic| outcome(*topic)));
    }
    Ok(outcomes)
}

/// Adds partitions until topics have as many as is said, with one call. Blocks.
pub(super) fn add_partitions(
    admin: &AdminClient<DefaultClientContext>,
    totals: &[(String, i32)],
    limit: Duration,
) -> Result<Outcomes, Objection> {
    let (new, mut outcomes) =
        sort_out(totals.iter().map(|(topic, total)| (topic.as_str(), new_partitions(topic, *total))));
    if new.is_empty() {
        return Ok(outcomes);
    }
    let mut pointers: Vec<_> = new.iter().map(Owned::get).collect();
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS;
    let answer = ask(admin, operation, limit, |client, options, queue| {
        // SAFETY: `new` outlives the call, which copies it.
        unsafe { rd_kafka_CreatePartitions(client, pointers.as_mut_ptr(), pointers.len(), options, queue) }
    })?;
    // SAFETY: everything that the answer points to lives as long as it does.
    unsafe {
        let result = rd_kafka_event_CreatePartitions_result(answer.get());
        if result.is_null() {
            return Err(misplaced());
        }
        let mut count = 0;
        let topics = rd_kafka_CreatePartitions_result_topics(result, &raw mut count);
        outcomes.extend(items(topics, count).iter().map(|topic| outcome(*topic)));
    }
    Ok(outcomes)
}

/// What can be asked for, and what the client refuses already.
fn sort_out<'a, T>(made: impl Iterator<Item = (&'a str, Result<Owned<T>, Objection>)>) -> (Vec<Owned<T>>, Outcomes) {
    let (mut ready, mut outcomes) = (Vec::new(), Outcomes::new());
    for (topic, made) in made {
        match made {
            Ok(object) => ready.push(object),
            Err(objection) => outcomes.push((topic.to_owned(), Err(objection))),
        }
    }
    (ready, outcomes)
}

fn new_topic(wanted: &Wanted) -> Result<Owned<rd_kafka_NewTopic_t>, Objection> {
    let spec = &wanted.spec;
    let name = given(&spec.topic_name)?;
    let new = with_reason(|reason| {
        // SAFETY: the name ends with a zero, and is copied; there is room for the reason.
        let new =
            unsafe { rd_kafka_NewTopic_new(name.as_ptr(), spec.partitions, spec.replication_factor, reason, REASON) };
        Owned::new(new, rd_kafka_NewTopic_destroy)
    })?;
    for (key, value) in &spec.config {
        let (given_key, given_value) = (given(key)?, given(value)?);
        // SAFETY: the texts end with a zero, and are copied.
        let code = unsafe { rd_kafka_NewTopic_set_config(new.get(), given_key.as_ptr(), given_value.as_ptr()) };
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => {}
            code => return Err(objection(code, Some(format!("config '{key}': {code}")))),
        }
    }
    Ok(new)
}

fn new_partitions(topic: &str, total: i32) -> Result<Owned<rd_kafka_NewPartitions_t>, Objection> {
    let name = given(topic)?;
    let total = usize::try_from(total).unwrap_or(0);
    with_reason(|reason| {
        // SAFETY: the name ends with a zero, and is copied; there is room for the reason.
        let new = unsafe { rd_kafka_NewPartitions_new(name.as_ptr(), total, reason, REASON) };
        Owned::new(new, rd_kafka_NewPartitions_destroy)
    })
}

/// What librdkafka makes, or its reason why not.
fn with_reason<T>(make: impl FnOnce(*mut c_char) -> Option<T>) -> Result<T, Objection> {
    let mut reason: [c_char; REASON] = [0; REASON];
    // SAFETY: librdkafka ends the reason with a zero, within the room that it was given.
    make(reason.as_mut_ptr()).ok_or_else(|| Objection::ours(unsafe { text(reason.as_ptr()) }.unwrap_or_default()))
}

/// # Safety
/// `topic` is part of an answer that lives.
unsafe fn outcome(topic: *const rd_kafka_topic_result_t) -> (String, Result<(), Objection>) {
    // SAFETY: the caller's; texts are copied.
    let (name, code, words) = unsafe {
        let name = text(rd_kafka_topic_result_name(topic)).unwrap_or_default();
        (name, rd_kafka_topic_result_error(topic), text(rd_kafka_topic_result_error_string(topic)))
    };
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => (name, Ok(())),
        code => (name, Err(objection(code, words))),
    }
}
