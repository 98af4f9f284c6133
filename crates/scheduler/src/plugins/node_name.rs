//! Keeps a pod that names its node to that node.

use crate::framework::{ClusterEvent, Filter, Plugin, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, node_name};
use crate::profile::Profile;
use api::k8s::core::v1::Pod;
use std::sync::Arc;

pub(crate) struct NodeName;

struct Named<'a>(&'a str);

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self);
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded(_))
    }
}

impl PreFilter for NodeName {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let name = node_name(&pod.pod);
        Ok(if name.is_empty() { None } else { Some(Box::new(Named(name))) })
    }
}

impl Filter for Named<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.name() == self.0 {
            Ok(())
        } else {
            Err(Rejection::unresolvable("node(s) didn't match the requested node name"))
        }
    }
}
