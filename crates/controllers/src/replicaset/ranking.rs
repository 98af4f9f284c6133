//! Which pods go first when there are too many.

use crate::pods;
use api::k8s::core::v1::Pod;
use jiff::Timestamp;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete: unassigned, pending, unready, cheap, crowded and young ones first.
///
/// `related` are the active pods of all controllers that share the owner; nodes that hold more of them give first.
pub(crate) fn victims(mut pods: Vec<Arc<Pod>>, related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count < pods.len() {
        let mut on_node: HashMap<&str, usize> = HashMap::new();
        for pod in related.iter().filter(|p| pods::is_active(p)) {
            *on_node.entry(pods::node_name(pod)).or_default() += 1;
        }
        pods.sort_by(|a, b| compare(a, b, &on_node, now));
    }
    pods.truncate(count);
    pods
}

fn compare(a: &Pod, b: &Pod, on_node: &HashMap<&str, usize>, now: Timestamp) -> Ordering {
    let assigned = |p: &Pod| !pods::node_name(p).is_empty();
    let crowd = |p: &Pod| Reverse(on_node.get(pods::node_name(p)).copied().unwrap_or(0));
    let by_time = |x: Option<Timestamp>, y: Option<Timestamp>| youngest_first(x, y, now);
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowd(a).cmp(&crowd(b)))
        .then_with(|| by_time(pods::ready_since(a), pods::ready_since(b)))
        .then_with(|| Reverse(pods::restarts(a)).cmp(&Reverse(pods::restarts(b))))
        .then_with(|| by_time(created(a), created(b)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn phase_rank(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    pods::annotation(pod, DELETION_COST).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

/// Compares ages on a logarithmic scale, so that pods of nearly one age are chosen among at random.
fn youngest_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let bucket = |t: Timestamp| match now.duration_since(t).as_nanos() {
        nanos if nanos > 0 => nanos.ilog2() as i64,
        _ => -1,
    };
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => bucket(a).cmp(&bucket(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, node: &str, phase: &str, ready: bool, cost: &str) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let object: Value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {DELETION_COST: cost}},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        Arc::new(serde_json::from_value(object).expect("pod"))
    }

    #[test]
    fn the_least_useful_go_first() {
        let pods = vec![
            pod("dear", "n1", "Running", true, "5"),
            pod("crowded", "n2", "Running", true, "0"),
            pod("lonely", "n1", "Running", true, "0"),
            pod("unready", "n1", "Running", false, "0"),
            pod("pending", "n1", "Pending", false, "0"),
            pod("unassigned", "", "Pending", false, "0"),
        ];
        let mut related = pods.clone();
        related.push(pod("x", "n2", "Running", true, "0"));
        (0..4).for_each(|_| related.push(pod("y", "n2", "Running", true, "0")));
        let now = "2026-01-02T00:00:00Z".parse().expect("time");
        let order: Vec<String> = victims(pods, &related, 5, now).iter().map(|p| pods::name(p).to_owned()).collect();
        assert_eq!(order, ["unassigned", "pending", "unready", "crowded", "lonely"]);
    }
}
