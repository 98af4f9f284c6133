//! Keeps pods with the same host port apart.

use crate::framework::{ClusterEvent, Filter, Plugin, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::{HostPort, PodInfo};
use crate::profile::Profile;
use api::k8s::core::v1::Pod;
use std::sync::Arc;

pub(crate) struct NodePorts;

struct Wanted<'a>(&'a [HostPort]);

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self);
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded(_) | ClusterEvent::AssignedPodDeleted)
    }
}

impl PreFilter for NodePorts {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        Ok(if pod.host_ports.is_empty() { None } else { Some(Box::new(Wanted(&pod.host_ports))) })
    }
}

impl Filter for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let used = || node.pods.iter().flat_map(|p| &p.host_ports);
        if self.0.iter().any(|port| used().any(|other| port.conflicts(other))) {
            return Err(Rejection::unschedulable("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}
