//! NodeRestriction: a kubelet writes its own node, the pods bound to it, and tokens for those pods.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::Value;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// The plugin.
pub struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
        check(server, a, Some(object)).await
    }

    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, _o: Option<&Object>) -> Result<(), Status> {
        if a.operation == Operation::Delete { check(server, a, None).await } else { Ok(()) }
    }
}

async fn check(server: &ApiServer, a: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
    if !a.request.user.is_in("system:nodes") {
        return Ok(());
    }
    let Some(node) = a.request.user.node_name().filter(|n| !n.is_empty()) else {
        return Err(a.forbidden(&format!("could not determine node from user {:?}", a.request.user.name)));
    };
    match (a.resource.group.as_str(), a.resource.resource.as_str(), a.subresource) {
        ("", "pods", "") => pod(a, node, object),
        ("", "pods", "status") => bound(a, node, a.old, "can only update pod status for pods with spec.nodeName set to itself"),
        ("", "pods", "eviction") => evicted(server, a, node).await,
        ("", "pods", sub) => Err(a.forbidden(&format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed"))),
        ("", "nodes", _) => own_node(a, node, object),
        ("", "serviceaccounts", "token") => token(server, a, node, object).await,
        ("coordination.k8s.io", "leases", _) => lease(a, node, object),
        ("storage.k8s.io", "csinodes", _) => {
            named(a, node, object, "can only access CSINode with the same name as the requesting node")
        }
        _ => Ok(()),
    }
}

fn bound(a: &Attributes<'_>, node: &str, pod: Option<&Object>, why: &str) -> Result<(), Status> {
    let name = pod.and_then(|p| p.pointer("/spec/nodeName")).and_then(Value::as_str);
    if name == Some(node) { Ok(()) } else { Err(a.forbidden(&format!("node {node:?} {why}"))) }
}

fn pod(a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    match (a.operation, object) {
        (Operation::Create, Some(pod)) => {
            if meta::annotation(pod, MIRROR).is_none() {
                return Err(a.forbidden(&format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                )));
            }
            bound(a, node, Some(pod), "can only create pods with spec.nodeName set to itself")?;
            owned(a, node, pod)
        }
        (Operation::Delete, _) => bound(a, node, a.old, "can only delete pods with spec.nodeName set to itself"),
        (operation, _) => Err(a.forbidden(&format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"))),
    }
}

/// A mirror pod belongs to its node and to nothing else.
fn owned(a: &Attributes<'_>, node: &str, pod: &Object) -> Result<(), Status> {
    let why = format!("node {node:?} can only create pods with an owner reference set to itself");
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let [owner] = owners.map_or(&[][..], Vec::as_slice) else { return Err(a.forbidden(&why)) };
    let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or("");
    if text("apiVersion") != "v1" || text("kind") != "Node" || text("name") != node {
        return Err(a.forbidden(&why));
    }
    Ok(())
}

async fn evicted(server: &ApiServer, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let store = server.store("", "pods").ok_or_else(Status::no_such_path)?;
    match store.get(a.namespace, a.name).await? {
        Some(stored) => {
            let pod = stored.object()?;
            bound(a, node, Some(&pod), "can only evict pods with spec.nodeName set to itself")
        }
        // Upstream names the resource in the singular here.
        None => Err(Status::not_found("", "pod", a.name)),
    }
}

fn named(a: &Attributes<'_>, node: &str, object: Option<&Object>, why: &str) -> Result<(), Status> {
    let name = object.map_or(a.name, meta::name);
    let name = if name.is_empty() { a.name } else { name };
    if name == node { Ok(()) } else { Err(a.forbidden(why)) }
}

fn lease(a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    if a.namespace != "kube-node-lease" {
        return Err(a.forbidden("can only access leases in the \"kube-node-lease\" system namespace"));
    }
    named(a, node, object, "can only access node lease with the same name as the requesting node")
}

/// Labels that a kubelet may not give its node: they decide where workloads are let in.
fn restricted(label: &str) -> bool {
    let Some((prefix, _)) = label.split_once('/') else { return false };
    let restriction = prefix == "node-restriction.kubernetes.io" || prefix.ends_with(".node-restriction.kubernetes.io");
    let kubernetes = ["kubernetes.io", "k8s.io"].iter().any(|d| prefix == *d || prefix.ends_with(&format!(".{d}")));
    const ALLOWED: [&str; 10] = [
        "kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type", "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/region", "topology.kubernetes.io/zone",
        "beta.kubernetes.io/arch",
    ];
    let free = ["kubelet.kubernetes.io", "node.kubernetes.io"];
    let free = free.iter().any(|d| prefix == *d || prefix.ends_with(&format!(".{d}")));
    restriction || (kubernetes && !free && !ALLOWED.contains(&label) && label != "beta.kubernetes.io/os")
}

fn own_node(a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    let why = format!("node {node:?} is not allowed to modify node {:?}", object.map_or(a.name, meta::name));
    named(a, node, object, &why)?;
    if a.operation == Operation::Delete {
        return Err(a.forbidden(&format!("node {node:?} is not allowed to delete itself")));
    }
    let Some(object) = object else { return Ok(()) };
    let empty = Value::Null;
    let old = a.old.unwrap_or(&empty);
    let labels = |o: &Object| o.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let (new_labels, old_labels) = (labels(object), labels(old));
    let changed = new_labels.keys().chain(old_labels.keys()).filter(|k| new_labels.get(*k) != old_labels.get(*k));
    let mut forbidden: Vec<_> = changed.filter(|k| restricted(k)).map(String::as_str).collect();
    forbidden.sort_unstable();
    forbidden.dedup();
    if !forbidden.is_empty() {
        let verb = if a.operation == Operation::Create { "set" } else { "modify" };
        return Err(a.forbidden(&format!("node {node:?} is not allowed to {verb} the following labels: {}", forbidden.join(", "))));
    }
    let taints = |o: &Object| o.pointer("/spec/taints").cloned().unwrap_or_default();
    if a.operation == Operation::Update && taints(object) != taints(old) {
        return Err(a.forbidden(&format!("node {node:?} is not allowed to modify taints")));
    }
    Ok(())
}

async fn token(server: &ApiServer, a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    let reference = object.and_then(|o| o.pointer("/spec/boundObjectRef"));
    let text = |key: &str| reference.and_then(|r| r.get(key)).and_then(Value::as_str).unwrap_or("");
    if reference.is_none() || text("kind") != "Pod" || text("name").is_empty() {
        return Err(a.forbidden("node requested token not bound to a pod"));
    }
    if text("uid").is_empty() {
        return Err(a.forbidden("node requested token with a pod binding without a uid"));
    }
    let store = server.store("", "pods").ok_or_else(Status::no_such_path)?;
    let Some(stored) = store.get(a.namespace, text("name")).await? else {
        return Err(Status::not_found("", "pods", text("name")));
    };
    if stored.meta.uid != text("uid") {
        return Err(a.forbidden(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. \
             The object might have been deleted and then recreated",
            text("uid")
        )));
    }
    let pod = stored.object()?;
    if pod.pointer("/spec/nodeName").and_then(Value::as_str) != Some(node) {
        return Err(a.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_restricted() {
        let table = [
            ("kubernetes.io/hostname", false), ("node-role.kubernetes.io/control-plane", true), ("team", false),
            ("a.b/c", false), ("x.node-restriction.kubernetes.io/y", true), ("node.kubernetes.io/pool", false),
            ("kubernetes.io/os", false), ("k8s.io/x", true),
        ];
        for (label, want) in table {
            assert_eq!(restricted(label), want, "{label}");
        }
    }
}
