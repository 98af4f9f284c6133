//! Memory manager, policy `Static`: memory of Guaranteed pods comes from given NUMA nodes (KEP-1769).

use super::topology::{Hint, Mask, bit, hints};
use std::collections::BTreeMap;

/// Who has how much memory where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryManager {
    /// Bytes for pods by NUMA node.
    allocatable: BTreeMap<u32, u64>,
    /// Nodes and bytes on each, by pod and container.
    assigned: BTreeMap<(String, String), BTreeMap<u32, u64>>,
}

impl MemoryManager {
    /// Makes a manager of a machine's memory less what is reserved on each node.
    pub fn new(memory: &BTreeMap<u32, u64>, reserved: &BTreeMap<u32, u64>) -> Self {
        let left =
            |(node, bytes): (&u32, &u64)| (*node, bytes.saturating_sub(reserved.get(node).copied().unwrap_or(0)));
        Self { allocatable: memory.iter().map(left).collect(), assigned: BTreeMap::new() }
    }

    fn free(&self, node: u32) -> u64 {
        let taken: u64 = self.assigned.values().filter_map(|a| a.get(&node)).sum();
        self.allocatable.get(&node).map_or(0, |all| all.saturating_sub(taken))
    }

    fn sum(&self, mask: Mask, of: impl Fn(u32) -> u64) -> u64 {
        self.allocatable.keys().filter(|node| mask & bit(**node) != 0).map(|node| of(*node)).sum()
    }

    /// Where so many bytes could be.
    pub fn hints(&self, bytes: u64) -> Vec<Hint> {
        let nodes: Vec<u32> = self.allocatable.keys().copied().collect();
        let total = |node: u32| self.allocatable.get(&node).copied().unwrap_or(0);
        hints(&nodes, bytes, |m| self.sum(m, |n| self.free(n)), |m| self.sum(m, total))
    }

    /// Sets memory aside; the error is upstream's text.
    pub fn allocate(&mut self, pod: &str, container: &str, bytes: u64, nodes: Option<Mask>) -> Result<(), String> {
        let key = (pod.to_owned(), container.to_owned());
        if self.assigned.contains_key(&key) {
            return Ok(());
        }
        let fitting = |mask: Mask| self.sum(mask, |n| self.free(n)) >= bytes;
        let best =
            self.hints(bytes).into_iter().min_by_key(|h| (!h.preferred, h.nodes.map_or(0, u64::count_ones), h.nodes));
        let mask = nodes.filter(|m| fitting(*m)).or(best.and_then(|h| h.nodes));
        let mask = mask.ok_or("[memorymanager] failed to find the default preferred hint")?;
        let (mut left, mut blocks) = (bytes, BTreeMap::new());
        for node in self.allocatable.keys().copied().filter(|n| mask & bit(*n) != 0) {
            let here = self.free(node).min(left);
            blocks.insert(node, here);
            left -= here;
        }
        self.assigned.insert(key, blocks);
        Ok(())
    }

    /// The memory nodes of a container, as cpuset.mems takes them.
    pub fn nodes(&self, pod: &str, container: &str) -> Option<super::cpuset::CpuSet> {
        let blocks = self.assigned.get(&(pod.to_owned(), container.to_owned()))?;
        Some(blocks.keys().copied().collect())
    }

    /// Bytes of a container by NUMA node.
    pub fn blocks(&self, pod: &str, container: &str) -> BTreeMap<u32, u64> {
        self.assigned.get(&(pod.to_owned(), container.to_owned())).cloned().unwrap_or_default()
    }

    /// Bytes for pods by NUMA node.
    pub fn allocatable(&self) -> &BTreeMap<u32, u64> {
        &self.allocatable
    }

    /// Takes a pod's memory back.
    pub fn release(&mut self, pod: &str) {
        self.assigned.retain(|(uid, _), _| uid != pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_set_aside_by_node() {
        let mut memory = MemoryManager::new(&[(0, 100), (1, 100)].into(), &[(0, 50)].into());
        assert_eq!(memory.hints(80)[0], Hint { nodes: Some(0b10), preferred: true });
        memory.allocate("a", "c", 80, None).expect("fits on the second");
        assert_eq!(memory.nodes("a", "c").map(|n| n.to_string()).as_deref(), Some("1"));
        memory.allocate("b", "c", 60, None).expect("needs both");
        assert_eq!(memory.nodes("b", "c").map(|n| n.to_string()).as_deref(), Some("0-1"));
        assert!(memory.allocate("c", "c", 20, None).is_err());
        memory.release("a");
        assert_eq!(memory.allocate("c", "c", 20, Some(0b10)), Ok(()));
    }
}
