//! What a kubelet may do to pods: mirror those of its own files, report on those it runs.

use crate::admission::{Attributes, Operation};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use resources::field::{Fields, same};
use serde_json::Value;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Mirror pods are created, bound pods deleted, nothing else.
pub async fn pod(server: &ApiServer, a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    match (a.operation, object) {
        (Operation::Create, Some(pod)) => mirror(server, a, node, pod).await,
        (Operation::Delete, _) => {
            bound(a, a.old, node, &format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        (operation, _) => Err(a.forbidden(&format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            operation.word()
        ))),
    }
}

fn bound(a: &Attributes<'_>, pod: Option<&Object>, node: &str, why: &str) -> Result<(), Status> {
    let name = pod.map_or("", |p| p.at("spec").text("nodeName"));
    if name == node { Ok(()) } else { Err(a.forbidden(why)) }
}

async fn mirror(server: &ApiServer, a: &Attributes<'_>, node: &str, pod: &Object) -> Result<(), Status> {
    if meta::annotation(pod, MIRROR).is_none() {
        let why = format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods");
        return Err(a.forbidden(&why));
    }
    bound(a, Some(pod), node, &format!("node {node:?} can only create pods with spec.nodeName set to itself"))?;
    owned(server, a, node, pod).await?;
    match api_reference(pod.at("spec")) {
        None => Ok(()),
        Some(what) => Err(a.forbidden(&format!("node {node:?} can not create pods that reference {what}"))),
    }
}

/// A mirror pod belongs to its node and to nothing else.
async fn owned(server: &ApiServer, a: &Attributes<'_>, node: &str, pod: &Object) -> Result<(), Status> {
    let refused = |why: &str| Err(a.forbidden(&format!("node {node:?} {why}")));
    let owner = match pod.at("metadata").list("ownerReferences") {
        [] => return refused("can only create pods with an owner reference set to itself"),
        [owner] => owner,
        _ => return refused("can only create pods with a single owner reference set to itself"),
    };
    if (owner.text("apiVersion"), owner.text("kind"), owner.text("name")) != ("v1", "Node", node) {
        return refused("can only create pods with an owner reference set to itself");
    }
    if !owner.flag("controller") {
        return refused("can only create pods with a controller owner reference set to itself");
    }
    if owner.flag("blockOwnerDeletion") {
        return refused("must not set blockOwnerDeletion on an owner reference");
    }
    let store = server.store("", "nodes").ok_or_else(Status::no_such_path)?;
    let stored = store.get("", node).await?.ok_or_else(|| Status::not_found("", "nodes", node))?;
    match owner.text("uid") == stored.meta.uid {
        true => Ok(()),
        false => Err(a.forbidden(&format!(
            "node {node} UID mismatch: expected {} got {}",
            owner.text("uid"),
            stored.meta.uid
        ))),
    }
}

/// The first thing of the API that a pod needs, which a file on a node may not get it.
fn api_reference(spec: &Value) -> Option<&'static str> {
    let containers = ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|l| spec.list(l));
    let from: Vec<&Value> = containers.clone().flat_map(|c| c.list("envFrom")).collect();
    let keys: Vec<&Value> = containers.flat_map(|c| c.list("env")).map(|e| e.at("valueFrom")).collect();
    let volumes = spec.list("volumes");
    let used = |outer: &str, key: &str| from.iter().any(|e| e.has(outer)) || keys.iter().any(|k| k.has(key));
    if !spec.text("serviceAccountName").is_empty() {
        Some("serviceaccounts")
    } else if used("secretRef", "secretKeyRef")
        || !spec.list("imagePullSecrets").is_empty()
        || volumes.iter().any(needs_secret)
    {
        Some("secrets")
    } else if used("configMapRef", "configMapKeyRef") || volumes.iter().any(needs_config_map) {
        Some("configmaps")
    } else if !spec.list("resourceClaims").is_empty() {
        Some("resourceclaims")
    } else {
        volumes.iter().find_map(volume_reference)
    }
}

fn needs_secret(volume: &Value) -> bool {
    let sources = volume.at("projected").list("sources");
    volume.has("secret") || volume.has("azureFile") || sources.iter().any(|s| s.has("secret")) || {
        let kinds = ["csi", "flexVolume", "rbd", "cephfs", "iscsi", "scaleIO", "storageos"];
        let reference = |kind: &&str| volume.at(kind).has("secretRef") || volume.at(kind).has("nodePublishSecretRef");
        kinds.iter().any(reference)
    }
}

fn needs_config_map(volume: &Value) -> bool {
    volume.has("configMap") || volume.at("projected").list("sources").iter().any(|s| s.has("configMap"))
}

fn volume_reference(volume: &Value) -> Option<&'static str> {
    const KINDS: [(&str, &str); 4] = [
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ];
    const SOURCES: [(&str, &str); 3] = [
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let of = |value: &Value, table: &'static [(&str, &'static str)]| {
        table.iter().find(|(field, _)| value.has(field)).map(|(_, what)| *what)
    };
    of(volume, &KINDS).or_else(|| volume.at("projected").list("sources").iter().find_map(|s| of(s, &SOURCES)))
}

/// The status of a bound pod, but for what others keep there.
pub fn status(a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    let (Some(new), Some(old)) = (object, a.old) else {
        return Err(a.forbidden(&format!("unexpected operation {:?}", a.operation.word())));
    };
    bound(
        a,
        Some(old),
        node,
        &format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"),
    )?;
    let kept = [
        ("metadata", "labels", "update labels through pod status"),
        ("status", "resourceClaimStatuses", "update resource claim statues"),
        ("status", "extendedResourceClaimStatus", "update extended resource claim status"),
    ];
    for (outer, field, what) in kept {
        if !same(new.at(outer).at(field), old.at(outer).at(field)) {
            return Err(a.forbidden(&format!("node {node:?} cannot {what}")));
        }
    }
    Ok(())
}

/// Evictions of bound pods.
pub async fn eviction(server: &ApiServer, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let store = server.store("", "pods").ok_or_else(Status::no_such_path)?;
    // Upstream's lister names the resource in the singular.
    let stored = store.get(a.namespace, a.name).await?.ok_or_else(|| Status::not_found("", "pod", a.name))?;
    let why = format!("node {node} can only evict pods with spec.nodeName set to itself");
    bound(a, Some(&stored.object()?), node, &why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_found() {
        let check = |spec: Value, want: Option<&str>| assert_eq!(api_reference(&spec), want, "{spec}");
        check(json!({"volumes": [{"hostPath": {}}, {"projected": {"sources": [{"downwardAPI": {}}]}}]}), None);
        check(json!({"serviceAccountName": "x"}), Some("serviceaccounts"));
        check(json!({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {}}}]}]}), Some("secrets"));
        check(json!({"volumes": [{"configMap": {}}]}), Some("configmaps"));
        check(json!({"volumes": [{"ephemeral": {}}]}), Some("persistentvolumeclaims (via ephemeral volumes)"));
        let token = json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]});
        check(token, Some("serviceaccounts (via projected volumes)"));
    }
}
