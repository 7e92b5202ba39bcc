//! Which topics a broker has, or why there is no connection to it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::{ANSWER, BrokerError};

/// Notes why connections fail: what is asked of brokers is answered with no more than that none is there.
#[derive(Default)]
pub(super) struct Failures {
    last: Mutex<Option<String>>,
}

impl Failures {
    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Failures {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        // How long it took differs each time, and would make a status change for nothing.
        let reason = reason.split(" (after ").next().unwrap_or(reason);
        *self.last() = Some(reason.to_owned());
    }
}

impl ConsumerContext for Failures {}

/// How long a client is listened to, after an answer, for what it has to say about its connections.
const NEWS: Duration = Duration::from_millis(20);
/// Most failures that are looked at.
const FAILURES: usize = 100;

/// The topics that exist, or why no broker answers. Blocks.
pub(super) fn metadata(reader: &BaseConsumer<Failures>) -> Result<Metadata, BrokerError> {
    let answer = reader.fetch_metadata(None, ANSWER);
    // Polled also after an answer, so that failures that are over do not pile up.
    for _ in 0..FAILURES {
        if reader.poll(NEWS).is_none() {
            break;
        }
    }
    let last = reader.context().last().take();
    answer.map_err(|error| last.map_or(BrokerError::Metadata(error), BrokerError::Connection))
}
