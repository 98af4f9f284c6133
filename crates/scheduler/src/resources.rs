//! Amounts of resources: what pods request and nodes have.

use api::k8s::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements};
use api::machinery::api::resource::Quantity as ApiQuantity;
use api::quantity::Quantity;
use std::collections::BTreeMap;

/// What a container without a request counts as when nodes are compared (not when they are filtered).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of the resources that are scheduled by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list; what cannot be parsed (the server has validated it) counts as 0.
    pub fn of(list: Option<&BTreeMap<String, ApiQuantity>>) -> Self {
        let mut out = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let Ok(quantity) = Quantity::parse(&quantity.0) else { continue };
            match name.as_str() {
                "cpu" => out.milli_cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => drop(out.scalar.insert(name.clone(), quantity.value())),
            }
        }
        out
    }

    pub fn add(&mut self, other: &Self) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() += amount;
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() -= amount;
        }
    }

    /// Whether there is more of anything than in `other`.
    pub fn exceeds(&self, other: &Self) -> bool {
        self.milli_cpu > other.milli_cpu
            || self.memory > other.memory
            || self.ephemeral_storage > other.ephemeral_storage
            || self.scalar.iter().any(|(name, amount)| *amount > other.scalar.get(name).copied().unwrap_or(0))
    }

    fn max(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let entry = self.scalar.entry(name.clone()).or_default();
            *entry = (*entry).max(*amount);
        }
    }

    /// Takes amounts from those given where a pod-level list names them.
    fn replace(&mut self, list: &BTreeMap<String, ApiQuantity>, given: &Self) {
        for name in list.keys() {
            match name.as_str() {
                "cpu" => self.milli_cpu = given.milli_cpu,
                "memory" => self.memory = given.memory,
                other => {
                    if let Some(amount) = given.scalar.get(other) {
                        self.scalar.insert(other.to_owned(), *amount);
                    }
                }
            }
        }
    }
}

/// What a pod requests, and the same with defaults for containers that request no CPU or memory. Of a container that
/// is being resized the node holds what it had until the kubelet has done it (KEP-1287).
pub(crate) fn requests(pod: &Pod) -> (Resources, Resources) {
    let Some(spec) = &pod.spec else { return Default::default() };
    let held = Held::of(pod);
    (total(spec, &held, false), total(spec, &held, true))
}

/// What the kubelet holds for a pod as a whole, and for its containers by their names.
struct Held<'a> {
    pod: Option<&'a PodStatus>,
    statuses: BTreeMap<&'a str, &'a ContainerStatus>,
    /// The node can never do what the spec asks for.
    infeasible: bool,
}

impl<'a> Held<'a> {
    fn of(pod: &'a Pod) -> Self {
        let status = pod.status.as_ref();
        let lists = |s: &'a PodStatus| [&s.container_statuses, &s.init_container_statuses];
        let all = status.into_iter().flat_map(lists).flatten().flatten();
        let mut conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
        let pending = conditions.find(|c| c.type_ == "PodResizePending");
        Self {
            pod: status,
            statuses: all.map(|status| (status.name.as_str(), status)).collect(),
            infeasible: pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible")),
        }
    }

    /// A container's requests, given those of its spec.
    fn with(&self, name: &str, spec: Resources) -> Resources {
        let Some(status) = self.statuses.get(name) else { return spec };
        self.effective(spec, status.resources.as_ref(), status.allocated_resources.as_ref())
    }

    /// The pod's own requests, given those of its spec (KEP-5419).
    fn with_pod(&self, spec: Resources) -> Resources {
        match self.pod.filter(|status| status.resources.is_some()) {
            Some(status) => self.effective(spec, status.resources.as_ref(), status.allocated_resources.as_ref()),
            None => spec,
        }
    }

    fn effective(
        &self,
        spec: Resources,
        actual: Option<&ResourceRequirements>,
        allocated: Option<&BTreeMap<String, ApiQuantity>>,
    ) -> Resources {
        let mut out = if self.infeasible && actual.is_some() { Resources::default() } else { spec };
        for list in [actual.and_then(requested), allocated] {
            out.max(&Resources::of(list));
        }
        out
    }
}

fn total(spec: &PodSpec, held: &Held<'_>, defaults: bool) -> Resources {
    let container = |c: &Container| container(c, held, defaults);
    let mut sum = Resources::default();
    spec.containers.iter().for_each(|c| sum.add(&container(c)));
    // Init containers run one by one beside the sidecars started before them.
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for init in spec.init_containers.iter().flatten() {
        let own = container(init);
        if init.restart_policy.as_deref() == Some("Always") {
            sum.add(&own);
            sidecars.add(&own);
            peak.max(&sidecars);
        } else {
            let mut during = own;
            during.add(&sidecars);
            peak.max(&during);
        }
    }
    sum.max(&peak);
    if let Some(list) = spec.resources.as_ref().and_then(requested) {
        sum.replace(list, &held.with_pod(Resources::of(Some(list))));
    }
    sum.add(&Resources::of(spec.overhead.as_ref()));
    sum
}

fn requested(resources: &ResourceRequirements) -> Option<&BTreeMap<String, ApiQuantity>> {
    resources.requests.as_ref()
}

fn container(container: &Container, held: &Held<'_>, defaults: bool) -> Resources {
    let list = container.resources.as_ref().and_then(requested);
    let mut out = held.with(&container.name, Resources::of(list));
    if defaults {
        let has = |name: &str| list.is_some_and(|l| l.contains_key(name));
        if !has("cpu") {
            out.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !has("memory") {
            out.memory = DEFAULT_MEMORY;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn init_containers_and_sidecars_count_as_they_run() {
        let cpu = |n: &str, sidecar: bool| {
            let mut c = json!({"name": "c", "resources": {"requests": {"cpu": n}}});
            if sidecar {
                c["restartPolicy"] = "Always".into();
            }
            c
        };
        let check = |init: Vec<Value>, main: Vec<Value>, want: i64| {
            let pod = json!({"spec": {"containers": main, "initContainers": init}});
            assert_eq!(requests(&serde_json::from_value(pod).expect("pod")).0.milli_cpu, want);
        };
        check(vec![], vec![cpu("1", false), cpu("2", false)], 3000);
        check(vec![cpu("5", false)], vec![cpu("1", false)], 5000);
        check(vec![cpu("1", true), cpu("5", false)], vec![cpu("1", false)], 6000);
        check(vec![cpu("1", true)], vec![cpu("3", false)], 4000);
    }

    #[test]
    fn a_pod_that_grows_holds_what_its_spec_asks_for_and_one_that_shrinks_what_it_had() {
        let check = |spec: &str, allocated: &str, want: i64| {
            let pod = json!({
                "spec": {"containers": [], "resources": {"requests": {"cpu": spec}}},
                "status": {"resources": {"requests": {"cpu": allocated}}, "allocatedResources": {"cpu": allocated}},
            });
            assert_eq!(requests(&serde_json::from_value(pod).expect("pod")).0.milli_cpu, want);
        };
        check("2", "1", 2000);
        check("1", "2", 2000);
    }

    #[test]
    fn a_resize_counts_what_is_held() {
        let check = |spec: &str, allocated: &str, actual: &str, reason: &str, want: i64| {
            let list = |cpu: &str| json!({"requests": {"cpu": cpu}});
            let pod = json!({
                "spec": {"containers": [{"name": "c", "resources": list(spec)}]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                        "allocatedResources": {"cpu": allocated}, "resources": list(actual)}],
                },
            });
            assert_eq!(requests(&serde_json::from_value(pod).expect("pod")).0.milli_cpu, want);
        };
        check("1", "3", "3", "Deferred", 3000);
        check("1", "1", "3", "Deferred", 3000);
        check("1", "1", "1", "Deferred", 1000);
        check("5", "2", "2", "Deferred", 5000);
        check("5", "2", "2", "Infeasible", 2000);
    }
}
