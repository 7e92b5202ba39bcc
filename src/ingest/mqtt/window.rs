//! Which deliveries are stored already, as far as a broker may repeat them. Pure.
//!
//! A broker that got no acknowledgement sends a packet again, marked as a duplicate, under the same packet id. It does so
//! only with packets that were under way when the connection broke, so it is enough to know the newest ones.

use std::collections::{HashMap, VecDeque};
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

/// The newest deliveries that were stored.
pub struct Window {
    /// The newest last.
    order: VecDeque<u16>,
    stored: HashMap<u16, u64>,
    most: usize,
}

impl Window {
    /// Knows the newest `most` deliveries: as many as may be under way.
    pub fn new(most: u16) -> Self {
        Self { order: VecDeque::new(), stored: HashMap::new(), most: usize::from(most).max(1) }
    }

    /// A delivery is stored.
    pub fn note(&mut self, packet: u16, fingerprint: u64) {
        if self.stored.insert(packet, fingerprint).is_some() {
            self.order.retain(|other| *other != packet);
        }
        self.order.push_back(packet);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.stored.remove(&oldest);
        }
    }

    /// Whether this very delivery is stored.
    pub fn holds(&self, packet: u16, fingerprint: u64) -> bool {
        self.stored.get(&packet) == Some(&fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_known_while_it_is_among_the_newest() {
        let mut window = Window::new(2);
        window.note(1, 10);
        window.note(2, 20);
        assert!(window.holds(1, 10) && window.holds(2, 20));
        assert!(!window.holds(1, 11), "another message under the same id");
        window.note(1, 11);
        window.note(3, 30);
        assert!(!window.holds(2, 20), "too old");
        assert!(window.holds(1, 11) && window.holds(3, 30));
    }

    #[test]
    fn a_delivery_is_written_and_read() {
        let delivery = Delivery { client: "a/b".to_owned(), packet: 7, fingerprint: 0xabc };
        assert_eq!(delivery.to_string(), "a/b/7/0000000000000abc");
        assert_eq!(delivery.to_string().parse(), Ok(delivery));
        assert_eq!("nonsense".parse::<Delivery>(), Err(()));
    }
}
