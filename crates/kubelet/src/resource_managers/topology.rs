//! Topology manager: brings the wishes of CPU, memory and device managers onto the same NUMA nodes (KEP-693).

use std::collections::BTreeMap;

/// NUMA nodes as bits.
pub type Mask = u64;

/// A wish: on these nodes; `preferred`: on no more of them than needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Nodes; `None`: any.
    pub nodes: Option<Mask>,
    /// Whether it is as narrow as it can be.
    pub preferred: bool,
}

/// Wishes of one manager by resource; `None`: it does not matter, empty: it is not possible.
pub type Hints = BTreeMap<String, Option<Vec<Hint>>>;

/// The policies, by their names in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing is aligned.
    None,
    /// Aligned where it can be.
    BestEffort,
    /// A pod that cannot be aligned is rejected.
    Restricted,
    /// A pod that does not fit on one node is rejected.
    SingleNumaNode,
}

impl Policy {
    /// By name.
    pub fn of(name: &str) -> Self {
        match name {
            "best-effort" => Self::BestEffort,
            "restricted" => Self::Restricted,
            "single-numa-node" => Self::SingleNumaNode,
            _ => Self::None,
        }
    }

    /// The best common wish, and whether a pod with it is admitted.
    pub fn merge(self, all: &[Hints], nodes: &[u32]) -> (Hint, bool) {
        let mut lists: Vec<Vec<Hint>> = Vec::new();
        for hints in all.iter().flat_map(BTreeMap::values) {
            lists.push(match hints {
                None => vec![Hint { nodes: None, preferred: true }],
                Some(list) if list.is_empty() => vec![Hint { nodes: None, preferred: false }],
                Some(list) => list.clone(),
            });
        }
        if self == Self::SingleNumaNode {
            let single = |h: &Hint| h.preferred && h.nodes.is_none_or(|m| m.count_ones() == 1);
            lists.iter_mut().for_each(|list| list.retain(|h| single(h) || (h.nodes.is_none() && !h.preferred)));
        }
        let everything = nodes.iter().fold(0, |mask, node| mask | bit(*node));
        let best = best(&lists, everything);
        match self {
            Self::None => (Hint { nodes: None, preferred: true }, true),
            Self::BestEffort => (best, true),
            Self::Restricted => (best, best.preferred),
            Self::SingleNumaNode => {
                let whole = best.nodes == Some(everything) && nodes.len() > 1;
                (Hint { nodes: best.nodes.filter(|_| !whole), ..best }, best.preferred)
            }
        }
    }
}

/// The bit of a node; nodes beyond 63 are not aligned (upstream stops at 8).
pub fn bit(node: u32) -> Mask {
    1_u64.checked_shl(node).unwrap_or(0)
}

fn best(lists: &[Vec<Hint>], everything: Mask) -> Hint {
    // Folding pair by pair visits every combination of masks once, however many resources there are.
    let mut combined: Vec<Hint> = vec![Hint { nodes: Some(everything), preferred: true }];
    for list in lists {
        let mut next: Vec<Hint> = Vec::new();
        for (a, b) in combined.iter().flat_map(|a| list.iter().map(move |b| (a, b))) {
            let mask = a.nodes.unwrap_or(everything) & b.nodes.unwrap_or(everything);
            let hint = Hint { nodes: Some(mask), preferred: a.preferred && b.preferred };
            if !next.contains(&hint) {
                next.push(hint);
            }
        }
        combined = next;
    }
    let usable = combined.into_iter().filter(|h| h.nodes.is_some_and(|m| m != 0));
    // Preferred first, then narrow, then the lowest nodes.
    let key = |h: &Hint| (!h.preferred, h.nodes.map_or(0, u64::count_ones), h.nodes.unwrap_or(0));
    usable.min_by_key(key).unwrap_or(Hint { nodes: Some(everything), preferred: false })
}

/// Wishes for an amount of which each node has some: every set of nodes that has enough, preferred where no smaller
/// set could have it. `has`: free on a set of nodes; `total`: there at all.
pub fn hints(nodes: &[u32], amount: u64, has: impl Fn(Mask) -> u64, total: impl Fn(Mask) -> u64) -> Vec<Hint> {
    let masks = 1..(1_u64 << nodes.len().min(8));
    let mask_of = |bits: u64| {
        let chosen = nodes.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
        chosen.fold(0, |mask, (_, node)| mask | bit(*node))
    };
    let all: Vec<Mask> = masks.map(mask_of).collect();
    let fewest = all.iter().filter(|m| total(**m) >= amount).map(|m| m.count_ones()).min();
    let enough = all.into_iter().filter(|m| has(*m) >= amount);
    enough.map(|m| Hint { nodes: Some(m), preferred: Some(m.count_ones()) == fewest }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(list: &[(Mask, bool)]) -> Hints {
        let hints = list.iter().map(|(m, p)| Hint { nodes: Some(*m), preferred: *p }).collect();
        [("r".to_owned(), Some(hints))].into()
    }

    fn check(policy: Policy, all: &[Hints], expect: (Mask, bool, bool)) {
        let (hint, admitted) = policy.merge(all, &[0, 1]);
        assert_eq!((hint.nodes.unwrap_or(0b11), hint.preferred, admitted), expect);
    }

    #[test]
    fn wishes_are_merged() {
        let any = one(&[(0b01, true), (0b10, true), (0b11, false)]);
        let second = one(&[(0b10, true), (0b11, false)]);
        let first = one(&[(0b01, true)]);
        check(Policy::BestEffort, &[any.clone(), second.clone()], (0b10, true, true));
        check(Policy::BestEffort, &[first.clone(), second.clone()], (0b01, false, true));
        check(Policy::Restricted, &[first.clone(), second.clone()], (0b01, false, false));
        check(Policy::SingleNumaNode, &[first, second], (0b11, false, false));
        check(Policy::SingleNumaNode, &[any.clone(), any], (0b01, true, true));
        let impossible: Hints = [("r".to_owned(), Some(Vec::new()))].into();
        check(Policy::Restricted, &[impossible], (0b11, false, false));
        check(Policy::SingleNumaNode, &[[("r".to_owned(), None)].into()], (0b11, true, true));
    }

    #[test]
    fn amounts_become_wishes() {
        let free = |mask: Mask| u64::from(mask & 1 != 0) * 2 + u64::from(mask & 2 != 0) * 8;
        let total = |mask: Mask| u64::from(mask.count_ones()) * 8;
        let got = hints(&[0, 1], 4, free, total);
        assert_eq!(got, [Hint { nodes: Some(0b10), preferred: true }, Hint { nodes: Some(0b11), preferred: false }]);
        assert!(hints(&[0, 1], 10, free, total).iter().all(|h| h.preferred), "no single node could hold ten");
    }
}
