//! What a pod as a whole was granted and has (KEP-5419): `allocatedResources` and `resources` of its status.

use crate::pod::PodExt;
use crate::qos::{self, Node, Resources};
use api::k8s::core::v1::{Pod, PodStatus, ResourceRequirements};
use api::machinery::api::resource::Quantity as Written;
use api::quantity::{Format, Quantity};
use cri::LinuxContainerResources;
use std::collections::BTreeMap;

/// Shares and thousandths of a CPU below which a cgroup says nothing of what was asked for.
const LEAST_SHARES: i64 = 2;
const LEAST_LIMIT: i64 = 10;

/// Sets both. `allocated`: the pod with what it was granted.
pub fn set(status: &mut PodStatus, allocated: &Pod, node: &Node<'_>) {
    let requests = qos::pod_requests(allocated);
    let resources = match allocated.phase() {
        "Running" => held(allocated, &qos::pod_cgroup_resources(allocated, node), &requests),
        _ => of(allocated, requests.clone(), qos::sum_of_limits(allocated)),
    };
    status.resources = Some(resources);
    status.allocated_resources = written(requests);
}

fn of(pod: &Pod, requests: Resources, limits: Resources) -> ResourceRequirements {
    let claims = pod.spec().resources.as_ref().and_then(|r| r.claims.clone());
    ResourceRequirements { claims, limits: written(limits), requests: written(requests) }
}

fn written(resources: Resources) -> Option<BTreeMap<String, Written>> {
    let out: BTreeMap<_, _> = resources.into_iter().map(|(name, q)| (name, Written(q.to_string()))).collect();
    (!out.is_empty()).then_some(out)
}

/// What the pod's cgroup enforces, in the place of what its own resources say.
fn held(pod: &Pod, cgroup: &LinuxContainerResources, sum: &Resources) -> ResourceRequirements {
    let own = pod.spec().resources.clone().unwrap_or_default();
    let (mut requests, mut limits) = (qos::parse(own.requests.as_ref()), qos::parse(own.limits.as_ref()));
    let milli = |list: &Resources| list.get("cpu").map_or(0, Quantity::milli_value);
    let shares = (cgroup.cpu_shares.saturating_mul(1000) + 1023) / 1024;
    if shares > LEAST_SHARES || milli(&requests) > LEAST_SHARES {
        requests.insert("cpu".into(), Quantity::from_milli(shares));
    }
    if let Some(memory) = sum.get("memory") {
        requests.entry("memory".into()).or_insert(*memory);
    }
    if cgroup.cpu_quota > 0 && cgroup.cpu_period > 0 {
        let limit = cgroup.cpu_quota.saturating_mul(1000) / cgroup.cpu_period;
        if limit > LEAST_LIMIT || milli(&limits) > LEAST_LIMIT {
            limits.insert("cpu".into(), Quantity::from_milli(limit));
        }
    }
    if cgroup.memory_limit_in_bytes > 0 {
        limits.insert("memory".into(), Quantity::from_units(cgroup.memory_limit_in_bytes, Format::BinarySi));
    }
    of(pod, requests, limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_the_cgroup_says_goes_first() {
        let check = |own: Value, sum: Value, (shares, quota, memory): (i64, i64, i64), expect: Value| {
            let pod = json!({"metadata": {}, "spec": {"containers": [], "resources": own}});
            let pod: Pod = serde_json::from_value(pod).expect("pod");
            let sum: BTreeMap<String, Written> = serde_json::from_value(sum).expect("resources");
            let cgroup = LinuxContainerResources {
                cpu_shares: shares,
                cpu_quota: quota,
                cpu_period: 100_000,
                memory_limit_in_bytes: memory,
                ..Default::default()
            };
            let got = held(&pod, &cgroup, &qos::parse(Some(&sum)));
            assert_eq!(serde_json::to_value(got).expect("resources"), expect, "{own}");
        };
        check(json!({}), json!({}), (2, 0, 0), json!({}));
        check(
            json!({}),
            json!({"cpu": "50m", "memory": "30Mi"}),
            (51, 10_000, 60 << 20),
            json!({"requests": {"cpu": "50m", "memory": "30Mi"}, "limits": {"cpu": "100m", "memory": "60Mi"}}),
        );
        check(
            json!({"requests": {"cpu": "1m"}, "limits": {"cpu": "5m"}}),
            json!({}),
            (2, 1000, 0),
            json!({"requests": {"cpu": "1m"}, "limits": {"cpu": "5m"}}),
        );
    }
}
