//! Keys under which an event is accepted once, and what one flush can say about them before the database does.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

/// SHA-256 of what was asked under a key.
pub type RequestHash = [u8; 32];

/// Longest stored key, in characters: the width of its column. A longer one is stored as its hash.
const MAX_KEY_CHARS: usize = 512;

/// A caller's key and the hash of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    stored: String,
    pub request: RequestHash,
}

impl IdempotencyKey {
    /// The key of the header `Idempotency-Key`.
    pub fn from_header(key: &str, request: RequestHash) -> Self {
        Self::new(format!("key:{key}"), request)
    }

    /// The key of the header `Idempotency-Key` for one event of a batch.
    pub fn from_header_in_batch(key: &str, index: usize, request: RequestHash) -> Self {
        Self::new(format!("key:{key} {index}"), request)
    }

    /// The key of a CloudEvent. `source` holds no space.
    pub fn from_cloud_event(source: &str, id: &str, request: RequestHash) -> Self {
        Self::new(format!("ce:{source} {id}"), request)
    }

    fn new(key: String, request: RequestHash) -> Self {
        let stored = if key.chars().count() <= MAX_KEY_CHARS {
            key
        } else {
            format!("sha256:{}", hex::encode(Sha256::digest(key.as_bytes())))
        };
        Self { stored, request }
    }

    /// As the caller gave it, as far as it is stored so.
    pub fn shown(&self) -> &str {
        let stored = self.stored.as_str();
        stored.strip_prefix("key:").or_else(|| stored.strip_prefix("ce:")).unwrap_or(stored)
    }

    /// As it stands in the table.
    pub fn as_str(&self) -> &str {
        &self.stored
    }
}

/// What is known of an entry from the entries before it in the same flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing: it goes to the database.
    First,
    /// It repeats the request of the entry with this index and shares its fate.
    Repeats(usize),
    /// Its key was used by another request just before.
    Conflicts,
}

/// Compares the keys of a flush with each other.
pub(super) fn standings<'a>(keys: impl Iterator<Item = Option<&'a IdempotencyKey>>) -> Vec<Standing> {
    let mut seen: HashMap<&str, (usize, &RequestHash)> = HashMap::new();
    keys.enumerate()
        .map(|(index, key)| {
            let Some(key) = key else { return Standing::First };
            match seen.get(key.as_str()) {
                None => {
                    seen.insert(key.as_str(), (index, &key.request));
                    Standing::First
                }
                Some((first, request)) if **request == key.request => Standing::Repeats(*first),
                Some(_) => Standing::Conflicts,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_repetitions_from_conflicts() {
        let a = IdempotencyKey::from_header("a", [1; 32]);
        let other = IdempotencyKey::from_header("a", [2; 32]);
        let keys = [Some(&a), None, Some(&a), Some(&other), None];
        assert_eq!(
            standings(keys.into_iter()),
            [Standing::First, Standing::First, Standing::Repeats(0), Standing::Conflicts, Standing::First]
        );
    }

    #[test]
    fn every_key_fits_its_column() {
        let long = IdempotencyKey::from_cloud_event(&"ü".repeat(600), "1", [0; 32]);
        let longer = IdempotencyKey::from_cloud_event(&"ü".repeat(600), "2", [0; 32]);
        assert!(long.as_str().chars().count() <= MAX_KEY_CHARS);
        assert_ne!(long.as_str(), longer.as_str());
        assert_ne!(
            IdempotencyKey::from_header("k", [0; 32]).as_str(),
            IdempotencyKey::from_header_in_batch("k", 0, [0; 32]).as_str()
        );
    }
}
