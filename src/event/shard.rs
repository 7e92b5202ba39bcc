//! Shards: the unit in which relays claim work and order is kept. An aggregate is in one shard for ever.

use xxhash_rust::xxh3::xxh3_64;

/// How many shards there are. Never changes: positions are counted per shard.
pub const SHARDS: usize = 64;

/// A shard's number, 0 to 63.
pub type Shard = i16;

/// The shard of an aggregate: xxh3 of its UTF-8 bytes, modulo 64.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is below 64")]
pub fn shard_of(aggregate_id: &str) -> Shard {
    (xxh3_64(aggregate_id.as_bytes()) % SHARDS as u64) as Shard
}

/// A set of shards, as one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(pub u64);

impl ShardSet {
    pub const EMPTY: Self = Self(0);
    pub const ALL: Self = Self(u64::MAX);

    pub fn insert(&mut self, shard: Shard) {
        self.0 |= 1 << shard;
    }

    pub fn remove(&mut self, shard: Shard) {
        self.0 &= !(1 << shard);
    }

    pub fn contains(self, shard: Shard) -> bool {
        self.0 & (1 << shard) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The shards that are in both.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The shards, ascending.
    pub fn iter(self) -> impl Iterator<Item = Shard> {
        (0..64).filter(move |s| self.contains(*s))
    }

    pub fn to_vec(self) -> Vec<Shard> {
        self.iter().collect()
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> Self {
        let mut set = Self::EMPTY;
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aggregate_keeps_its_shard_over_releases() {
        assert_eq!(shard_of("device-001"), shard_of("device-001"));
        let known: Vec<Shard> = ["device-001", "user-123", "cluster-1", ""].map(shard_of).to_vec();
        assert_eq!(known, KNOWN, "a changed hash would break the order of stored events");
    }

    const KNOWN: [Shard; 4] = [45, 57, 45, 2];

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set: ShardSet = [0, 63, 7].into_iter().collect();
        assert_eq!(set.to_vec(), [0, 7, 63]);
        set.remove(63);
        assert!(!set.contains(63));
        assert_eq!(set.without([0].into_iter().collect()).to_vec(), [7]);
    }
}
