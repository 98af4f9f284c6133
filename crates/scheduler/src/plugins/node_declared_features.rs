//! Keeps pods that need a feature of the node to nodes that declare it.

use crate::framework::{ClusterEvent, Filter, Plugin, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use api::k8s::core::v1::{Node, Pod, PodSpec};
use std::sync::Arc;

pub(crate) struct NodeDeclaredFeatures;

struct Wanted(Vec<&'static str>);

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self);
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::PodUpdated)
            || event.brings(|node| node.status.as_ref()?.declared_features.as_ref())
    }
}

/// The features a node says it has.
fn declared(node: &Node) -> &[String] {
    node.status.as_ref().and_then(|s| s.declared_features.as_deref()).unwrap_or_default()
}

/// The features a pod needs.
fn needed(spec: &PodSpec) -> Vec<&'static str> {
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let restarts_all =
        containers.any(|c| c.restart_policy_rules.iter().flatten().any(|rule| rule.action == "RestartAllContainers"));
    let users_of_host_network = spec.host_network == Some(true) && spec.host_users == Some(false);
    let features = [
        (restarts_all, "RestartAllContainersOnContainerExits"),
        (users_of_host_network, "UserNamespacesHostNetworkSupport"),
    ];
    features.into_iter().filter(|(needs, _)| *needs).map(|(_, name)| name).collect()
}

impl PreFilter for NodeDeclaredFeatures {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let needed = needed(pod.spec());
        Ok(if needed.is_empty() { None } else { Some(Box::new(Wanted(needed))) })
    }
}

impl Filter for Wanted {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let declared = declared(&node.node);
        if self.0.iter().all(|feature| declared.iter().any(|d| d == feature)) {
            Ok(())
        } else {
            Err(Rejection::unresolvable("node(s) didn't match Pod's required features"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn pods_go_to_nodes_that_declare_what_they_need() {
        let check = |spec: Value, features: Value, expect: bool| {
            let node = json!({"metadata": {"name": "n"}, "status": {"declaredFeatures": features}});
            let node = NodeInfo::new(Arc::new(serde_json::from_value(node).expect("node")));
            let wanted = Wanted(needed(&serde_json::from_value(spec).expect("spec")));
            assert_eq!(wanted.filter(&node).is_ok(), expect);
        };
        let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}}]);
        let restarts = || json!({"containers": [{"name": "c", "restartPolicyRules": rules}]});
        check(json!({"containers": []}), json!([]), true);
        check(restarts(), json!([]), false);
        check(restarts(), json!(["Other", "RestartAllContainersOnContainerExits"]), true);
        check(json!({"containers": [], "hostNetwork": true, "hostUsers": false}), json!([]), false);
        check(json!({"containers": [], "hostNetwork": true}), json!([]), true);
    }
}
