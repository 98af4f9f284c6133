//! Shuffle sharding: the few queues, of many, that a flow may use.
//!
//! Two flows rarely share all their queues, so one that floods its own leaves others a way.

use ring::digest;

/// Bits of the hash that may be used: with more, the last card would be dealt unevenly.
const HASH_BITS: f64 = 60.0;
const MAX_QUEUES: usize = 1 << 26;

/// Whether hands of this size can be dealt from so many queues.
pub fn deals(queues: usize, hand_size: usize) -> bool {
    let possible = hand_size > 0 && hand_size <= queues && queues <= MAX_QUEUES;
    possible && ((queues as f64).log2() * hand_size as f64).ceil() <= HASH_BITS
}

/// A hash of a flow.
pub fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(schema.as_bytes());
    context.update(&[0]);
    context.update(distinguisher.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&context.finish().as_ref()[..8]);
    u64::from_le_bytes(first)
}

/// Deals distinct queues, all hands being equally likely.
pub fn deal(mut hash: u64, queues: usize, hand_size: usize) -> Vec<usize> {
    // Each digit says which of the queues that are left is taken; `taken` is kept sorted to count past them.
    let mut taken: Vec<usize> = Vec::with_capacity(hand_size);
    let mut hand = Vec::with_capacity(hand_size);
    for dealt in 0..hand_size.min(queues) {
        let left = (queues - dealt) as u64;
        let mut card = (hash % left) as usize;
        hash /= left;
        for other in &taken {
            if card >= *other {
                card += 1;
            }
        }
        let at = taken.partition_point(|other| *other < card);
        taken.insert(at, card);
        hand.push(card);
    }
    hand
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashMap};

    #[test]
    fn hands_are_distinct_and_even() {
        let mut seen: HashMap<BTreeSet<usize>, usize> = HashMap::new();
        for hash in 0..(6 * 5 * 4) as u64 {
            let hand = deal(hash, 6, 3);
            assert!(hand.iter().all(|card| *card < 6));
            let set: BTreeSet<_> = hand.into_iter().collect();
            assert_eq!(set.len(), 3);
            *seen.entry(set).or_default() += 1;
        }
        assert_eq!(seen.len(), 20, "every hand is dealt");
        assert!(seen.values().all(|count| *count == 6), "all equally often");
    }

    #[test]
    fn flows_differ() {
        assert_ne!(flow_hash("a", "b"), flow_hash("ab", ""));
        assert_ne!(deal(flow_hash("s", "u1"), 128, 6), deal(flow_hash("s", "u2"), 128, 6));
    }

    #[test]
    fn sizes_are_checked() {
        for (queues, hand, want) in
            [(64, 6, true), (1, 1, true), (4, 5, false), (0, 0, false), (1024, 6, true), (1025, 6, false)]
        {
            assert_eq!(deals(queues, hand), want, "{queues} {hand}");
        }
    }
}
