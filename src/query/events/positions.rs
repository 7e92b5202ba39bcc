//! One position a shard: how far a reader of the event store has come.

use serde::{Deserialize, Serialize};

use crate::event::{SHARDS, Shard};

/// The last position read in each of the 64 shards; 0 where none was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<i64>", into = "Vec<i64>")]
pub struct Positions(Vec<i64>);

impl Default for Positions {
    fn default() -> Self {
        Self(vec![0; SHARDS])
    }
}

impl Positions {
    /// The last position read in a shard.
    pub fn of(&self, shard: Shard) -> i64 {
        usize::try_from(shard).ok().and_then(|n| self.0.get(n)).copied().unwrap_or(0)
    }

    /// Moves a shard forward; never back.
    pub fn reach(&mut self, shard: Shard, position: i64) {
        if let Some(slot) = usize::try_from(shard).ok().and_then(|n| self.0.get_mut(n)) {
            *slot = (*slot).max(position);
        }
    }

    /// Whether this reader has come as far as the other in every shard.
    pub fn reached(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own >= other)
    }

    /// All 64, by shard.
    pub fn as_slice(&self) -> &[i64] {
        &self.0
    }
}

impl From<Positions> for Vec<i64> {
    fn from(positions: Positions) -> Self {
        positions.0
    }
}

impl TryFrom<Vec<i64>> for Positions {
    type Error = String;

    fn try_from(positions: Vec<i64>) -> Result<Self, String> {
        if positions.len() == SHARDS && positions.iter().all(|p| *p >= 0) {
            Ok(Self(positions))
        } else {
            Err(format!("{SHARDS} positions are needed, none below 0"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_moves_forward_only() {
        let mut positions = Positions::default();
        positions.reach(63, 5);
        positions.reach(63, 4);
        assert_eq!((positions.of(63), positions.of(0)), (5, 0));
        assert!(positions.reached(&Positions::default()) && !Positions::default().reached(&positions));
    }
}
