//! Where the machine's CPUs and memory are: cores, sockets and NUMA nodes, as sysfs tells.

use super::cpuset::CpuSet;
use std::collections::BTreeMap;
use std::path::Path;

/// Where a CPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Core, unique in the machine.
    pub core: u32,
    /// Socket.
    pub socket: u32,
    /// NUMA node.
    pub node: u32,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// CPUs.
    pub cpus: BTreeMap<u32, Place>,
    /// Bytes of memory by NUMA node.
    pub memory: BTreeMap<u32, u64>,
}

fn number(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl Topology {
    /// Reads `/sys/devices/system`.
    pub fn read() -> Self {
        Self::read_below(Path::new("/sys/devices/system"))
    }

    fn read_below(root: &Path) -> Self {
        let list = |path: &Path| -> CpuSet {
            std::fs::read_to_string(path).ok().and_then(|t| t.parse().ok()).unwrap_or_default()
        };
        let (mut nodes, mut memory) = (BTreeMap::new(), BTreeMap::new());
        for node in list(&root.join("node/online")).iter() {
            let dir = root.join(format!("node/node{node}"));
            nodes.extend(list(&dir.join("cpulist")).iter().map(|cpu| (cpu, node)));
            memory.insert(node, total(&dir.join("meminfo")).unwrap_or(0));
        }
        let mut cpus = BTreeMap::new();
        for cpu in list(&root.join("cpu/online")).iter() {
            let dir = root.join(format!("cpu/cpu{cpu}/topology"));
            let socket = number(&dir.join("physical_package_id")).unwrap_or(0);
            let core = number(&dir.join("core_id")).unwrap_or(cpu);
            // Core ids are unique in their socket only.
            cpus.insert(cpu, Place { core: socket << 16 | core, socket, node: nodes.get(&cpu).copied().unwrap_or(0) });
        }
        if memory.is_empty() {
            memory.insert(0, crate::summary::build::meminfo("MemTotal:").unwrap_or(0));
        }
        Self { cpus, memory }
    }

    /// All CPUs.
    pub fn all(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    /// NUMA nodes.
    pub fn nodes(&self) -> Vec<u32> {
        self.memory.keys().copied().collect()
    }

    /// CPUs of a core, a socket or a node.
    pub fn of(&self, belongs: impl Fn(&Place) -> bool) -> CpuSet {
        self.cpus.iter().filter(|(_, place)| belongs(place)).map(|(cpu, _)| *cpu).collect()
    }

    /// CPUs of a core.
    pub fn cpus_per_core(&self) -> usize {
        let first = self.cpus.values().next().map(|p| p.core);
        first.map_or(1, |core| self.of(|p| p.core == core).len().max(1))
    }
}

fn total(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.split_once("MemTotal:"))?.1;
    line.trim().split(' ').next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
#[allow(missing_docs, reason = "a topology for the tests of other modules")]
pub mod tests {
    use super::*;

    /// Two sockets, each a NUMA node of 4 cores with 2 threads (0-7 and 8-15) and 1 GiB.
    pub fn two_nodes() -> Topology {
        let place = |cpu: u32| Place { core: cpu / 2, socket: cpu / 8, node: cpu / 8 };
        Topology { cpus: (0..16).map(|c| (c, place(c))).collect(), memory: [(0, 1 << 30), (1, 1 << 30)].into() }
    }

    #[test]
    fn this_machine_is_read() {
        let machine = Topology::read();
        assert!(!machine.cpus.is_empty() && !machine.memory.is_empty() && machine.memory[&machine.nodes()[0]] > 0);
        assert_eq!(two_nodes().cpus_per_core(), 2);
    }
}
