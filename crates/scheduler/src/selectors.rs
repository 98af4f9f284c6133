//! Node selectors, affinity terms and tolerations, ready to be matched.

use crate::Handle;
use api::k8s::core::v1::{Pod, PodAffinityTerm, Taint, Toleration};
use api::selector::{LabelSelector, Requirement};
use std::collections::BTreeMap;

pub(crate) use api::node_selector::{node_selector_matches, pod_accepts_node, term_matches};

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
}
