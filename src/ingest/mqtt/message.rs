//! A message as a broker hands it over, whatever the version of the protocol.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

/// A PUBLISH packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    /// QoS 1: the broker waits for an acknowledgement. QoS 0 has none, and no packet id.
    pub acknowledged: bool,
    pub packet: u16,
    /// The broker sent it before and got no acknowledgement.
    pub duplicate: bool,
    /// It was kept by the broker and is sent because of a new subscription.
    pub retained: bool,
    /// MQTT 5 only.
    pub content_type: Option<String>,
    /// MQTT 5 only: user properties, in their order.
    pub properties: Vec<(String, String)>,
}

impl Message {
    /// The user property of this name; of several the last.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Tells what it says from what another message says.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Xxh3::new();
        let properties = self.properties.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]);
        let fixed = [self.topic.as_bytes(), self.content_type.as_deref().unwrap_or_default().as_bytes()];
        for part in fixed.into_iter().chain(properties).chain([self.payload.as_ref()]) {
            hash.update(&part.len().to_le_bytes());
            hash.update(part);
        }
        hash.digest()
    }
}
