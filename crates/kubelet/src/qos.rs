//! Resources of a pod and what follows from them: QoS class, cgroups, shares, quotas, OOM scores.

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

fn cpu_quota(milli: i64) -> i64 {
    (milli.saturating_mul(QUOTA_PERIOD) / 1000).max(1000)
}

/// Limits of the pod's cgroup.
pub fn pod_cgroup_resources(pod: &Pod) -> LinuxContainerResources {
    let (requests, limits) = (pod_requests(pod), pod_limits(pod));
    let mut out = LinuxContainerResources { cpu_shares: 2, ..LinuxContainerResources::default() };
    if class(pod) == "BestEffort" {
        return out;
    }
    out.cpu_shares = cpu_shares(requests.get("cpu").map_or(0, Quantity::milli_value));
    apply_limits(&mut out, &limits);
    out
}

fn apply_limits(out: &mut LinuxContainerResources, limits: &Resources) {
    if let Some(cpu) = limits.get("cpu").filter(|q| q.sign() > 0) {
        (out.cpu_period, out.cpu_quota) = (QUOTA_PERIOD, cpu_quota(cpu.milli_value()));
    }
    if let Some(memory) = limits.get("memory").filter(|q| q.sign() > 0) {
        out.memory_limit_in_bytes = memory.value();
    }
    for (name, amount) in limits {
        let Some(page) = name.strip_prefix("hugepages-") else { continue };
        out.hugepage_limits.push((page.replace('i', "B"), u64::try_from(amount.value()).unwrap_or(0)));
    }
}

/// Limits of one container's cgroup.
pub fn container_resources(pod: &Pod, container: &Container, memory_capacity: i64) -> LinuxContainerResources {
    let (requests, limits) = (requests(container), limits(container));
    let milli = requests.get("cpu").map_or(0, Quantity::milli_value);
    let mut out = LinuxContainerResources { cpu_shares: cpu_shares(milli), ..LinuxContainerResources::default() };
    apply_limits(&mut out, &limits);
    // Swap is off: memory and swap together may not exceed the memory limit.
    out.memory_swap_limit_in_bytes = out.memory_limit_in_bytes;
    out.oom_score_adj = oom_score_adj(pod, container, memory_capacity);
    out
}

/// How soon the kernel kills a container when memory runs out (KEP-free heuristic of upstream's qos policy).
fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    let critical = pod.spec().priority.is_some_and(|p| p >= 2_000_000_000)
        && pod.spec().priority_class_name.as_deref() == Some("system-node-critical");
    match class(pod) {
        _ if critical => -997,
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = requests(container).get("memory").map_or(0, Quantity::value);
            let adjust = 1000 - 1000_i128 * i128::from(request) / i128::from(memory_capacity.max(1));
            // A burstable container never scores as low as a guaranteed or as high as a best-effort one.
            i64::try_from(adjust).unwrap_or(2).clamp(3, 999)
        }
    }
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

    #[test]
    fn cgroup_numbers() {
        let pod = pod(json!([{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]), json!([]));
        let resources = pod_cgroup_resources(&pod);
        assert_eq!(
            (resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes),
            (512, 50_000, 1 << 30)
        );
        assert_eq!(pod_cgroup(&pod), "/kubepods/podu");
        assert_eq!(container_resources(&pod, &pod.spec().containers[0], 1 << 34).oom_score_adj, -997);
    }
}
