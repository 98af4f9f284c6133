//! `pods/binding` (and `bindings`): gives a pod its node.

use crate::admission::{self, Attributes, Operation};
use crate::body::Body;
use crate::handlers::{Request, answer, options};
use crate::registry::Resource;
use crate::registry::decode::{Expected, body};
use crate::registry::meta::time;
use crate::server::ApiServer;
use crate::store::{Preconditions, Stored, Update};
use api::{Cause, Gvk, Object, Status, meta};
use http::Response;
use serde_json::{Value, json};

const SCHEMA: &str = "io.k8s.api.core.v1.Binding";

/// Binds a pod.
pub async fn handle(server: &ApiServer, request: &Request, pods: &Resource) -> Result<Response<Body>, Status> {
    let options = options::write_options(request, "CreateOptions", "binding")?;
    let gvk = Gvk::new("", "v1", "Binding");
    let mut binding = body(request, &Expected::new(SCHEMA, &gvk)).await?;
    let namespace = &request.info.namespace;
    crate::registry::decode::check_namespace(pods, &mut binding, namespace)?;
    let name = if request.info.name.is_empty() { meta::name(&binding).to_owned() } else { request.info.name.clone() };
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    if meta::name(&binding) != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let target = check(&binding)?;
    let attributes = Attributes {
        request,
        resource: pods,
        operation: Operation::Create,
        subresource: "binding",
        namespace,
        name: &name,
        old: None,
        dry_run: options.dry_run,
        options: None,
        reinvocation: None,
    };
    admission::admit(server, &attributes, &mut binding).await?;
    admission::validate(server, &attributes, Some(&binding)).await?;
    let uid = Some(meta::uid(&binding).to_owned()).filter(|u| !u.is_empty());
    let preconditions = Preconditions { uid, ..Preconditions::default() };
    let now = time(request.now);
    let change = |_: &Stored, pod: Object| assign(pod, &binding, &target, &now).map(Update::Write);
    pods.store.guaranteed_update(namespace, &name, &preconditions, change, options.dry_run).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    answer::plain(request, 201, &done)
}

fn check(binding: &Object) -> Result<String, Status> {
    let target = |field: &str| binding.pointer(&format!("/target/{field}")).and_then(Value::as_str).unwrap_or("");
    let mut causes = Vec::new();
    if !matches!(target("kind"), "" | "Node") {
        causes.push(Cause::not_supported("target.kind", &json!(target("kind")), &["Node", "<empty>"]));
    }
    if target("name").is_empty() {
        causes.push(Cause::required("target.name", ""));
    }
    if causes.is_empty() {
        return Ok(target("name").to_owned());
    }
    // Upstream sends these errors as they are.
    let list: Vec<_> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
    let text = if list.len() == 1 { list.join("") } else { format!("[{}]", list.join(", ")) };
    Err(Status::new(500, "", text))
}

fn assign(mut pod: Object, binding: &Object, node: &str, now: &str) -> Result<Object, Status> {
    let name = meta::name(&pod).to_owned();
    let conflict = |why: String| Status::conflict("", "pods/binding", &name, &why);
    if meta::is_deleting(&pod) {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    if let Some(present) = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty()) {
        return Err(conflict(format!("pod {name} is already assigned to node {present:?}")));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty()) {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    meta::field_mut(&mut pod, "spec").insert("nodeName".into(), node.into());
    for field in ["annotations", "labels"] {
        let extra = binding.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
        for (key, value) in extra.into_iter().flatten() {
            let entry = meta::metadata_mut(&mut pod).entry(field).or_insert_with(|| json!({}));
            entry[key.as_str()] = value.clone();
        }
    }
    set_scheduled(&mut pod, now);
    Ok(pod)
}

fn set_scheduled(pod: &mut Object, now: &str) {
    let generation = meta::generation(pod);
    let status = meta::field_mut(pod, "status");
    let mut list = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut condition = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now, "lastProbeTime": null});
    if generation > 0 {
        condition["observedGeneration"] = generation.into();
    }
    match list.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(present) => *present = condition,
        None => list.push(condition),
    }
    status.insert("conditions".into(), list.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {}});
        let binding = json!({"metadata": {"annotations": {"a": "b"}}, "target": {"name": "n"}});
        let bound = assign(pod, &binding, "n", "now").expect("bound");
        assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["a"]), (&json!("n"), &json!("b")));
        assert_eq!(bound["status"]["conditions"][0]["status"], "True");
        let again = assign(bound, &binding, "m", "now").expect_err("taken");
        assert!(again.message.ends_with("pod p is already assigned to node \"n\""), "{}", again.message);
    }
}
