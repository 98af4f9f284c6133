//! How many volumes of a CSI driver a node can have, as its driver said when it registered.

use super::volume_binding::claim_names;
use crate::Handle;
use crate::framework::{ClusterEvent, Filter, Plugin, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use api::k8s::core::v1::Pod;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct NodeVolumeLimits;

/// Volumes by driver, each by its handle.
type Volumes = BTreeMap<String, BTreeSet<String>>;

struct Wanted<'a> {
    handle: &'a Handle,
    volumes: Volumes,
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::StorageChanged | ClusterEvent::AssignedPodDeleted | ClusterEvent::NodeAdded(_))
    }
}

impl PreFilter for NodeVolumeLimits {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let volumes = volumes_of(snapshot.handle, &pod.pod);
        let wanted = (!volumes.is_empty()).then_some(Wanted { handle: snapshot.handle, volumes });
        Ok(wanted.map(|w| Box::new(w) as Box<dyn Filter>))
    }
}

/// The attachable volumes of a pod; one that is not provisioned yet counts for the driver of its class.
fn volumes_of(handle: &Handle, pod: &Pod) -> Volumes {
    let namespace = pod.namespace().unwrap_or_default();
    let mut out = Volumes::new();
    for claim in claim_names(pod).iter().filter_map(|name| handle.claims.get(&namespace, name)) {
        let spec = claim.spec.as_ref();
        let bound = spec.and_then(|s| s.volume_name.as_deref()).filter(|n| !n.is_empty());
        let volume = bound.and_then(|name| handle.volumes.get("", name));
        let csi = volume.as_ref().and_then(|v| v.spec.as_ref()).and_then(|s| s.csi.as_ref());
        let class = spec.and_then(|s| s.storage_class_name.as_deref()).unwrap_or_default();
        let (driver, volume_handle) = match (csi, bound) {
            (Some(csi), _) => (csi.driver.clone(), csi.volume_handle.clone()),
            // Of another type of volume.
            (None, Some(_)) => continue,
            (None, None) => match handle.classes.get("", class) {
                Some(class) => (class.provisioner.clone(), format!("{namespace}/{}", claim.name_any())),
                None => continue,
            },
        };
        out.entry(driver).or_default().insert(volume_handle);
    }
    out
}

impl Filter for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(csi) = self.handle.csi_nodes.get("", node.name()) else { return Ok(()) };
        let limit = |driver: &str| {
            let found = csi.spec.drivers.iter().find(|d| d.name == driver)?;
            found.allocatable.as_ref()?.count.and_then(|n| usize::try_from(n).ok())
        };
        let limited: Vec<_> = self.volumes.iter().filter_map(|(d, wanted)| Some((d, wanted, limit(d)?))).collect();
        if limited.is_empty() {
            return Ok(());
        }
        let mut attached = Volumes::new();
        for pod in &node.pods {
            for (driver, handles) in volumes_of(self.handle, &pod.pod) {
                attached.entry(driver).or_default().extend(handles);
            }
        }
        let fits = |(driver, wanted, limit): &(&String, &BTreeSet<String>, usize)| {
            let there = attached.get(*driver);
            let new = wanted.iter().filter(|w| there.is_none_or(|t| !t.contains(*w))).count();
            new == 0 || there.map_or(0, BTreeSet::len) + new <= *limit
        };
        if limited.iter().all(fits) {
            Ok(())
        } else {
            Err(Rejection::unschedulable("node(s) exceed max volume count"))
        }
    }
}
