//! NodeDeclaredFeatureValidator: a bound pod is not updated to what its node has not declared it can do (KEP-5328).

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::{Object, Status, meta};
use async_trait::async_trait;
use resources::field::Fields;
use serde_json::Value;

/// The plugin.
pub struct NodeDeclaredFeatureValidator;

/// A feature of nodes, and whether an update of a pod asks for it.
type Asks = fn(old: &Object, new: &Object) -> bool;

/// By name, in that order.
const FEATURES: [(&str, Asks); 2] = [
    ("InPlacePodLevelResourcesVerticalScaling", resizes_pod),
    ("InPlacePodVerticalScalingInitContainers", resizes_init_containers),
];

#[async_trait]
impl Plugin for NodeDeclaredFeatureValidator {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let pods = a.resource.group.is_empty() && a.resource.resource == "pods";
        let updated = pods && a.operation == Operation::Update && ["", "resize"].contains(&a.subresource);
        let (Some(pod), Some(old)) = (object.filter(|_| updated), a.old) else { return Ok(()) };
        let name = pod.at("spec").text("nodeName");
        if name.is_empty() || meta::generation(pod) == meta::generation(old) {
            return Ok(());
        }
        let asked: Vec<&str> = FEATURES.iter().filter(|(_, asks)| asks(old, pod)).map(|(name, _)| *name).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let store = server.store("", "nodes").ok_or_else(Status::no_such_path)?;
        let Some(node) = store.get("", name).await? else {
            return Err(a.forbidden(&format!("node {} not found", api::quoted(name))));
        };
        let node = node.object()?;
        let declared = node.at("status").texts("declaredFeatures");
        let lacking: Vec<&str> = asked.into_iter().filter(|name| !declared.contains(name)).collect();
        match lacking.is_empty() {
            true => Ok(()),
            false => Err(a.forbidden(&format!(
                "pod update requires features {} which are not available on node {}",
                lacking.join(", "),
                api::quoted(name)
            ))),
        }
    }
}

fn resizes_pod(old: &Object, new: &Object) -> bool {
    let resources = |pod: &Object| pod.at("spec").get("resources").cloned().unwrap_or(Value::Null);
    resources(old) != resources(new)
}

fn resizes_init_containers(old: &Object, new: &Object) -> bool {
    let before = old.at("spec").list("initContainers").iter();
    before.zip(new.at("spec").list("initContainers")).any(|(before, after)| {
        before.text("restartPolicy") != "Always" && before.get("resources") != after.get("resources")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_update_asks_for() {
        let check = |old: Value, new: Value, expect: &[&str]| {
            let of = |spec: Value| json!({"spec": spec});
            let (old, new) = (of(old), of(new));
            let asked: Vec<&str> = FEATURES.iter().filter(|(_, asks)| asks(&old, &new)).map(|(n, _)| *n).collect();
            assert_eq!(asked, expect);
        };
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        check(json!({}), json!({}), &[]);
        check(json!({"resources": cpu("1")}), json!({"resources": cpu("2")}), &[FEATURES[0].0]);
        let init = |amount: &str| json!({"initContainers": [{"name": "i", "resources": cpu(amount)}]});
        check(init("1"), init("2"), &[FEATURES[1].0]);
        let sidecar = |amount: &str| json!({"initContainers": [{"name": "i", "restartPolicy": "Always", "resources": cpu(amount)}]});
        check(sidecar("1"), sidecar("2"), &[]);
    }
}
