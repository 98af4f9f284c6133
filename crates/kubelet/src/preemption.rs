//! Making room for a critical pod: which pods of this node go for it.
//!
//! The fewest pods with the smallest requests: best-effort before burstable before guaranteed ones.

use crate::pod;
use crate::qos;
use api::k8s::core::v1::Pod;
use std::sync::Arc;

/// Reason of the event and of the status.
pub const REASON: &str = "Preempting";
/// Text of both.
pub const MESSAGE: &str = "Preempted in order to admit critical pod";
/// Text of the condition `DisruptionTarget`.
pub const CONDITION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// A resource that lacks, and how much of it (CPU in thousandths).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Name.
    pub resource: String,
    /// How much lacks.
    pub quantity: i64,
}

fn request(pod: &Pod, resource: &str) -> i64 {
    match resource {
        "pods" => 1,
        "cpu" => qos::pod_requests(pod).get("cpu").map_or(0, |q| q.milli_value()),
        name => qos::pod_requests(pod).get(name).map_or(0, |q| q.value()),
    }
}

fn subtract<'a>(wanted: &[Requirement], pods: impl Iterator<Item = &'a Arc<Pod>> + Clone) -> Vec<Requirement> {
    let left = |r: &Requirement| {
        let freed: i64 = pods.clone().map(|p| request(p, &r.resource)).sum();
        Requirement { resource: r.resource.clone(), quantity: r.quantity - freed }
    };
    wanted.iter().map(left).filter(|r| r.quantity > 0).collect()
}

fn distance(wanted: &[Requirement], pod: &Pod) -> f64 {
    let part = |r: &Requirement| {
        let left = (r.quantity - request(pod, &r.resource)).max(0);
        (left as f64 / r.quantity as f64).powi(2)
    };
    wanted.iter().map(part).sum()
}

fn unmet(wanted: &[Requirement]) -> String {
    let list: String = wanted.iter().map(|r| format!("(res: {}, q: {}), ", r.resource, r.quantity)).collect();
    format!("no set of running pods found to reclaim resources: [{list}]")
}

fn nearest(mut pods: Vec<Arc<Pod>>, mut wanted: Vec<Requirement>) -> Result<Vec<Arc<Pod>>, String> {
    let mut chosen = Vec::new();
    while !wanted.is_empty() {
        let key = |pod: &Arc<Pod>| (distance(&wanted, pod), request(pod, "memory"), request(pod, "cpu"));
        let order = |a: &&Arc<Pod>, b: &&Arc<Pod>| {
            let (a, b) = (key(a), key(b));
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2))
        };
        let Some(best) = pods.iter().min_by(order).cloned() else { return Err(unmet(&wanted)) };
        wanted = subtract(&wanted, std::iter::once(&best));
        pods.retain(|p| !Arc::ptr_eq(p, &best));
        chosen.push(best);
    }
    Ok(chosen)
}

/// The pods that go so that `preemptor` fits; the error is upstream's text.
pub fn victims(preemptor: &Pod, pods: &[Arc<Pod>], wanted: &[Requirement]) -> Result<Vec<Arc<Pod>>, String> {
    let of = |class: &str| -> Vec<Arc<Pod>> {
        let all = pods.iter().filter(|p| pod::is_preemptable(preemptor, p) && qos::class(p) == class);
        all.cloned().collect()
    };
    let (best_effort, burstable, guaranteed) = (of("BestEffort"), of("Burstable"), of("Guaranteed"));
    let all = best_effort.iter().chain(&burstable).chain(&guaranteed);
    let lacking = subtract(wanted, all);
    if !lacking.is_empty() {
        return Err(unmet(&lacking));
    }
    let guaranteed = nearest(guaranteed.clone(), subtract(wanted, best_effort.iter().chain(&burstable)))?;
    let burstable = nearest(burstable.clone(), subtract(wanted, best_effort.iter().chain(&guaranteed)))?;
    let best_effort = nearest(best_effort.clone(), subtract(wanted, burstable.iter().chain(&guaranteed)))?;
    Ok(best_effort.into_iter().chain(burstable).chain(guaranteed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodExt;
    use serde_json::json;

    fn pod(name: &str, priority: i32, cpu: &str, limits: bool) -> Arc<Pod> {
        let amounts = json!({"cpu": cpu, "memory": "1Mi"});
        let resources = if limits { json!({"limits": amounts}) } else { json!({"requests": amounts}) };
        let resources = if cpu == "0" { json!({}) } else { resources };
        let value = json!({"metadata": {"name": name, "uid": name},
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": resources}]}});
        Arc::new(serde_json::from_value(value).expect("pod"))
    }

    fn check(wanted: &[(&str, i64)], expect: Result<&[&str], &str>) {
        let pods = [
            pod("best-effort", 0, "0", false),
            pod("small", 0, "100m", false),
            pod("large", 0, "500m", false),
            pod("guaranteed", 0, "1", true),
            pod("critical", 2_000_000_000, "2", false),
        ];
        let wanted: Vec<_> = wanted.iter().map(|(r, q)| Requirement { resource: (*r).into(), quantity: *q }).collect();
        let got = victims(&pod("new", 2_000_000_000, "1", false), &pods, &wanted);
        let names = got.map(|list| list.iter().map(|p| p.name().to_owned()).collect::<Vec<_>>());
        assert_eq!(names, expect.map(|l| l.iter().map(|n| (*n).to_owned()).collect()).map_err(str::to_owned));
    }

    #[test]
    fn the_least_is_taken() {
        check(&[("cpu", 50)], Ok(&["small"]));
        check(&[("cpu", 300)], Ok(&["large"]));
        check(&[("cpu", 550)], Ok(&["large", "small"]));
        check(&[("cpu", 700)], Ok(&["guaranteed"]));
        check(&[("pods", 1)], Ok(&["best-effort"]));
        check(&[("cpu", 2000)], Err("no set of running pods found to reclaim resources: [(res: cpu, q: 400), ]"));
    }
}
