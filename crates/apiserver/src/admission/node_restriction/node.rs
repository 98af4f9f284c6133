//! What a kubelet may write of its node.

use crate::admission::{Attributes, Operation};
use api::{Object, Status};
use resources::field::{Fields, same};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const ALLOWED: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Its own node only, without taints, owners and labels that decide which workloads are let in.
pub fn own(a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    let name = object.filter(|_| a.name.is_empty()).map_or(a.name, api::meta::name);
    if name != node {
        return Err(a.forbidden(&format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let Some(new) = object else { return Ok(()) };
    match (a.operation, a.old) {
        (Operation::Create, _) => created(a, node, new),
        (Operation::Update, Some(old)) => updated(a, node, new, old),
        _ => Ok(()),
    }
}

fn created(a: &Attributes<'_>, node: &str, new: &Object) -> Result<(), Status> {
    if new.at("spec").has("configSource") {
        return Err(a.forbidden(&format!("node {node:?} is not allowed to create pods with a non-nil configSource")));
    }
    let labels = forbidden_labels(new, &Value::Null);
    match labels.is_empty() {
        true => Ok(()),
        false => Err(a.forbidden(&format!("node {node:?} is not allowed to set the following labels: {labels}"))),
    }
}

fn updated(a: &Attributes<'_>, node: &str, new: &Object, old: &Object) -> Result<(), Status> {
    let differs = |outer: &str, field: &str| !same(new.at(outer).at(field), old.at(outer).at(field));
    if new.at("spec").has("configSource") && differs("spec", "configSource") {
        let why = format!("node {node:?} is not allowed to update configSource to a new non-nil configSource");
        return Err(a.forbidden(&why));
    }
    for (outer, field) in [("spec", "taints"), ("metadata", "ownerReferences")] {
        if differs(outer, field) {
            return Err(a.forbidden(&format!("node {node:?} is not allowed to modify {field}")));
        }
    }
    let labels = forbidden_labels(new, old);
    match labels.is_empty() {
        true => Ok(()),
        false => Err(a.forbidden(&format!("is not allowed to modify labels: {labels}"))),
    }
}

/// The labels that changed and may not, as a list in text.
fn forbidden_labels(new: &Value, old: &Value) -> String {
    let none = Map::new();
    let labels = |o: &'_ Value| o.at("metadata").at("labels").as_object().cloned().unwrap_or_else(|| none.clone());
    let (new, old) = (labels(new), labels(old));
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let changed = keys.into_iter().filter(|key| new.get(*key) != old.get(*key) && is_restricted(key));
    changed.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn is_restricted(label: &str) -> bool {
    let Some((prefix, _)) = label.split_once('/') else { return false };
    let within = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let kubelet = within("kubelet.kubernetes.io") || within("node.kubernetes.io") || ALLOWED.contains(&label);
    within("node-restriction.kubernetes.io") || (kubernetes && !kubelet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_restricted() {
        let table = [
            ("kubernetes.io/hostname", false),
            ("node-role.kubernetes.io/control-plane", true),
            ("team", false),
            ("a.b/c", false),
            ("x.node-restriction.kubernetes.io/y", true),
            ("node.kubernetes.io/pool", false),
            ("kubernetes.io/os", false),
            ("k8s.io/x", true),
        ];
        for (label, want) in table {
            assert_eq!(is_restricted(label), want, "{label}");
        }
    }
}
