//! Which deliveries are stored already, as far as a broker may repeat them. Pure.
//!
//! A broker that got no acknowledgement sends a packet again, marked as a duplicate, under the same packet id. It does so
//! only with packets that were under way when the connection broke, so it is enough to know the newest ones.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// One delivery of a message to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub client: String,
    pub packet: u16,
    pub fingerprint: u64,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:016x}", self.client, self.packet, self.fingerprint)
    }
}

impl FromStr for Delivery {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.rsplitn(3, '/');
        let mut part = || parts.next().ok_or(());
        let (fingerprint, packet, client) = (part()?, part()?, part()?);
        Ok(Self {
            client: client.to_owned(),
            packet: packet.parse().map_err(drop)?,
            fingerprint: u64::from_str_radix(fingerprint, 16).map_err(drop)?,
        })
    }
}

/// Deliveries that are remembered. A packet id comes again after 65 535 messages at the earliest, and is then another
/// message; no broker has as many under way.
pub const NEWEST: u64 = 32_768;

/// The newest deliveries that were stored.
#[derive(Default)]
pub struct Window {
    /// By packet id: what it was, and the how manieth.
    stored: HashMap<u16, (u64, u64)>,
    count: u64,
}

impl Window {
    /// A delivery is stored.
    pub fn note(&mut self, packet: u16, fingerprint: u64) {
        self.stored.insert(packet, (fingerprint, self.count));
        self.count += 1;
    }

    /// Whether this very delivery is stored, and among the newest.
    pub fn holds(&self, packet: u16, fingerprint: u64) -> bool {
        let is_it = |(known, at): &(u64, u64)| *known == fingerprint && self.count - at <= NEWEST;
        self.stored.get(&packet).is_some_and(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_known_while_it_is_among_the_newest() {
        let mut window = Window::default();
        window.note(1, 10);
        window.note(2, 20);
        assert!(window.holds(1, 10) && window.holds(2, 20));
        assert!(!window.holds(1, 11), "another message under the same id");
        window.note(1, 11);
        assert!(window.holds(1, 11) && !window.holds(1, 10));
        for _ in 1..NEWEST {
            window.note(3, 30);
        }
        assert!(window.holds(1, 11) && !window.holds(2, 20), "too old");
    }

    #[test]
    fn a_delivery_is_written_and_read() {
        let delivery = Delivery { client: "a/b".to_owned(), packet: 7, fingerprint: 0xabc };
        assert_eq!(delivery.to_string(), "a/b/7/0000000000000abc");
        assert_eq!(delivery.to_string().parse(), Ok(delivery));
        assert_eq!("nonsense".parse::<Delivery>(), Err(()));
    }
}
