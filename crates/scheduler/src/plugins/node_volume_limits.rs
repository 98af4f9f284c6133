//! How many volumes of a CSI driver a node can have, as its driver said when it registered.

use crate::Handle;
use crate::changes::Changes;
use crate::framework::{ClusterEvent, Filter, Plugin, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, claim_names};
use crate::profile::Profile;
use crate::storage_class;
use api::k8s::core::v1::Pod;
use api::k8s::storage::v1::{CSINode, VolumeAttachment};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) struct NodeVolumeLimits;

/// The informer's index of attachments by node.
const ATTACHMENTS: &str = "scheduler/node";

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

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self);
    }

    fn register(&self, handle: &Handle, changes: &mut Changes) {
        handle.attachments.add_index(ATTACHMENTS, |attachment| vec![attachment.spec.node_name.clone()]);
        changes.watch(&handle.csi_nodes);
        changes.watch(&handle.attachments);
        changes.watch_claims(&handle.claims);
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::AssignedPodDeleted | ClusterEvent::NodeAdded(_))
            || event.is_change_of::<CSINode>()
            || event.is_change_of::<VolumeAttachment>()
            || event.changes_claim_of(pod)
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
        let (driver, volume_handle) = match (csi, &volume) {
            (Some(csi), _) => (csi.driver.clone(), csi.volume_handle.clone()),
            // Of another type of volume.
            (None, Some(_)) => continue,
            // Not provisioned yet, or bound to a volume that does not exist (yet).
            (None, None) => match handle.classes.get("", storage_class::of_claim(&claim)) {
                Some(class) => (class.provisioner.clone(), format!("{namespace}/{}", claim.name_any())),
                None => continue,
            },
        };
        out.entry(driver).or_default().insert(volume_handle);
    }
    out
}

impl Wanted<'_> {
    /// Volumes that are attached to a node, by driver and handle: those of pods that are gone as well.
    fn attached_to(&self, node: &str) -> Vec<(String, String)> {
        let volume = |attachment: &Arc<VolumeAttachment>| {
            let name = attachment.spec.source.persistent_volume_name.as_deref()?;
            let volume = self.handle.volumes.get("", name)?;
            let csi = volume.spec.as_ref()?.csi.as_ref()?;
            Some((attachment.spec.attacher.clone(), csi.volume_handle.clone()))
        };
        self.handle.attachments.by_index(ATTACHMENTS, node).iter().filter_map(volume).collect()
    }
}

impl Filter for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(csi) = self.handle.csi_nodes.get("", node.name()) else {
            return Ok(());
        };
        let limit = |driver: &str| {
            let found = csi.spec.drivers.iter().find(|d| d.name == driver)?;
            found.allocatable.as_ref()?.count.and_then(|n| usize::try_from(n).ok())
        };
        let limited: Vec<_> = self.volumes.iter().filter_map(|(d, wanted)| Some((d, wanted, limit(d)?))).collect();
        if limited.is_empty() {
            return Ok(());
        }
        let (mut attached, mut others) = (Volumes::new(), Volumes::new());
        for pod in &node.pods {
            for (driver, handles) in volumes_of(self.handle, &pod.pod) {
                attached.entry(driver).or_default().extend(handles);
            }
        }
        for (driver, handle) in self.attached_to(node.name()) {
            others.entry(driver).or_default().insert(handle);
        }
        let fits = |(driver, wanted, limit): &(&String, &BTreeSet<String>, usize)| {
            let none = BTreeSet::new();
            let there = attached.get(*driver).unwrap_or(&none);
            let new = wanted.difference(there).count();
            // A volume of a pod is attached, too; the pod's own takes no more room (v1.36 counts that one twice).
            let others = others.get(*driver).unwrap_or(&none);
            let left_over = others.iter().filter(|o| !there.contains(*o) && !wanted.contains(*o)).count();
            new == 0 || there.len() + left_over + new <= *limit
        };
        if limited.iter().all(fits) { Ok(()) } else { Err(Rejection::unschedulable("node(s) exceed max volume count")) }
    }
}
