//! CPU manager, policy `static`: containers of Guaranteed pods that ask for whole CPUs get them alone (KEP-3570).

use super::cpuset::CpuSet;
use super::machine_topology::Topology;
use super::topology::{Hint, Mask, bit, hints};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who has which CPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuManager {
    topology: Topology,
    reserved: CpuSet,
    /// `full-pcpus-only`
    whole_cores: bool,
    /// `strict-cpu-reservation`
    strict: bool,
    assigned: BTreeMap<(String, String), CpuSet>,
}

/// `cpu_manager_state`, in upstream's form.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    policy_name: String,
    default_cpu_set: String,
    #[serde(default)]
    entries: BTreeMap<String, BTreeMap<String, String>>,
}

impl CpuManager {
    /// Makes a manager; `reserved` CPUs are given to nobody alone.
    pub fn new(topology: Topology, reserved: CpuSet, options: &crate::configuration::Strings) -> Self {
        let set = |name: &str| options.get(name).is_some_and(|v| v == "true");
        let (whole_cores, strict) = (set("full-pcpus-only"), set("strict-cpu-reservation"));
        Self { topology, reserved, whole_cores, strict, assigned: BTreeMap::new() }
    }

    /// CPUs that may still be given away.
    fn free(&self) -> CpuSet {
        self.unassigned().minus(&self.reserved)
    }

    fn unassigned(&self) -> CpuSet {
        self.assigned.values().fold(self.topology.all(), |left, taken| left.minus(taken))
    }

    /// CPUs of all containers that have none of their own.
    pub fn shared(&self) -> CpuSet {
        if self.strict { self.free() } else { self.unassigned() }
    }

    /// CPUs that may be given away.
    pub fn allocatable(&self) -> CpuSet {
        self.topology.all().minus(&self.reserved)
    }

    /// CPUs of a container alone.
    pub fn exclusive(&self, pod: &str, container: &str) -> Option<&CpuSet> {
        self.assigned.get(&(pod.to_owned(), container.to_owned()))
    }

    /// Where so many CPUs could be.
    pub fn hints(&self, amount: usize) -> Vec<Hint> {
        let free = self.free();
        let of = |set: &CpuSet, mask: Mask| set.intersection(&self.on(mask)).len() as u64;
        let all = self.topology.all();
        hints(&self.topology.nodes(), amount as u64, |m| of(&free, m), |m| of(&all, m))
    }

    fn on(&self, mask: Mask) -> CpuSet {
        self.topology.of(|place| mask & bit(place.node) != 0)
    }

    /// Gives CPUs to a container, from the nodes of a hint first; the error is upstream's text.
    pub fn allocate(&mut self, pod: &str, container: &str, amount: usize, nodes: Option<Mask>) -> Result<(), String> {
        let key = (pod.to_owned(), container.to_owned());
        if self.assigned.contains_key(&key) {
            return Ok(());
        }
        let per_core = self.topology.cpus_per_core();
        if self.whole_cores && amount % per_core != 0 {
            return Err(format!(
                "SMT Alignment Error: requested {amount} cpus not multiple cpus per core = {per_core}"
            ));
        }
        let free = self.free();
        let near = nodes.map_or_else(|| free.clone(), |mask| free.intersection(&self.on(mask)));
        let mut taken = self.take(&near, amount.min(near.len()));
        if taken.len() < amount {
            let rest = self.take(&free.minus(&taken), amount - taken.len());
            taken = taken.union(&rest);
        }
        if taken.len() < amount {
            return Err(format!(
                "not enough cpus available to satisfy request: requested={amount}, available={}",
                free.len()
            ));
        }
        self.assigned.insert(key, taken);
        Ok(())
    }

    /// Whole sockets first, then whole cores, then what is left of cores that are already in use.
    fn take(&self, from: &CpuSet, amount: usize) -> CpuSet {
        let mut taken = CpuSet::default();
        let groups: [fn(&super::machine_topology::Place) -> u32; 2] = [|p| p.socket, |p| p.core];
        for group in groups {
            let mut ids: Vec<u32> = from.iter().filter_map(|cpu| self.topology.cpus.get(&cpu)).map(group).collect();
            ids.dedup();
            for id in ids {
                let whole = self.topology.of(|p| group(p) == id);
                let free = whole.intersection(from).minus(&taken);
                if free == whole && whole.len() <= amount - taken.len() {
                    taken = taken.union(&whole);
                }
            }
        }
        let left = from.minus(&taken);
        // A core of which a part is used already is broken: its rest goes before a fresh core is broken too.
        let mut rest: Vec<u32> = left.iter().collect();
        let siblings = |cpu: u32| {
            let core = self.topology.cpus.get(&cpu).map(|p| p.core);
            self.topology.of(|p| Some(p.core) == core).intersection(&left).len()
        };
        rest.sort_by_key(|cpu| (siblings(*cpu), *cpu));
        let missing = amount - taken.len();
        taken.union(&rest.into_iter().take(missing).collect())
    }

    /// Takes a pod's CPUs back; whether it had any.
    pub fn release(&mut self, pod: &str) -> bool {
        let before = self.assigned.len();
        self.assigned.retain(|(uid, _), _| uid != pod);
        before != self.assigned.len()
    }

    /// Pods that have CPUs.
    pub fn pods(&self) -> Vec<String> {
        self.assigned.keys().map(|(pod, _)| pod.clone()).collect()
    }

    /// What is written to disk.
    pub fn checkpoint(&self) -> Checkpoint {
        let mut entries: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for ((pod, container), cpus) in &self.assigned {
            entries.entry(pod.clone()).or_default().insert(container.clone(), cpus.to_string());
        }
        Checkpoint { policy_name: "static".into(), default_cpu_set: self.shared().to_string(), entries }
    }

    /// Takes up what an earlier kubelet wrote.
    pub fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), String> {
        let all = self.topology.all();
        for (pod, containers) in checkpoint.entries {
            for (container, text) in containers {
                let cpus: CpuSet = text.parse()?;
                if cpus.intersection(&all) != cpus {
                    return Err(format!(
                        "current set of available CPUs \"{all}\" doesn't match with CPUs in state \"{cpus}\""
                    ));
                }
                self.assigned.insert((pod.clone(), container), cpus);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine_topology::tests::two_nodes;
    use super::*;

    fn manager() -> CpuManager {
        CpuManager::new(two_nodes(), "0".parse().expect("set"), &Default::default())
    }

    #[test]
    fn whole_cores_then_threads() {
        let mut cpus = manager();
        cpus.allocate("a", "c", 3, None).expect("three");
        assert_eq!(
            cpus.exclusive("a", "c").map(ToString::to_string).as_deref(),
            Some("1-3"),
            "a core and the broken one"
        );
        cpus.allocate("b", "c", 8, None).expect("a socket");
        assert_eq!(cpus.exclusive("b", "c").map(ToString::to_string).as_deref(), Some("8-15"));
        assert_eq!(cpus.shared().to_string(), "0,4-7");
        assert!(cpus.allocate("c", "c", 5, None).is_err_and(|e| e.ends_with("requested=5, available=4")));
        assert!(cpus.release("a") && !cpus.release("a"));
        assert_eq!(cpus.shared().to_string(), "0-7");
    }

    #[test]
    fn hints_and_restarts() {
        let mut cpus = manager();
        assert_eq!(
            cpus.hints(8).iter().map(|h| (h.nodes, h.preferred)).collect::<Vec<_>>(),
            [(Some(2), true), (Some(3), false)]
        );
        cpus.allocate("a", "c", 2, Some(0b10)).expect("two");
        assert_eq!(cpus.exclusive("a", "c").map(ToString::to_string).as_deref(), Some("8-9"));
        let text = serde_json::to_string(&cpus.checkpoint()).expect("json");
        let mut again = manager();
        again.restore(serde_json::from_str(&text).expect("checkpoint")).expect("restores");
        assert_eq!(again.exclusive("a", "c"), cpus.exclusive("a", "c"));
    }

    #[test]
    fn full_cores_only() {
        let options = [("full-pcpus-only".to_owned(), "true".to_owned())].into();
        let mut cpus = CpuManager::new(two_nodes(), CpuSet::default(), &options);
        assert!(cpus.allocate("a", "c", 3, None).is_err_and(|e| e.contains("SMT Alignment Error")));
        assert_eq!(cpus.allocate("a", "c", 4, None), Ok(()));
    }
}
