//! How far publishing has come in each shard: pure.

use crate::event::{SHARDS, Shard, ShardSet};

/// What became of a row in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Published, or a dead letter.
    Gone,
    /// Its topic is set aside.
    Waits,
    /// It is to be published in the next round.
    Stays,
}

/// Positions by shard up to which no row is to be published, but those of topics that are set aside.
#[derive(Debug)]
pub(super) struct Reach {
    floors: Vec<i64>,
}

impl Reach {
    pub fn new() -> Self {
        Self { floors: vec![0; SHARDS] }
    }

    pub fn floors(&self) -> &[i64] {
        &self.floors
    }

    /// Scans begin at the beginning again.
    pub fn forget(&mut self) {
        self.floors.fill(0);
    }

    /// Takes note of the first rows above the floors, by shard and position. Answers with the shards in which some stay:
    /// nothing behind the first of them is passed.
    pub fn advance(&mut self, rows: impl Iterator<Item = (Shard, i64, Fate)>) -> ShardSet {
        let mut stay = ShardSet::EMPTY;
        for (shard, position, fate) in rows {
            if fate == Fate::Stays {
                stay.insert(shard);
            }
            if !stay.contains(shard)
                && let Some(floor) = usize::try_from(shard).ok().and_then(|at| self.floors.get_mut(at))
            {
                *floor = position.max(*floor);
            }
        }
        stay
    }
}
