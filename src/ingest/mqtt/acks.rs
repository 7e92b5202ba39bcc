//! Acknowledgements, given only on the connection that brought the message: after a new one the same packet id may stand
//! for another message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::client::Requests;

/// How long to wait where too many requests wait for the connection.
const CROWDED: Duration = Duration::from_millis(5);

/// Gives acknowledgements. Cheap to clone.
#[derive(Clone)]
pub struct Acks {
    requests: Requests,
    /// The number of the connection that there is.
    connection: Arc<Mutex<u64>>,
}

impl Acks {
    pub fn new(requests: Requests) -> Self {
        Self { requests, connection: Arc::default() }
    }

    /// The connection that there is.
    pub fn connection(&self) -> u64 {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is gone: nothing that it brought is acknowledged any more.
    pub fn disconnected(&self) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// Acknowledges a packet, if its connection is still there.
    pub async fn give(&self, connection: u64, packet: u16) {
        while !self.try_give(connection, packet) {
            sleep(CROWDED).await;
        }
    }

    /// Under the lock, so that none slips through while the connection goes.
    fn try_give(&self, connection: u64, packet: u16) -> bool {
        let now = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        *now != connection || self.requests.acknowledge(packet)
    }
}
