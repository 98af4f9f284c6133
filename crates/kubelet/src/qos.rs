//! Resources of a pod and what follows from them: QoS class, cgroups, shares, quotas, OOM scores.

use crate::configuration::KubeletConfiguration;
use crate::pod::{PodExt, is_sidecar};
use api::k8s::core::v1::{Container, Pod, ResourceRequirements};
use api::machinery::api::resource::Quantity as ApiQuantity;
use api::quantity::{Format, Quantity};
use cri::LinuxContainerResources;
use std::collections::BTreeMap;

/// Amounts by resource name.
pub type Resources = BTreeMap<String, Quantity>;

const QUOTA_PERIOD: i64 = 100_000;

/// Parses the amounts of a resource list; unreadable ones (validation lets none pass) count as absent.
pub fn parse(list: Option<&BTreeMap<String, ApiQuantity>>) -> Resources {
    list.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), Quantity::parse(&v.0).ok()?))).collect()
}

fn requests(container: &Container) -> Resources {
    let resources = container.resources.clone().unwrap_or_default();
    let mut out = parse(resources.limits.as_ref());
    out.retain(|name, _| !resources.requests.as_ref().is_some_and(|r| r.contains_key(name)));
    out.extend(parse(resources.requests.as_ref()));
    out
}

fn limits(container: &Container) -> Resources {
    parse(container.resources.as_ref().and_then(|r| r.limits.as_ref()))
}

fn add(into: &mut Resources, from: &Resources) {
    for (name, amount) in from {
        into.entry(name.clone()).and_modify(|v| *v = v.plus(amount)).or_insert(*amount);
    }
}

fn max(into: &mut Resources, from: &Resources) {
    for (name, amount) in from {
        into.entry(name.clone()).and_modify(|v| *v = (*v).max(*amount)).or_insert(*amount);
    }
}

/// What a pod needs at most: the sum of its containers and sidecars, or more while an init container runs.
fn aggregate(
    pod: &Pod,
    of: impl Fn(&Container) -> Resources,
    level: impl Fn(&ResourceRequirements) -> Resources,
) -> Resources {
    let spec = pod.spec();
    let (mut sum, mut sidecars, mut init) = (Resources::new(), Resources::new(), Resources::new());
    spec.containers.iter().for_each(|c| add(&mut sum, &of(c)));
    for container in spec.init_containers.iter().flatten() {
        let mut here = of(container);
        if is_sidecar(container) {
            add(&mut sum, &here);
            add(&mut sidecars, &here);
            here = sidecars.clone();
        } else {
            add(&mut here, &sidecars);
        }
        max(&mut init, &here);
    }
    max(&mut sum, &init);
    if let Some(resources) = &spec.resources {
        sum.extend(level(resources));
    }
    add(&mut sum, &parse(spec.overhead.as_ref()));
    sum
}

/// Requests of the whole pod.
pub fn pod_requests(pod: &Pod) -> Resources {
    aggregate(pod, requests, |r| parse(r.requests.as_ref()))
}

/// Limits of the whole pod; a resource is limited only where every container limits it or the pod does.
pub fn pod_limits(pod: &Pod) -> Resources {
    let all = aggregate(pod, limits, |r| parse(r.limits.as_ref()));
    let spec = pod.spec();
    let own = parse(spec.resources.as_ref().and_then(|r| r.limits.as_ref()));
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let containers: Vec<Resources> = spec.containers.iter().chain(sidecars).map(limits).collect();
    let declared = |name: &String| own.contains_key(name) || containers.iter().all(|c| c.contains_key(name));
    all.into_iter().filter(|(name, _)| declared(name)).collect()
}

/// The limits of a pod as a sum, whether or not every container has one; a limit of the pod itself goes first.
pub fn sum_of_limits(pod: &Pod) -> Resources {
    aggregate(pod, limits, |r| parse(r.limits.as_ref()))
}

/// Bytes of memory a container may use.
pub fn memory_limit(container: &Container) -> Option<u64> {
    limits(container).get("memory").and_then(|q| u64::try_from(q.value()).ok()).filter(|b| *b > 0)
}

/// What of the node a container's limits follow from.
pub struct Node<'a> {
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of swap.
    pub swap: u64,
    /// Bytes of memory for pods.
    pub allocatable_memory: i64,
    /// Sizes of huge pages, `2MB`.
    pub page_sizes: Vec<String>,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// What the operator set.
    pub settings: &'a KubeletConfiguration,
}

/// The kernel's name of a page size of the API, `2MB` for `hugepages-2Mi`.
pub fn page_size(resource: &str) -> String {
    resource.trim_start_matches("hugepages-").replace('i', "B")
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Pod) -> &'static str {
    if let Some(written) = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        for known in ["Guaranteed", "Burstable", "BestEffort"] {
            if written == known {
                return known;
            }
        }
    }
    let spec = pod.spec();
    let containers: Vec<(Resources, Resources)> =
        match spec.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some()) {
            Some(own) => vec![(parse(own.requests.as_ref()), parse(own.limits.as_ref()))],
            None => spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
                .map(|c| (requests(c), limits(c)))
                .collect(),
        };
    let positive = |r: &Resources, name: &str| r.get(name).filter(|q| q.sign() > 0).copied();
    const NAMES: [&str; 2] = ["cpu", "memory"];
    if containers.iter().all(|(r, l)| NAMES.iter().all(|n| positive(r, n).is_none() && positive(l, n).is_none())) {
        return "BestEffort";
    }
    let guaranteed = |(r, l): &(Resources, Resources)| {
        NAMES.iter().all(|n| positive(l, n).is_some() && positive(r, n) == positive(l, n))
    };
    if containers.iter().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

/// The pod's cgroup relative to the node's root.
pub fn pod_cgroup(pod: &Pod) -> String {
    match class(pod) {
        "Guaranteed" => format!("/kubepods/pod{}", pod.uid()),
        class => format!("/kubepods/{}/pod{}", class.to_lowercase(), pod.uid()),
    }
}

/// CFS shares for thousandths of a CPU.
pub fn cpu_shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// Limits of the pod's cgroup.
pub fn pod_cgroup_resources(pod: &Pod, node: &Node<'_>) -> LinuxContainerResources {
    let (requests, limits) = (pod_requests(pod), pod_limits(pod));
    let mut out = LinuxContainerResources { cpu_shares: 2, ..LinuxContainerResources::default() };
    if node.settings.pod_pids_limit > 0 {
        out.pids_limit = node.settings.pod_pids_limit;
    }
    if class(pod) == "BestEffort" {
        return out;
    }
    out.cpu_shares = cpu_shares(requests.get("cpu").map_or(0, Quantity::milli_value));
    apply_limits(&mut out, &limits, node);
    memory_qos(&mut out, pod, requests.get("memory").map_or(0, Quantity::value), None, node);
    out
}

fn apply_limits(out: &mut LinuxContainerResources, limits: &Resources, node: &Node<'_>) {
    let period = i64::try_from(node.settings.cpu_cfs_quota_period.as_micros()).unwrap_or(QUOTA_PERIOD);
    if let Some(cpu) = limits.get("cpu").filter(|q| q.sign() > 0 && node.settings.cpu_cfs_quota) {
        let quota = cpu.milli_value().saturating_mul(period) / 1000;
        (out.cpu_period, out.cpu_quota) = (period, quota.max(1000));
    }
    if let Some(memory) = limits.get("memory").filter(|q| q.sign() > 0) {
        out.memory_limit_in_bytes = memory.value();
    }
    // Pages of a size that the pod does not ask for are none.
    for size in &node.page_sizes {
        let wanted = limits.iter().find(|(name, _)| name.starts_with("hugepages-") && page_size(name) == *size);
        out.hugepage_limits.push((size.clone(), wanted.and_then(|(_, q)| u64::try_from(q.value()).ok()).unwrap_or(0)));
    }
}

/// memory.min, low and high of cgroup v2, behind the gate `MemoryQoS` (KEP-2570). `limit`: of a container.
fn memory_qos(out: &mut LinuxContainerResources, pod: &Pod, request: i64, limit: Option<i64>, node: &Node<'_>) {
    if node.cgroup_version < 2 || !node.settings.feature_gates.get("MemoryQoS").copied().unwrap_or(false) {
        return;
    }
    if request > 0 {
        let file = if class(pod) == "Guaranteed" { "memory.min" } else { "memory.low" };
        out.unified.insert(file.into(), request.to_string());
    }
    let Some(limit) = limit.filter(|l| *l != request) else { return };
    const PAGE: i64 = 4096;
    let most = if limit > 0 { limit } else { node.allocatable_memory };
    let factor = node.settings.memory_throttling_factor.unwrap_or(0.9);
    let high = request + ((most - request) as f64 * factor) as i64;
    let high = high / PAGE * PAGE;
    if high > request {
        out.unified.insert("memory.high".into(), high.to_string());
    }
}

/// Limits of one container's cgroup.
pub fn container_resources(pod: &Pod, container: &Container, node: &Node<'_>) -> LinuxContainerResources {
    let (requests, mut limits) = (requests(container), limits(container));
    let of_pod = parse(pod.spec().resources.as_ref().and_then(|r| r.limits.as_ref()));
    for name in ["cpu", "memory"] {
        // A container without a limit of its own may use what its pod may (KEP-2837).
        if let Some(amount) = of_pod.get(name).filter(|_| limits.get(name).is_none_or(|q| q.sign() == 0)) {
            limits.insert(name.into(), *amount);
        }
    }
    // What is limited and not asked for is asked for, a limit that the pod has too.
    let milli = requests.get("cpu").or(limits.get("cpu")).map_or(0, Quantity::milli_value);
    let mut out = LinuxContainerResources { cpu_shares: cpu_shares(milli), ..LinuxContainerResources::default() };
    apply_limits(&mut out, &limits, node);
    swap(&mut out, pod, &requests, node);
    if node.cgroup_version >= 2 && !node.settings.single_process_oom_kill.unwrap_or(false) {
        // Out of memory, a container ends as a whole.
        out.unified.insert("memory.oom.group".into(), "1".into());
    }
    out.oom_score_adj = oom_score_adj(pod, container, node.memory);
    let own = requests.get("memory").map_or(0, Quantity::value);
    memory_qos(
        &mut out,
        pod,
        own,
        Some(memory_limit(container).and_then(|b| i64::try_from(b).ok()).unwrap_or(0)),
        node,
    );
    out
}

/// Swap of a container: none, or with `LimitedSwap` a burstable one's share of it (KEP-2400).
fn swap(out: &mut LinuxContainerResources, pod: &Pod, requests: &Resources, node: &Node<'_>) {
    // Memory and swap together may not exceed the memory limit.
    out.memory_swap_limit_in_bytes = out.memory_limit_in_bytes;
    if node.cgroup_version < 2 || node.swap == 0 {
        return;
    }
    let request = requests.get("memory").map_or(0, Quantity::value);
    let limited = node.settings.memory_swap.swap_behavior == "LimitedSwap"
        && class(pod) == "Burstable"
        && !crate::pod::is_critical(pod)
        && request > 0
        && request != out.memory_limit_in_bytes;
    let share = if limited { (request as f64 / node.memory.max(1) as f64 * node.swap as f64) as i64 } else { 0 };
    if out.memory_limit_in_bytes > 0 {
        out.memory_swap_limit_in_bytes += share;
    } else {
        out.unified.insert("memory.swap.max".into(), share.to_string());
    }
}

/// How soon the kernel kills a container when memory runs out (upstream's heuristic).
fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    let critical =
        crate::pod::is_critical(pod) && pod.spec().priority_class_name.as_deref() == Some("system-node-critical");
    match class(pod) {
        _ if critical => -997,
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => burstable_score(pod, container, memory_capacity),
    }
}

fn burstable_score(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    let request = |c: &Container| i128::from(requests(c).get("memory").map_or(0, Quantity::value));
    let spec = pod.spec();
    let own = parse(spec.resources.as_ref().and_then(|r| r.requests.as_ref())).get("memory").map(Quantity::value);
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let all: Vec<&Container> = spec.containers.iter().chain(sidecars).collect();
    // What the pod requests beyond its containers is shared out evenly.
    let rest = own.map_or(0, |own| {
        (i128::from(own) - all.iter().map(|c| request(c)).sum::<i128>()).max(0) / all.len().max(1) as i128
    });
    let score = |bytes: i128| 1000 - 1000 * bytes / i128::from(memory_capacity.max(1));
    let mut adjust = score(request(container) + rest);
    if is_sidecar(container) {
        // A sidecar does not go before the containers it is there for.
        let least = spec.containers.iter().map(request).min().unwrap_or(0);
        adjust = adjust.min(score(least + rest));
    }
    // A burstable container never scores as low as a guaranteed or as high as a best-effort one.
    i64::try_from(adjust).unwrap_or(3).clamp(3, 999)
}

/// Whole megabytes and the like as the API prints memory: bytes in Ki.
pub fn kibibytes(bytes: u64) -> ApiQuantity {
    let units = i64::try_from(bytes / 1024 * 1024).unwrap_or(i64::MAX);
    let text = Quantity::from_units(units, Format::BinarySi).to_string();
    ApiQuantity(if bytes < 1024 {
        "0".into()
    } else if text.ends_with("Ki") {
        text
    } else {
        format!("{}Ki", bytes / 1024)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: serde_json::Value, init: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"uid": "u"}, "spec": {"containers": containers, "initContainers": init}}),
        )
        .expect("pod")
    }

    #[test]
    fn classes() {
        let check = |containers, expect: &str| assert_eq!(class(&pod(containers, json!([]))), expect);
        check(json!([{"name": "a"}]), "BestEffort");
        check(json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]), "Burstable");
        check(json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]), "Guaranteed");
        check(
            json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {"name": "b"}]),
            "Burstable",
        );
    }

    #[test]
    fn init_containers_raise_the_sum() {
        let pod = pod(
            json!([{"name": "a", "resources": {"requests": {"cpu": "100m"}}}]),
            json!([{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                   {"name": "i", "resources": {"requests": {"cpu": "300m"}}}]),
        );
        assert_eq!(pod_requests(&pod)["cpu"].milli_value(), 350);
    }

    fn node(settings: &KubeletConfiguration) -> Node<'_> {
        let page_sizes = vec!["2MB".to_owned()];
        Node { memory: 1 << 34, swap: 1 << 30, allocatable_memory: 1 << 33, page_sizes, cgroup_version: 2, settings }
    }

    #[test]
    fn swap_and_memory_qos() {
        let text = "memorySwap: {swapBehavior: LimitedSwap}\nfeatureGates: {MemoryQoS: true}\npodPidsLimit: 50\n";
        let settings = KubeletConfiguration::parse(text).expect("settings");
        let burstable = pod(json!([{"name": "a", "resources": {"requests": {"memory": "1Gi"}}}]), json!([]));
        let got = container_resources(&burstable, &burstable.spec().containers[0], &node(&settings));
        assert_eq!(got.unified["memory.swap.max"], ((1 << 30) / 16).to_string(), "a sixteenth of memory, and of swap");
        assert_eq!(got.unified["memory.low"], (1 << 30).to_string());
        assert_eq!(
            got.unified["memory.high"],
            "7838315315".parse::<i64>().map(|n| (n / 4096 * 4096).to_string()).expect("number")
        );
        assert_eq!(pod_cgroup_resources(&burstable, &node(&settings)).pids_limit, 50);
        let defaults = KubeletConfiguration::default();
        let got = container_resources(&burstable, &burstable.spec().containers[0], &node(&defaults));
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(got.unified, [of("memory.oom.group", "1"), of("memory.swap.max", "0")].into());
        let single = KubeletConfiguration { single_process_oom_kill: Some(true), ..KubeletConfiguration::default() };
        let got = container_resources(&burstable, &burstable.spec().containers[0], &node(&single));
        assert_eq!(got.unified, [of("memory.swap.max", "0")].into());
    }

    #[test]
    fn limits_of_the_pod_reach_its_containers() {
        let value = json!({"metadata": {"uid": "u"}, "spec": {"resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
            "containers": [{"name": "a", "resources": {"limits": {"memory": "1Mi"}}}]}});
        let pod: Pod = serde_json::from_value(value).expect("pod");
        let defaults = KubeletConfiguration::default();
        let got = container_resources(&pod, &pod.spec().containers[0], &node(&defaults));
        assert_eq!((got.cpu_quota, got.memory_limit_in_bytes), (200_000, 1 << 20));
        assert_eq!(got.hugepage_limits, [("2MB".to_owned(), 0)]);
    }

    #[test]
    fn cgroup_numbers() {
        let defaults = KubeletConfiguration::default();
        let pod = pod(json!([{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]), json!([]));
        let resources = pod_cgroup_resources(&pod, &node(&defaults));
        assert_eq!(
            (resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes),
            (512, 50_000, 1 << 30)
        );
        assert_eq!(pod_cgroup(&pod), "/kubepods/podu");
        assert_eq!(container_resources(&pod, &pod.spec().containers[0], &node(&defaults)).oom_score_adj, -997);
    }
}
