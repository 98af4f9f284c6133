//! The taints a node's conditions ask for.

use super::{condition, ready_status};
use crate::pods;
use api::k8s::core::v1::{Node, Taint};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that taint when they are True.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// All taints the node should have, when they differ from what it has.
pub(super) fn wanted(node: &Node) -> Option<Vec<Taint>> {
    let present = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut keys: Vec<(&str, &str)> = Vec::new();
    let reported = condition(node, "Ready").is_some();
    match ready_status(node) {
        "True" => {}
        // A node that never reported is new: the kubelet registers itself with the not-ready taint.
        "Unknown" if reported => keys.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ if reported => keys.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        _ => keys.push((NOT_READY, "NoSchedule")),
    }
    let pressed = |kind: &str| condition(node, kind).is_some_and(|c| c.status == "True");
    keys.extend(PRESSURES.iter().filter(|(kind, _)| pressed(kind)).map(|(_, key)| (*key, "NoSchedule")));
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        keys.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |t: &Taint| {
        t.key == NOT_READY
            || t.key == UNREACHABLE
            || t.key == UNSCHEDULABLE
            || PRESSURES.iter().any(|(_, key)| *key == t.key)
    };
    let is = |t: &Taint, key: &str, effect: &str| t.key == key && t.effect == effect;
    let mut list: Vec<Taint> =
        present.iter().filter(|t| !ours(t) || keys.iter().any(|(k, e)| is(t, k, e))).cloned().collect();
    for (key, effect) in keys {
        if !list.iter().any(|t| is(t, key, effect)) {
            list.push(Taint { key: key.into(), effect: effect.into(), value: None, time_added: Some(pods::now()) });
        }
    }
    (list != present).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn taints_follow_conditions() {
        let check = |ready: &str, pressure: &str, cordoned: bool, taints: Value, want: Option<&[&str]>| {
            let conditions = json!([{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": pressure}]);
            let node =
                json!({"spec": {"taints": taints, "unschedulable": cordoned}, "status": {"conditions": conditions}});
            let node: Node = serde_json::from_value(node).expect("node");
            let got =
                wanted(&node).map(|list| list.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect::<Vec<_>>());
            assert_eq!(got, want.map(|w| w.iter().map(|s| (*s).to_owned()).collect()));
        };
        let not_ready = json!([{"key": NOT_READY, "effect": "NoSchedule"}, {"key": "mine", "effect": "NoExecute"}]);
        check("True", "False", false, json!([]), None);
        check("True", "False", false, not_ready, Some(&["mine:NoExecute"]));
        check(
            "Unknown",
            "True",
            false,
            json!([]),
            Some(&[
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
                "node.kubernetes.io/disk-pressure:NoSchedule",
            ]),
        );
        check("True", "False", true, json!([]), Some(&["node.kubernetes.io/unschedulable:NoSchedule"]));
    }
}
