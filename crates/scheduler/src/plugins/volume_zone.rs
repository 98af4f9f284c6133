//! Volumes that are labelled with zones or regions keep their pods to nodes there.

use crate::Handle;
use crate::changes::Changes;
use crate::framework::{ClusterEvent, Filter, Plugin, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::storage_class;
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use api::k8s::storage::v1::StorageClass;
use kube::ResourceExt;
use std::sync::Arc;

pub(crate) struct VolumeZone;

/// Labels of topology, each with the one that has taken its place.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];
const SEPARATOR: &str = "__";

/// What nodes must have: a label, its successor, and the values that are good.
#[derive(Debug, PartialEq, Eq)]
struct Topology {
    label: &'static str,
    successor: &'static str,
    values: Vec<String>,
}

struct Wanted(Vec<Topology>);

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self);
    }

    fn register(&self, handle: &Handle, changes: &mut Changes) {
        changes.watch_claims(&handle.claims);
        changes.watch(&handle.volumes);
        changes.watch(&handle.classes);
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        event.changes_claim_of(pod)
            || event.is_change_of::<PersistentVolume>()
            || event.is_change_of::<StorageClass>()
            || event.brings_labels()
    }
}

impl PreFilter for VolumeZone {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let namespace = pod.pod.namespace().unwrap_or_default();
        let claims = pod.spec().volumes.iter().flatten().filter_map(|v| v.persistent_volume_claim.as_ref());
        let mut wanted = Vec::new();
        for claim in claims {
            let name = &claim.claim_name;
            let claim = snapshot.handle.claims.get(&namespace, name);
            let claim =
                claim.ok_or_else(|| Rejection::unresolvable(format!("persistentvolumeclaim {name:?} not found")))?;
            if let Some(volume) = volume_of(snapshot.handle, &claim)? {
                wanted.extend(topologies(&volume));
            }
        }
        Ok(if wanted.is_empty() { None } else { Some(Box::new(Wanted(wanted))) })
    }
}

/// The volume of a claim; `None`: the chosen node decides which it will be.
fn volume_of(handle: &Handle, claim: &PersistentVolumeClaim) -> Result<Option<Arc<PersistentVolume>>, Rejection> {
    let bound = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if !bound.is_empty() {
        let volume = handle.volumes.get("", bound);
        return volume
            .map(Some)
            .ok_or_else(|| Rejection::unresolvable(format!("persistentvolume {bound:?} not found")));
    }
    let class_name = storage_class::of_claim(claim);
    if class_name.is_empty() {
        return Err(Rejection::unresolvable("PersistentVolumeClaim had no pv name and storageClass name"));
    }
    let class = handle.classes.get("", class_name);
    let class = class
        .ok_or_else(|| Rejection::unresolvable(format!("storageclass.storage.k8s.io {class_name:?} not found")))?;
    match class.volume_binding_mode.as_deref() {
        Some("WaitForFirstConsumer") => Ok(None),
        Some(_) => Err(Rejection::unresolvable("PersistentVolume had no name")),
        None => Err(Rejection::unresolvable(format!("VolumeBindingMode not set for StorageClass {class_name:?}"))),
    }
}

/// What a volume's labels say; a list with an empty entry says nothing.
fn topologies(volume: &PersistentVolume) -> Vec<Topology> {
    let topology = |(label, successor): &(&'static str, &'static str)| {
        let values: Vec<String> = volume.labels().get(*label)?.split(SEPARATOR).map(|v| v.trim().to_owned()).collect();
        let usable = values.iter().all(|value| !value.is_empty());
        usable.then_some(Topology { label, successor, values })
    };
    LABELS.iter().filter_map(topology).collect()
}

impl Filter for Wanted {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        // A cluster of one zone need not label its nodes.
        if LABELS.iter().all(|(label, _)| node.label(label).is_none()) {
            return Ok(());
        }
        let holds = |wanted: &Topology| {
            let value = node.label(wanted.label).or_else(|| node.label(wanted.successor));
            value.is_some_and(|value| wanted.values.iter().any(|good| good == value))
        };
        if self.0.iter().all(holds) {
            Ok(())
        } else {
            Err(Rejection::unresolvable("node(s) had no available volume zone"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn nodes_must_be_in_a_zone_of_the_volume() {
        let check = |volume: Value, node: Value, expect: bool| {
            let volume = json!({"metadata": {"name": "v", "labels": volume}});
            let wanted = Wanted(topologies(&serde_json::from_value(volume).expect("volume")));
            let node = json!({"metadata": {"name": "n", "labels": node}});
            let node = NodeInfo::new(Arc::new(serde_json::from_value(node).expect("node")));
            assert_eq!(wanted.filter(&node).is_ok(), expect);
        };
        let (zone, beta) = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone");
        check(json!({zone: "a"}), json!({zone: "a"}), true);
        check(json!({zone: "a__b"}), json!({zone: "b"}), true);
        check(json!({zone: "a"}), json!({zone: "b"}), false);
        check(json!({beta: "a"}), json!({zone: "a"}), true);
        check(json!({beta: "a"}), json!({zone: "b"}), false);
        check(json!({zone: "a"}), json!({}), true);
        check(json!({zone: "a"}), json!({"topology.kubernetes.io/region": "r"}), false);
        check(json!({zone: "a__"}), json!({zone: "b"}), true);
    }
}
