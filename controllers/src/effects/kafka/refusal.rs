//! What a broker's refusal means: whether trying again helps, and what would. Pure.

use crds::reason::Reason;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::native::Objection;
use crate::topic::plan::Blocked;

/// The broker's own words, and the way out.
pub(super) fn blocked(doing: &str, topic: &str, Objection { code, words }: Objection) -> Blocked {
    let (terminal, hint) = match code {
        // Added by whoever was here before; what was described is older than that.
        Code::InvalidPartitions if words.contains("already has") => (false, ""),
        code => way_out(code),
    };
    let reason = if terminal { Reason::ConfigRejected } else { Reason::Retrying };
    let words = words.trim().trim_end_matches('.');
    Blocked { reason, message: format!("the broker refuses to {doing} '{topic}': {words}{hint}") }
}

/// Whether the same request would be refused again, and what to do about it.
fn way_out(code: Code) -> (bool, &'static str) {
    match code {
        Code::InvalidReplicationFactor => (true, "; lower replicationFactor to the number of brokers, or add brokers"),
        Code::InvalidPartitions => (true, "; mend partitions"),
        Code::InvalidConfig => (true, "; mend config or retention"),
        Code::InvalidTopic => (true, "; mend topicName"),
        Code::InvalidArgument | Code::InvalidRequest => (true, "; mend the spec"),
        Code::PolicyViolation => (true, "; a policy of the broker forbids it"),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            (true, "; allow this user to do so on the broker")
        }
        _ => (false, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_come_with_the_way_out_and_only_some_are_worth_another_try() {
        let said = |code, words: &str| blocked("alter", "t", Objection { code, words: words.into() });
        let invalid = said(Code::InvalidConfig, "Invalid value x for configuration retention.ms.");
        assert_eq!(invalid.reason, Reason::ConfigRejected);
        let message =
            "the broker refuses to alter 't': Invalid value x for configuration retention.ms; mend config or retention";
        assert_eq!(invalid.message, message);
        assert_eq!(said(Code::RequestTimedOut, "timed out").reason, Reason::Retrying);
        assert_eq!(said(Code::InvalidPartitions, "Topic already has 3 partition(s).").reason, Reason::Retrying);
        assert_eq!(
            said(Code::InvalidPartitions, "Number of partitions must be larger than 0.").reason,
            Reason::ConfigRejected
        );
    }
}
