//! Which nodes a daemon pod belongs on, and how it is tied to its node.

use crate::node_lifecycle::tolerates;
use crate::pods;
use api::k8s::apps::v1::DaemonSetSpec;
use api::k8s::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use api::node_selector::pod_accepts_node;
use std::collections::HashMap;
use std::sync::Arc;

/// Taints that daemon pods always tolerate, and their effects.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// Adds what daemon pods tolerate.
pub(super) fn add_tolerations(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    let list = spec.tolerations.get_or_insert_default();
    let network = ("node.kubernetes.io/network-unavailable", "NoSchedule");
    for (key, effect) in TOLERATED.into_iter().chain(host_network.then_some(network)) {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Default::default()
        };
        if !list.contains(&toleration) {
            list.push(toleration);
        }
    }
}

/// Ties a pod to one node: the scheduler still binds it.
pub(super) fn pin(spec: &mut PodSpec, node: &str) {
    let field =
        NodeSelectorRequirement { key: "metadata.name".into(), operator: "In".into(), values: Some(vec![node.into()]) };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required = &mut affinity.required_during_scheduling_ignored_during_execution;
    // Terms are alternatives: each keeps what it asks of labels and is tied to this node.
    let terms = required.take().map(|s| s.node_selector_terms).filter(|terms| !terms.is_empty());
    let mut pinned = terms.unwrap_or_else(|| vec![NodeSelectorTerm::default()]);
    pinned.iter_mut().for_each(|term| term.match_fields = Some(vec![field.clone()]));
    *required = Some(NodeSelector { node_selector_terms: pinned });
}

/// The node a pod is on, or is meant for.
pub(super) fn target(pod: &Pod) -> Option<String> {
    let bound = pods::node_name(pod);
    if !bound.is_empty() {
        return Some(bound.to_owned());
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let named = fields.filter(|f| f.key == "metadata.name" && f.operator == "In");
    named.filter_map(|f| f.values.as_ref()?.first().cloned()).next()
}

/// Pods by node, oldest first.
pub(super) fn group(pods: &[Arc<Pod>]) -> HashMap<String, Vec<Arc<Pod>>> {
    let mut out: HashMap<String, Vec<Arc<Pod>>> = HashMap::new();
    for pod in pods {
        if let Some(node) = target(pod) {
            out.entry(node).or_default().push(pod.clone());
        }
    }
    for list in out.values_mut() {
        list.sort_by_key(|p| (p.metadata.creation_timestamp.clone(), p.metadata.name.clone()));
    }
    out
}

/// Whether a node should get a pod, and whether one that is there may stay.
pub(super) fn verdict(spec: &DaemonSetSpec, node: &Node) -> (bool, bool) {
    let mut pod = spec.template.spec.clone().unwrap_or_default();
    add_tolerations(&mut pod);
    if !accepts(&pod, node) {
        return (false, false);
    }
    let taints = || node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    let tolerated = |effects: &[&str]| {
        let mut hard = taints().filter(|t| effects.contains(&t.effect.as_str()));
        hard.all(|taint| pod.tolerations.iter().flatten().any(|t| tolerates(t, taint)))
    };
    (tolerated(&["NoSchedule", "NoExecute"]), tolerated(&["NoExecute"]))
}

fn accepts(spec: &PodSpec, node: &Node) -> bool {
    let name = node.metadata.name.as_deref();
    if spec.node_name.as_deref().is_some_and(|n| !n.is_empty() && Some(n) != name) {
        return false;
    }
    pod_accepts_node(spec, node)
}

/// Whether two states of a node are the same for daemon pods.
pub(super) fn same_for_daemons(a: &Node, b: &Node) -> bool {
    let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone());
    a.metadata.labels == b.metadata.labels && taints(a) == taints(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn daemon_pods_tolerate_node_trouble_but_not_other_taints() {
        let check = |selector: Value, taints: Value, want: (bool, bool)| {
            let node: Node = serde_json::from_value(
                json!({"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {"taints": taints}}),
            )
            .expect("node");
            let spec: DaemonSetSpec = serde_json::from_value(
                json!({"selector": {}, "template": {"spec": {"containers": [], "nodeSelector": selector}}}),
            )
            .expect("spec");
            assert_eq!(verdict(&spec, &node), want);
        };
        check(json!({}), json!([]), (true, true));
        check(json!({"a": "c"}), json!([]), (false, false));
        check(json!({"a": "b"}), json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]), (true, true));
        check(json!({}), json!([{"key": "mine", "effect": "NoSchedule"}]), (false, true));
        check(json!({}), json!([{"key": "mine", "effect": "NoExecute"}]), (false, false));
    }

    #[test]
    fn pods_know_their_node_before_they_are_bound() {
        let mut spec = PodSpec::default();
        pin(&mut spec, "n1");
        let pod = Pod { spec: Some(spec), ..Default::default() };
        assert_eq!(target(&pod).as_deref(), Some("n1"));
    }
}
