//! PodResizeValidator: a bound pod grows no larger than its node, and only on Linux.

use super::limit_ranger::pod_total;
use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::quantity::Quantity;
use api::{Object, Status, meta};
use async_trait::async_trait;
use resources::field::Fields;
use serde_json::json;

/// The plugin.
pub struct PodResizeValidator;

#[async_trait]
impl Plugin for PodResizeValidator {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let resized = a.operation == Operation::Update && a.resource.resource == "pods" && a.subresource == "resize";
        let (Some(pod), Some(old)) = (object.filter(|_| resized && a.resource.group.is_empty()), a.old) else {
            return Ok(());
        };
        let name = pod.at("spec").text("nodeName");
        if name.is_empty() || meta::generation(pod) == meta::generation(old) {
            return Ok(());
        }
        let store = server.store("", "nodes").ok_or_else(Status::no_such_path)?;
        let Some(stored) = store.get("", name).await? else {
            return Err(a.forbidden(&format!("node {name:?} not found")));
        };
        if let Some(os) = stored.meta.label("kubernetes.io/os").filter(|os| *os != "linux") {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
            return Err(refused(a, &why, "UnsupportedPlatform"));
        }
        let lacking = lacking(pod, &stored.object()?);
        match lacking.is_empty() {
            true => Ok(()),
            false => {
                let why = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
                Err(refused(a, &why, "NodeCapacity"))
            }
        }
    }
}

fn refused(a: &Attributes<'_>, why: &str, reason: &str) -> Status {
    let mut status = a.forbidden(why);
    status.details["causes"] = json!([{"reason": reason}]);
    status
}

/// The resources that the pod requests more of than the node has.
fn lacking(pod: &Object, node: &Object) -> Vec<String> {
    let requests = pod_total(pod, "requests");
    let zero = Quantity::from_milli(0);
    let mut lacking = Vec::new();
    for (name, in_milli) in [("cpu", true), ("memory", false)] {
        let requested = requests.get(name).copied().unwrap_or(zero);
        let text = node.at("status").at("allocatable").text(name);
        let allocatable = Quantity::parse(text).unwrap_or(zero);
        if requested > allocatable {
            let number = |q: &Quantity| if in_milli { q.milli_value() } else { q.value() };
            let (asked, there) = (number(&requested), number(&allocatable));
            lacking.push(format!("{name}, requested: {asked}, allocatable: {there}"));
        }
    }
    lacking
}
