//! Volumes that bear one user only: claims with access mode ReadWriteOncePod, and disks that pods name themselves.

use crate::Handle;
use crate::changes::Changes;
use crate::framework::{ClusterEvent, Filter, Plugin, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use api::k8s::core::v1::{Pod, Volume};
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) struct VolumeRestrictions;

struct Wanted<'a> {
    pod: &'a Pod,
    /// Claims that only one pod may use.
    exclusive: Vec<String>,
    /// Pods with such a claim by node.
    users: HashMap<&'a str, usize>,
    disks: bool,
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self);
    }

    fn register(&self, handle: &Handle, changes: &mut Changes) {
        changes.watch_claims(&handle.claims);
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::AssignedPodDeleted | ClusterEvent::NodeAdded(_)) || event.changes_claim_of(pod)
    }
}

impl PreFilter for VolumeRestrictions {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let exclusive = exclusive_claims(snapshot.handle, &pod.pod)?;
        let disks = volumes(&pod.pod).any(is_disk);
        if exclusive.is_empty() && !disks {
            return Ok(None);
        }
        let mut wanted = Wanted { pod: &pod.pod, exclusive, users: HashMap::new(), disks };
        if !wanted.exclusive.is_empty() {
            let users = snapshot.nodes.iter().map(|node| (node.name(), wanted.users_on(node)));
            wanted.users = users.filter(|(_, count)| *count > 0).collect();
        }
        Ok(Some(Box::new(wanted)))
    }
}

fn exclusive_claims(handle: &Handle, pod: &Pod) -> Result<Vec<String>, Rejection> {
    let namespace = pod.namespace().unwrap_or_default();
    let mut out = Vec::new();
    for name in claim_names(pod) {
        let claim = handle.claims.get(&namespace, name);
        let claim =
            claim.ok_or_else(|| Rejection::unresolvable(format!("persistentvolumeclaim {name:?} not found")))?;
        let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
        if modes.into_iter().flatten().any(|mode| mode == "ReadWriteOncePod") {
            out.push(name.to_owned());
        }
    }
    Ok(out)
}

/// Claims that a pod names itself: one of an ephemeral volume is the pod's alone.
fn claim_names(pod: &Pod) -> impl Iterator<Item = &str> {
    volumes(pod).filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

impl Wanted<'_> {
    fn users_on(&self, node: &NodeInfo) -> usize {
        let same = |pod: &Pod| {
            pod.metadata.namespace == self.pod.metadata.namespace
                && claim_names(pod).any(|name| self.exclusive.iter().any(|own| own == name))
        };
        node.pods.iter().filter(|pod| same(&pod.pod)).count()
    }
}

impl Filter for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        // This node may be a trial without some of its pods; the others are as they are.
        let others: usize = self.users.iter().filter(|(name, _)| **name != node.name()).map(|(_, count)| count).sum();
        if !self.exclusive.is_empty() && others + self.users_on(node) > 0 {
            return Err(Rejection::unschedulable(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
            ));
        }
        let mut theirs = node.pods.iter().flat_map(|pod| volumes(&pod.pod));
        if self.disks && theirs.any(|theirs| volumes(self.pod).any(|ours| conflict(ours, theirs))) {
            return Err(Rejection::unschedulable("node(s) had no available disk"));
        }
        Ok(())
    }
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten())
}

fn is_disk(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.rbd.is_some()
        || volume.iscsi.is_some()
}

/// Whether two pods cannot have these volumes on one node: the same disk, unless both only read (EBS: in any case).
fn conflict(a: &Volume, b: &Volume) -> bool {
    let writes = |a: Option<bool>, b: Option<bool>| !(a == Some(true) && b == Some(true));
    let gce = a.gce_persistent_disk.as_ref().zip(b.gce_persistent_disk.as_ref());
    let ebs = a.aws_elastic_block_store.as_ref().zip(b.aws_elastic_block_store.as_ref());
    let iscsi = a.iscsi.as_ref().zip(b.iscsi.as_ref());
    let rbd = a.rbd.as_ref().zip(b.rbd.as_ref());
    gce.is_some_and(|(a, b)| a.pd_name == b.pd_name && writes(a.read_only, b.read_only))
        || ebs.is_some_and(|(a, b)| a.volume_id == b.volume_id)
        || iscsi.is_some_and(|(a, b)| a.iqn == b.iqn && writes(a.read_only, b.read_only))
        || rbd.is_some_and(|(a, b)| {
            a.monitors.iter().any(|m| b.monitors.contains(m))
                && a.pool.as_deref().unwrap_or("rbd") == b.pool.as_deref().unwrap_or("rbd")
                && a.image == b.image
                && writes(a.read_only, b.read_only)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn disks_conflict_unless_both_read() {
        let check = |a: Value, b: Value, expect: bool| {
            let volume = |mut v: Value| {
                v["name"] = "v".into();
                serde_json::from_value::<Volume>(v).expect("volume")
            };
            assert_eq!(conflict(&volume(a.clone()), &volume(b.clone())), expect, "{a} {b}");
        };
        let gce = |name: &str, read: bool| json!({"gcePersistentDisk": {"pdName": name, "readOnly": read}});
        check(gce("a", false), gce("a", true), true);
        check(gce("a", true), gce("a", true), false);
        check(gce("a", false), gce("b", false), false);
        let ebs = json!({"awsElasticBlockStore": {"volumeID": "a", "readOnly": true}});
        check(ebs.clone(), ebs.clone(), true);
        check(ebs, gce("a", false), false);
        let rbd = |monitors: Value, pool: &str| json!({"rbd": {"monitors": monitors, "image": "i", "pool": pool}});
        check(rbd(json!(["a", "b"]), "p"), rbd(json!(["b"]), "p"), true);
        check(rbd(json!(["a"]), "p"), rbd(json!(["b"]), "p"), false);
        let iscsi = |lun: i64| json!({"iscsi": {"targetPortal": "t", "iqn": "i", "lun": lun}});
        check(iscsi(0), iscsi(1), true);
    }
}
