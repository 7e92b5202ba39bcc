//! The identity that a broker gives a topic: one that is deleted and made anew has another. Only known to librdkafka's own
//! interface.
#![expect(unsafe_code, reason = "the safe client does not describe topics")]

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings::{
    rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics, rd_kafka_TopicCollection_destroy,
    rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error, rd_kafka_TopicDescription_name,
    rd_kafka_TopicDescription_t, rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_base64str,
    rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits, rd_kafka_admin_op_t,
    rd_kafka_error_code, rd_kafka_event_DescribeTopics_result,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::native::{Objection, Owned, ask, given, items, misplaced, text};

/// The identities of topics, with one call; those that the broker does not tell are left out. Blocks.
pub(super) fn identities(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[String],
    limit: Duration,
) -> Result<BTreeMap<String, String>, Objection> {
    let names = topics.iter().map(|topic| given(topic)).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the names end with a zero, and are copied.
    let collection = unsafe { rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
    let collection = Owned::new(collection, rd_kafka_TopicCollection_destroy).ok_or_else(misplaced)?;
    let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let answer = ask(admin, operation, limit, |client, options, queue| {
        // SAFETY: the collection outlives the call, which copies it.
        unsafe { rd_kafka_DescribeTopics(client, collection.get(), options, queue) }
    })?;
    // SAFETY: everything that the answer points to lives as long as it does.
    unsafe {
        let result = rd_kafka_event_DescribeTopics_result(answer.get());
        if result.is_null() {
            return Err(misplaced());
        }
        let mut count = 0;
        let described = rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        Ok(items(described, count).iter().filter_map(|topic| identity(*topic)).collect())
    }
}

/// # Safety
/// `topic` is part of an answer that lives.
unsafe fn identity(topic: *const rd_kafka_TopicDescription_t) -> Option<(String, String)> {
    // SAFETY: the caller's; texts are copied.
    unsafe {
        let error = rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && RDKafkaErrorCode::from(rd_kafka_error_code(error)) != RDKafkaErrorCode::NoError {
            return None;
        }
        let id = rd_kafka_TopicDescription_topic_id(topic);
        // Older brokers have none: it is all zeros.
        if id.is_null() || (rd_kafka_Uuid_most_significant_bits(id), rd_kafka_Uuid_least_significant_bits(id)) == (0, 0)
        {
            return None;
        }
        Some((text(rd_kafka_TopicDescription_name(topic))?, text(rd_kafka_Uuid_base64str(id))?))
    }
}
