//! What pods and volumes ask of nodes: node selectors, their terms, and both parts of a pod's wish.

use crate::k8s::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use crate::selector::{LabelSelector, Requirement};

/// Whether a node meets a pod's `nodeSelector` and required node affinity.
pub fn pod_accepts_node(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    spec.node_selector.iter().flatten().all(has)
        && required.is_none_or(|selector| node_selector_matches(selector, node))
}

/// Whether a node meets any term.
pub fn node_selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether a node meets a term; an empty or malformed term matches nothing.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let of_labels = requirements(term.match_expressions.as_deref());
    let of_fields = requirements(term.match_fields.as_deref());
    let (Some(labels), Some(fields)) = (of_labels, of_fields) else { return false };
    let name = node.metadata.name.as_deref();
    !(labels.is_empty() && fields.is_empty())
        && LabelSelector(labels).matches_labels(node.metadata.labels.as_ref())
        && LabelSelector(fields).matches(|field| name.filter(|_| field == "metadata.name"))
}

/// `None` when an operator is unknown or its number is none.
fn requirements(list: Option<&[NodeSelectorRequirement]>) -> Option<Vec<Requirement>> {
    list.unwrap_or_default().iter().map(requirement).collect()
}

fn requirement(of: &NodeSelectorRequirement) -> Option<Requirement> {
    let (key, values) = (of.key.clone(), of.values.clone().unwrap_or_default());
    let number = || values.first().and_then(|value| value.parse().ok());
    Some(match of.operator.as_str() {
        "In" => Requirement::In(key, values),
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::NotExists(key),
        "Gt" => Requirement::Greater(key, number()?),
        "Lt" => Requirement::Less(key, number()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn terms_match_labels_and_name() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"cpu": "8"}}})).expect("node");
        let check = |term, want| {
            let selector: NodeSelector =
                serde_json::from_value(json!({"nodeSelectorTerms": [term]})).expect("selector");
            assert_eq!(node_selector_matches(&selector, &node), want, "{selector:?}");
        };
        check(json!({}), false);
        check(json!({"matchExpressions": [{"key": "cpu", "operator": "Gt", "values": ["4"]}]}), true);
        check(json!({"matchExpressions": [{"key": "cpu", "operator": "Gt", "values": ["x"]}]}), false);
        check(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}), true);
        check(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}), false);
    }

    #[test]
    fn a_pod_asks_in_two_places() {
        let node: Node = serde_json::from_value(json!({"metadata": {"labels": {"a": "1"}}})).expect("node");
        let check = |spec, want| {
            let spec: PodSpec = serde_json::from_value(spec).expect("spec");
            assert_eq!(pod_accepts_node(&spec, &node), want, "{spec:?}");
        };
        let affinity = |operator: &str| {
            let term = json!({"matchExpressions": [{"key": "a", "operator": operator}]});
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}})
        };
        check(json!({"containers": []}), true);
        check(json!({"containers": [], "nodeSelector": {"a": "2"}}), false);
        check(json!({"containers": [], "nodeSelector": {"a": "1"}, "affinity": affinity("Exists")}), true);
        check(json!({"containers": [], "affinity": affinity("DoesNotExist")}), false);
    }
}
