//! What is answered, and which deliveries came before. Pure.

use std::collections::{HashMap, VecDeque};

use xxhash_rust::xxh3::xxh3_128;

/// Deliveries that are remembered.
const REMEMBERED: usize = 10_000;

/// How often each delivery came.
#[derive(Default)]
pub struct Seen {
    times: HashMap<u128, u32>,
    /// The oldest first.
    order: VecDeque<u128>,
}

impl Seen {
    /// Notes that a delivery came, and tells how often it has by now. Requests without an id are counted together.
    pub fn note(&mut self, id: Option<&str>) -> u32 {
        let key = id.map_or(0, |id| xxh3_128(id.as_bytes()));
        if !self.times.contains_key(&key) {
            self.order.push_back(key);
        }
        let times = self.times.entry(key).or_default();
        *times += 1;
        let times = *times;
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.times.remove(&oldest);
        }
        times
    }
}

/// The answer to a delivery that comes for the `times`th time: the script's, whose last line stays.
pub fn scripted(script: &[u16], times: u32) -> u16 {
    let place = usize::try_from(times.saturating_sub(1)).unwrap_or(usize::MAX).min(script.len().saturating_sub(1));
    script.get(place).copied().unwrap_or(200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delivery_is_counted_for_itself_and_the_oldest_forgotten() {
        let mut seen = Seen::default();
        assert_eq!([seen.note(Some("a")), seen.note(Some("b")), seen.note(Some("a"))], [1, 1, 2]);
        assert_eq!([seen.note(None), seen.note(None)], [1, 2]);
        for n in 0..REMEMBERED {
            assert_eq!(seen.note(Some(&n.to_string())), 1);
        }
        assert_eq!(seen.times.len(), REMEMBERED);
        assert_eq!(seen.note(Some("a")), 1, "it was the oldest");
    }

    #[test]
    fn a_script_ends_with_its_last_line() {
        let answers = [1, 2, 3, 4, u32::MAX].map(|times| scripted(&[500, 503, 200], times));
        assert_eq!(answers, [500, 503, 200, 200, 200]);
        assert_eq!(scripted(&[], 1), 200);
    }
}
