//! CPUs and memory that containers have for themselves, and on which NUMA nodes.
//!
//! [`ResourceManagers::allocate`] is a step of a pod's admission: wishes of the managers are merged by the
//! [`topology`] policy, then each manager sets aside what the pod gets. What is set aside is on disk, so that a
//! restarted kubelet gives nothing away twice. Containers without CPUs of their own share the rest: when that
//! changes, their cgroups are changed.

pub mod cpu;
pub mod cpuset;
pub mod machine_topology;
pub mod memory;
pub mod topology;

use crate::configuration::KubeletConfiguration;
use crate::context::Context;
use crate::pod::{PodExt, is_sidecar};
use crate::qos;
use api::k8s::core::v1::{Container, Pod};
use cpu::CpuManager;
use cpuset::CpuSet;
use machine_topology::Topology;
use memory::MemoryManager;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use topology::{Hint, Hints, Policy};

/// Text of a pod that cannot be aligned.
const AFFINITY: &str = "Resources cannot be allocated with Topology locality";

/// The managers of a node.
pub struct ResourceManagers {
    policy: Policy,
    pod_scope: bool,
    nodes: Vec<u32>,
    cpu: Option<Mutex<CpuManager>>,
    memory: Option<Mutex<MemoryManager>>,
    /// What was agreed on, by pod and container.
    affinities: Mutex<BTreeMap<String, BTreeMap<String, topology::Mask>>>,
    /// `cpu_manager_state`
    state: PathBuf,
}

/// Whose wishes are merged with ours: devices.
pub trait HintProvider: Send + Sync {
    /// Wishes for a container of a pod on a machine with these NUMA nodes.
    fn hints(&self, pod: &Pod, container: &Container, nodes: &[u32]) -> Hints;
    /// Keeps what a container was admitted with from those who are admitted after it.
    fn set_aside(&self, pod: &Pod, container: &Container, nodes: Option<topology::Mask>);
    /// Takes back what was set aside for a pod.
    fn give_up(&self, pod: &Pod);
}

impl ResourceManagers {
    /// Makes the managers that the configuration asks for, with what an earlier kubelet set aside.
    pub fn new(settings: &KubeletConfiguration, root_dir: &Path) -> Self {
        let topology = Topology::read();
        let state = root_dir.join("cpu_manager_state");
        let cpu = (settings.cpu_manager_policy == "static").then(|| {
            let mut manager =
                CpuManager::new(topology.clone(), reserved(settings, &topology), &settings.cpu_manager_policy_options);
            restore(&mut manager, &state);
            Mutex::new(manager)
        });
        let memory = (settings.memory_manager_policy == "Static").then(|| {
            let of = |r: &crate::configuration::MemoryReservation| {
                let bytes = r.limits.get("memory").and_then(|t| api::quantity::Quantity::parse(t).ok());
                (r.numa_node, bytes.and_then(|q| u64::try_from(q.value()).ok()).unwrap_or(0))
            };
            let reserved: BTreeMap<u32, u64> = settings.reserved_memory.iter().map(of).collect();
            Mutex::new(MemoryManager::new(&topology.memory, &reserved))
        });
        Self {
            policy: Policy::of(&settings.topology_manager_policy),
            pod_scope: settings.topology_manager_scope == "pod",
            nodes: topology.nodes(),
            cpu,
            memory,
            affinities: Mutex::default(),
            state,
        }
    }

    /// Sets aside what a pod gets alone; the error is reason and message of its rejection.
    pub fn allocate(&self, pod: &Pod, others: &[&dyn HintProvider]) -> Result<(), (String, String)> {
        if self.cpu.is_none() && self.memory.is_none() && self.policy == Policy::None {
            return Ok(());
        }
        let result = self.allocate_all(pod, others);
        if result.is_err() {
            self.release(pod.uid());
            others.iter().for_each(|other| other.give_up(pod));
        }
        self.save();
        result
    }

    fn allocate_all(&self, pod: &Pod, others: &[&dyn HintProvider]) -> Result<(), (String, String)> {
        let spec = pod.spec();
        let containers: Vec<&Container> = spec.init_containers.iter().flatten().chain(&spec.containers).collect();
        let of_pod = self.pod_scope.then(|| {
            let all: Vec<Hints> = containers.iter().flat_map(|c| self.wishes(pod, c, others)).collect();
            self.policy.merge(&all, &self.nodes)
        });
        for container in containers {
            let (hint, admitted) =
                of_pod.unwrap_or_else(|| self.policy.merge(&self.wishes(pod, container, others), &self.nodes));
            if !admitted {
                return Err(("TopologyAffinityError".into(), AFFINITY.into()));
            }
            let unexpected = |why: String| {
                ("UnexpectedAdmissionError".to_owned(), format!("Allocate failed due to {why}, which is unexpected"))
            };
            if let Some(nodes) = hint.nodes {
                let mut known = self.affinities.lock();
                known.entry(pod.uid().to_owned()).or_default().insert(container.name.clone(), nodes);
            }
            others.iter().for_each(|other| other.set_aside(pod, container, hint.nodes));
            self.allocate_one(pod, container, hint).map_err(|why| match why.starts_with("SMT Alignment") {
                true => ("SMTAlignmentError".to_owned(), why),
                false => unexpected(why),
            })?;
        }
        Ok(())
    }

    fn wishes(&self, pod: &Pod, container: &Container, others: &[&dyn HintProvider]) -> Vec<Hints> {
        let mut all: Vec<Hints> = others.iter().map(|o| o.hints(pod, container, &self.nodes)).collect();
        if let (Some(cpu), Some(amount)) = (&self.cpu, exclusive_cpus(pod, container)) {
            all.push([("cpu".to_owned(), Some(cpu.lock().hints(amount)))].into());
        }
        if let (Some(memory), Some(bytes)) = (&self.memory, exclusive_memory(pod, container)) {
            all.push([("memory".to_owned(), Some(memory.lock().hints(bytes)))].into());
        }
        all
    }

    fn allocate_one(&self, pod: &Pod, container: &Container, hint: Hint) -> Result<(), String> {
        if let (Some(cpu), Some(amount)) = (&self.cpu, exclusive_cpus(pod, container)) {
            cpu.lock().allocate(pod.uid(), &container.name, amount, hint.nodes)?;
        }
        if let (Some(memory), Some(bytes)) = (&self.memory, exclusive_memory(pod, container)) {
            memory.lock().allocate(pod.uid(), &container.name, bytes, hint.nodes)?;
        }
        Ok(())
    }

    /// Takes everything of a pod back; whether the shared CPUs changed.
    pub fn release(&self, pod_uid: &str) -> bool {
        self.affinities.lock().remove(pod_uid);
        if let Some(memory) = &self.memory {
            memory.lock().release(pod_uid);
        }
        let changed = self.cpu.as_ref().is_some_and(|cpu| cpu.lock().release(pod_uid));
        if changed {
            self.save();
        }
        changed
    }

    /// Takes everything back of pods that are no more.
    pub fn retain(&self, present: &[Arc<Pod>]) {
        let gone = self.cpu.as_ref().map(|cpu| cpu.lock().pods()).unwrap_or_default();
        for uid in gone.into_iter().filter(|uid| !present.iter().any(|p| p.uid() == uid)) {
            self.release(&uid);
        }
    }

    /// CPU list and memory nodes of a container; empty where the kernel's default stays.
    pub fn lists(&self, pod_uid: &str, container: &str) -> (String, String) {
        let cpus = self.cpu.as_ref().map(|cpu| {
            let cpu = cpu.lock();
            cpu.exclusive(pod_uid, container).cloned().unwrap_or_else(|| cpu.shared()).to_string()
        });
        let nodes = self.memory.as_ref().and_then(|m| m.lock().nodes(pod_uid, container)).map(|n| n.to_string());
        (cpus.unwrap_or_default(), nodes.unwrap_or_default())
    }

    /// CPUs a container has alone.
    pub fn exclusive(&self, pod_uid: &str, container: &str) -> Option<CpuSet> {
        self.cpu.as_ref()?.lock().exclusive(pod_uid, container).cloned()
    }

    /// CPUs that pods may have alone; `None`: nobody gives CPUs away.
    pub fn allocatable_cpus(&self) -> Option<CpuSet> {
        Some(self.cpu.as_ref()?.lock().allocatable())
    }

    /// Memory of a container by NUMA node.
    pub fn memory_of(&self, pod_uid: &str, container: &str) -> BTreeMap<u32, u64> {
        self.memory.as_ref().map(|m| m.lock().blocks(pod_uid, container)).unwrap_or_default()
    }

    /// Memory for pods by NUMA node.
    pub fn allocatable_memory(&self) -> BTreeMap<u32, u64> {
        self.memory.as_ref().map(|m| m.lock().allocatable().clone()).unwrap_or_default()
    }

    /// The NUMA nodes on which a container's devices are to be.
    pub fn affinity(&self, pod_uid: &str, container: &str) -> Option<topology::Mask> {
        self.affinities.lock().get(pod_uid)?.get(container).copied()
    }

    /// Brings the cgroups of running containers in line with the CPUs that are shared now.
    pub async fn apply_shared(&self, ctx: &Context) {
        let Some(cpu) = &self.cpu else { return };
        let shared = cpu.lock().shared().to_string();
        let Ok(containers) = ctx.config.runtime.list_containers().await else { return };
        for container in containers.into_iter().filter(|c| c.state == cri::ContainerState::Running) {
            let uid = container.labels.get(crate::state::label::POD_UID).cloned().unwrap_or_default();
            let alone = self.exclusive(&uid, &container.metadata.name).is_some();
            if alone || container.resources.cpuset_cpus == shared {
                continue;
            }
            let change = cri::LinuxContainerResources { cpuset_cpus: shared.clone(), ..Default::default() };
            if let Err(error) = ctx.config.runtime.update_container_resources(&container.id, change).await {
                tracing::warn!(container = container.id, %error, "cannot change the shared CPUs of a container");
            }
        }
    }

    fn save(&self) {
        let Some(cpu) = &self.cpu else { return };
        let text = serde_json::to_string(&cpu.lock().checkpoint()).unwrap_or_default();
        let temporary = self.state.with_extension("tmp");
        let written = std::fs::create_dir_all(self.state.parent().unwrap_or(Path::new("/")))
            .and_then(|()| std::fs::write(&temporary, text))
            .and_then(|()| std::fs::rename(&temporary, &self.state));
        if let Err(error) = written {
            tracing::error!(path = %self.state.display(), %error, "cannot write the CPU manager's state");
        }
    }
}

fn restore(manager: &mut CpuManager, state: &Path) {
    let Ok(text) = std::fs::read_to_string(state) else { return };
    let restored = serde_json::from_str(&text).map_err(|e| e.to_string()).and_then(|c| manager.restore(c));
    if let Err(why) = restored {
        tracing::error!(path = %state.display(), why, "cannot take up the CPU manager's state; CPUs are given out anew");
    }
}

/// CPUs kept from exclusive use: the list, or as many as are reserved by amount.
fn reserved(settings: &KubeletConfiguration, topology: &Topology) -> CpuSet {
    if let Ok(list) = settings.reserved_system_cpus.parse::<CpuSet>()
        && !list.is_empty()
    {
        return list;
    }
    let milli = |list: &crate::configuration::Strings| {
        list.get("cpu").and_then(|t| api::quantity::Quantity::parse(t).ok()).map_or(0, |q| q.milli_value())
    };
    let wanted = milli(&settings.kube_reserved) + milli(&settings.system_reserved);
    let count = usize::try_from(wanted.div_euclid(1000) + i64::from(wanted % 1000 > 0)).unwrap_or(0);
    topology.all().iter().take(count).collect()
}

/// Whole CPUs a container of a Guaranteed pod asks for; `None`: it shares.
fn exclusive_cpus(pod: &Pod, container: &Container) -> Option<usize> {
    let milli = exclusive(pod, container, "cpu")?.milli_value();
    (milli % 1000 == 0).then(|| usize::try_from(milli / 1000).ok()).flatten()
}

fn exclusive_memory(pod: &Pod, container: &Container) -> Option<u64> {
    u64::try_from(exclusive(pod, container, "memory")?.value()).ok()
}

fn exclusive(pod: &Pod, container: &Container, resource: &str) -> Option<api::quantity::Quantity> {
    let regular = pod.spec().containers.iter().any(|c| c.name == container.name);
    if qos::class(pod) != "Guaranteed" || !(regular || is_sidecar(container)) {
        return None;
    }
    let list = container.resources.as_ref()?;
    let amounts = list.requests.as_ref().filter(|r| r.contains_key(resource)).or(list.limits.as_ref())?;
    api::quantity::Quantity::parse(&amounts.get(resource)?.0).ok().filter(|q| q.sign() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str, uid: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": uid}, "spec": {"containers": [
            {"name": "c", "resources": {"limits": {"cpu": cpu, "memory": "1Mi"}}}]}}))
        .expect("pod")
    }

    fn managers(dir: &Path, policy: &str) -> ResourceManagers {
        let text = format!("cpuManagerPolicy: static\nmemoryManagerPolicy: Static\ntopologyManagerPolicy: {policy}\n");
        let topology = machine_topology::tests::two_nodes();
        let mut made = ResourceManagers::new(&KubeletConfiguration::parse(&text).expect("settings"), dir);
        let mut cpu = CpuManager::new(topology.clone(), CpuSet::default(), &Default::default());
        restore(&mut cpu, &made.state);
        made.cpu = Some(Mutex::new(cpu));
        made.memory = Some(Mutex::new(MemoryManager::new(&topology.memory, &BTreeMap::new())));
        made.nodes = topology.nodes();
        made
    }

    #[test]
    fn whole_cpus_of_guaranteed_pods_are_exclusive() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = managers(dir.path(), "single-numa-node");
        first.allocate(&pod("2", "a"), &[]).expect("admitted");
        first.allocate(&pod("1500m", "b"), &[]).expect("admitted");
        assert_eq!(first.lists("a", "c"), ("0-1".into(), "0".into()));
        assert_eq!(first.lists("b", "c").0, "2-15", "a part of a CPU is shared");
        let rejected = first.allocate(&pod("12", "d"), &[]).expect_err("no node has twelve");
        assert_eq!(rejected, ("TopologyAffinityError".into(), AFFINITY.into()));
        let second = managers(dir.path(), "none");
        assert_eq!(second.lists("a", "c").0, "0-1", "after a restart");
        assert!(second.release("a") && second.exclusive("a", "c").is_none());
    }
}
