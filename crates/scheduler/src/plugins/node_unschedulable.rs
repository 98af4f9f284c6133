//! Avoids cordoned nodes, except for pods that tolerate that.

use crate::framework::{ClusterEvent, Filter, Plugin, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::selectors::any_tolerates;
use api::k8s::core::v1::{Node, Pod, Taint};
use std::sync::Arc;

pub(crate) struct NodeUnschedulable;

struct Tolerated(bool);

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self);
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => !is_cordoned(node),
            ClusterEvent::NodeUpdated { old, new } => is_cordoned(old) && !is_cordoned(new),
            ClusterEvent::PodUpdated => true,
            _ => false,
        }
    }
}

impl PreFilter for NodeUnschedulable {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let taint =
            Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Default::default() };
        Ok(Some(Box::new(Tolerated(any_tolerates(pod.spec().tolerations.as_ref(), &taint)))))
    }
}

impl Filter for Tolerated {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let rejected = is_cordoned(&node.node) && !self.0;
        if rejected { Err(Rejection::unresolvable("node(s) were unschedulable")) } else { Ok(()) }
    }
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true))
}
