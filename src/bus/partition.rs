//! Which partition of a Kafka topic a key goes to: murmur2, as Java clients compute it, so that every client in any
//! language agrees on where an aggregate's events are.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// The partition of a key in a topic of `partitions` partitions (at least one is assumed).
#[expect(clippy::cast_possible_wrap, reason = "the remainder is below an i32")]
pub fn partition_of(key: &str, partitions: i32) -> i32 {
    (positive_hash(key) % partitions.max(1).unsigned_abs()) as i32
}

/// The hash of a key without its sign bit: modulo the number of partitions it is the partition.
pub fn positive_hash(key: &str) -> u32 {
    murmur2(key.as_bytes()) & 0x7fff_ffff
}

/// 32-bit MurmurHash2 with the seed that Kafka uses.
#[expect(clippy::cast_possible_truncation, reason = "the hash takes the length modulo 2^32")]
pub fn murmur2(data: &[u8]) -> u32 {
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let rest = tail.iter().rev().fold(0, |acc, byte| (acc << 8) | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `org.apache.kafka.common.utils.Utils.murmur2`.
    const KNOWN: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];

    #[test]
    fn hashes_as_java_clients_do() {
        for (key, hash) in KNOWN {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_within_the_topic() {
        for (key, hash) in KNOWN {
            for partitions in [1, 3, 12] {
                assert_eq!(partition_of(key, partitions), (hash & 0x7fff_ffff) % partitions, "{key}");
            }
        }
    }
}
