//! Tokens that a kubelet gets for the pods it runs.

use crate::admission::Attributes;
use crate::authz;
use crate::server::ApiServer;
use api::{Object, Status};
use resources::field::Fields;
use serde_json::Value;

/// A token is bound to a pod of the node, and for an audience that the pod's volumes name.
pub async fn bound(server: &ApiServer, a: &Attributes<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    let spec = object.map_or(&Value::Null, |o| o.at("spec"));
    let of = spec.at("boundObjectRef");
    if of.text("apiVersion") != "v1" || of.text("kind") != "Pod" || of.text("name").is_empty() {
        return Err(a.forbidden("node requested token not bound to a pod"));
    }
    if of.text("uid").is_empty() {
        return Err(a.forbidden("node requested token with a pod binding without a uid"));
    }
    let store = server.store("", "pods").ok_or_else(Status::no_such_path)?;
    let name = of.text("name");
    let stored = store.get(a.namespace, name).await?.ok_or_else(|| Status::not_found("", "pods", name))?;
    if stored.meta.uid != of.text("uid") {
        return Err(a.forbidden(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. \
             The object might have been deleted and then recreated",
            of.text("uid")
        )));
    }
    let pod = stored.object()?;
    if pod.at("spec").text("nodeName") != node {
        return Err(a.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    let audience = match spec.texts("audiences").as_slice() {
        [] => "",
        [one] => one,
        _ => return Err(a.forbidden("node may only request 0 or 1 audiences")),
    };
    if names_audience(server, &pod, audience).await? || may_request(server, a, audience) {
        return Ok(());
    }
    let user = &a.request.user.name;
    Err(a.forbidden(&format!(
        "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
    )))
}

/// Whether a volume of the pod wants tokens for an audience: itself, or through its CSI driver.
async fn names_audience(server: &ApiServer, pod: &Object, audience: &str) -> Result<bool, Status> {
    for volume in pod.at("spec").list("volumes") {
        let sources = volume.at("projected").list("sources");
        let wants =
            |s: &Value| s.has("serviceAccountToken") && s.at("serviceAccountToken").text("audience") == audience;
        if sources.iter().any(wants) || driver_wants(server, &driver(server, pod, volume).await?, audience).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The CSI driver behind a volume, or empty.
async fn driver(server: &ApiServer, pod: &Object, volume: &Value) -> Result<String, Status> {
    let claim = match (volume.has("csi"), volume.has("ephemeral")) {
        (true, _) => return Ok(volume.at("csi").text("driver").to_owned()),
        (_, true) => format!("{}-{}", api::meta::name(pod), volume.text("name")),
        _ => volume.at("persistentVolumeClaim").text("claimName").to_owned(),
    };
    if claim.is_empty() {
        return Ok(String::new());
    }
    let claim = get(server, ("", "persistentvolumeclaims"), api::meta::namespace(pod), &claim).await?;
    let volume = claim.at("spec").text("volumeName");
    let volume = get(server, ("", "persistentvolumes"), "", volume).await?;
    Ok(volume.at("spec").at("csi").text("driver").to_owned())
}

async fn driver_wants(server: &ApiServer, driver: &str, audience: &str) -> Result<bool, Status> {
    if driver.is_empty() {
        return Ok(false);
    }
    let driver = get(server, ("storage.k8s.io", "csidrivers"), "", driver).await?;
    Ok(driver.at("spec").list("tokenRequests").iter().any(|request| request.text("audience") == audience))
}

/// An object, or null.
async fn get(
    server: &ApiServer,
    (group, resource): (&str, &str),
    namespace: &str,
    name: &str,
) -> Result<Value, Status> {
    let store = server.store(group, resource).ok_or_else(Status::no_such_path)?;
    store.get(namespace, name).await?.map_or(Ok(Value::Null), |stored| stored.object())
}

/// Whether the node may ask for an audience that no volume names.
fn may_request(server: &ApiServer, a: &Attributes<'_>, audience: &str) -> bool {
    let attributes = authz::Attributes {
        user: &a.request.user,
        verb: "request-serviceaccounts-token-audience",
        is_resource: true,
        group: "",
        version: "v1",
        namespace: a.namespace,
        resource: audience,
        subresource: "",
        name: a.name,
        path: "",
        field_selector: "",
        label_selector: "",
    };
    authz::decide(server, &attributes, None).allowed
}
