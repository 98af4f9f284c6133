//! Node selectors, affinity terms and tolerations, ready to be matched.

use crate::Handle;
use api::k8s::core::v1::{Node, NodeSelector, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, Taint, Toleration};
use api::selector::{LabelSelector, Requirement};
use std::collections::BTreeMap;

fn requirements(list: Option<&Vec<api::k8s::core::v1::NodeSelectorRequirement>>) -> Option<Vec<Requirement>> {
    let convert = |r: &api::k8s::core::v1::NodeSelectorRequirement| {
        let (key, values) = (r.key.clone(), r.values.clone().unwrap_or_default());
        let number = || values.first().and_then(|v| v.parse().ok());
        Some(match r.operator.as_str() {
            "In" => Requirement::In(key, values),
            "NotIn" => Requirement::NotIn(key, values),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::NotExists(key),
            "Gt" => Requirement::Greater(key, number()?),
            "Lt" => Requirement::Less(key, number()?),
            _ => return None,
        })
    };
    list.into_iter().flatten().map(convert).collect()
}

/// Whether a node meets a term; an empty term matches nothing.
pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let empty = |list: Option<&Vec<_>>| list.is_none_or(Vec::is_empty);
    if empty(term.match_expressions.as_ref()) && empty(term.match_fields.as_ref()) {
        return false;
    }
    let Some(labels) = requirements(term.match_expressions.as_ref()) else { return false };
    let Some(fields) = requirements(term.match_fields.as_ref()) else { return false };
    let name = node.metadata.name.as_deref();
    LabelSelector(labels).matches_labels(node.metadata.labels.as_ref())
        && LabelSelector(fields).matches(|field| name.filter(|_| field == "metadata.name"))
}

/// Whether a node meets any term.
pub(crate) fn node_selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether a node meets the pod's `nodeSelector` and required node affinity.
pub(crate) fn pod_accepts_node(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    spec.node_selector.iter().flatten().all(has)
        && required.is_none_or(|selector| node_selector_matches(selector, node))
}

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let (value, against) = (text(&toleration.value), text(&taint.value));
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => value == against,
        "Exists" => true,
        "Gt" => matches!((value.parse::<i64>(), against.parse::<i64>()), (Ok(v), Ok(t)) if t > v),
        "Lt" => matches!((value.parse::<i64>(), against.parse::<i64>()), (Ok(v), Ok(t)) if t < v),
        _ => false,
    }
}

pub(crate) fn any_tolerates(tolerations: Option<&Vec<Toleration>>, taint: &Taint) -> bool {
    tolerations.into_iter().flatten().any(|t| tolerates(t, taint))
}

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug)]
pub(crate) struct AffinityTerm {
    pub topology_key: String,
    pub weight: i64,
    selector: Option<LabelSelector>,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
}

impl AffinityTerm {
    pub fn new(pod: &Pod, term: &PodAffinityTerm, weight: i64) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        let namespace_selector = LabelSelector::from_api(term.namespace_selector.as_ref());
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(pod.metadata.namespace.clone().unwrap_or_default());
        }
        let mut selector = LabelSelector::from_api(term.label_selector.as_ref());
        let value = |key: &String| Some((key.clone(), pod.metadata.labels.as_ref()?.get(key)?.clone()));
        if let Some(selector) = &mut selector {
            for (key, value) in term.match_label_keys.iter().flatten().filter_map(value) {
                selector.0.push(Requirement::In(key, vec![value]));
            }
            for (key, value) in term.mismatch_label_keys.iter().flatten().filter_map(value) {
                selector.0.push(Requirement::NotIn(key, vec![value]));
            }
        }
        Self { topology_key: term.topology_key.clone(), weight, selector, namespaces, namespace_selector }
    }

    /// Whether the term is about `pod`.
    pub fn matches(&self, pod: &Pod, handle: &Handle) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let named = || self.namespaces.iter().any(|ns| ns == namespace);
        let selected = || {
            self.namespace_selector.as_ref().is_some_and(|selector| {
                let labels: Option<BTreeMap<_, _>> =
                    handle.namespaces.get("", namespace).and_then(|ns| ns.metadata.labels.clone());
                selector.matches_labels(labels.as_ref())
            })
        };
        self.selector.as_ref().is_some_and(|s| s.matches_labels(pod.metadata.labels.as_ref()))
            && (named() || selected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_cover_taints() {
        let taint = Taint { key: "k".into(), value: Some("v".into()), effect: "NoSchedule".into(), time_added: None };
        let check = |toleration, want| {
            let toleration: Toleration = serde_json::from_value(toleration).expect("toleration");
            assert_eq!(tolerates(&toleration, &taint), want, "{toleration:?}");
        };
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
        check(json!({"key": "k", "value": "v"}), true);
        check(json!({"key": "k", "value": "w"}), false);
        check(json!({"key": "x", "operator": "Exists"}), false);
    }

    #[test]
    fn node_selectors_match_labels_and_name() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"cpu": "8"}}})).expect("node");
        let check = |term, want| {
            let selector: NodeSelector =
                serde_json::from_value(json!({"nodeSelectorTerms": [term]})).expect("selector");
            assert_eq!(node_selector_matches(&selector, &node), want, "{selector:?}");
        };
        check(json!({}), false);
        check(json!({"matchExpressions": [{"key": "cpu", "operator": "Gt", "values": ["4"]}]}), true);
        check(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}), true);
        check(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}), false);
    }
}
