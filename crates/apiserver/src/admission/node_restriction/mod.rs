//! NodeRestriction: a kubelet writes its own node, the pods bound to it, and what belongs to these.

mod node;
mod pods;
mod token;

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use resources::field::{Fields, same};
use serde_json::Value;

const SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

/// The plugin.
pub struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, object: &mut Object) -> Result<(), Status> {
        check(server, a, Some(object)).await
    }

    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, _o: Option<&Object>) -> Result<(), Status> {
        match a.operation {
            Operation::Delete | Operation::Connect => check(server, a, None).await,
            Operation::Create | Operation::Update => Ok(()),
        }
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
        ("", "pods", "") => pods::pod(server, a, node, object).await,
        ("", "pods", "status") => pods::status(a, node, object),
        ("", "pods", "eviction") => pods::eviction(server, a, node).await,
        ("", "pods", sub) => {
            let why = format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed");
            Err(a.forbidden(&why))
        }
        ("", "nodes", _) => node::own(a, node, object),
        ("", "persistentvolumeclaims", "status") => claim_status(a, node, object),
        ("", "persistentvolumeclaims", _) => Err(a.forbidden("may only update PVC status")),
        ("", "serviceaccounts", "token") => token::bound(server, a, node, object).await,
        ("coordination.k8s.io", "leases", _) => lease(a, node, object),
        ("storage.k8s.io", "csinodes", _) => {
            named(a, node, object, "can only access CSINode with the same name as the requesting node")
        }
        ("resource.k8s.io", "resourceslices", _) => slice(a, node, object),
        ("certificates.k8s.io", "certificatesigningrequests", _) => request(a, node, object),
        _ => Ok(()),
    }
}

/// Whether the object is named as the node; a new one says so itself.
fn named(a: &Attributes<'_>, node: &str, object: Option<&Object>, why: &str) -> Result<(), Status> {
    let name = object.filter(|_| a.operation == Operation::Create).map_or(a.name, meta::name);
    if name == node { Ok(()) } else { Err(a.forbidden(why)) }
}

fn lease(a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    if a.namespace != "kube-node-lease" {
        return Err(a.forbidden("can only access leases in the \"kube-node-lease\" system namespace"));
    }
    named(a, node, object, "can only access node lease with the same name as the requesting node")
}

/// A kubelet says how large a volume has become, and nothing else of a claim.
fn claim_status(a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    let (Some(new), Some(old)) = (object, a.old) else {
        return Err(a.forbidden(&format!("unexpected operation {:?}", a.operation.word())));
    };
    let rest = |claim: &Object| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            meta::metadata_mut(&mut claim).remove(field);
        }
        for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            meta::field_mut(&mut claim, "status").remove(field);
        }
        claim
    };
    match same(&rest(new), &rest(old)) {
        true => Ok(()),
        false => Err(a.forbidden(&format!(
            "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
        ))),
    }
}

fn slice(a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    let (slice, verb) = match a.operation {
        Operation::Create => (object, "create"),
        Operation::Delete => (a.old, "delete"),
        Operation::Update | Operation::Connect => return Ok(()),
    };
    let of = slice.and_then(|s| s.pointer("/spec/nodeName")).and_then(Value::as_str);
    match of == Some(node) {
        true => Ok(()),
        false => {
            Err(a.forbidden(&format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")))
        }
    }
}

/// Kubelets ask for certificates of their own name only; the signer checks the rest.
fn request(a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    let Some(csr) = object.filter(|_| a.operation == Operation::Create) else { return Ok(()) };
    if !SIGNERS.contains(&csr.at("spec").text("signerName")) {
        return Ok(());
    }
    let pem = STANDARD.decode(csr.at("spec").text("request")).unwrap_or_default();
    let parsed = pki::CertificateRequest::parse(&pem);
    let parsed = parsed.map_err(|why| {
        let why = why.to_string();
        a.forbidden(&format!("unable to parse csr: {}", why.trim_start_matches("certificate request: ")))
    })?;
    let wanted = format!("system:node:{node}");
    match parsed.common_name == wanted {
        true => Ok(()),
        false => Err(a.forbidden(&format!("can only create a node CSR with CN={wanted}"))),
    }
}
