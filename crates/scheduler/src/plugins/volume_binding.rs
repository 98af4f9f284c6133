//! Claims of a pod: they must exist, and be bound (or be bindable here) on a node that reaches the volume.
//!
//! A claim whose class waits for its first consumer gets a volume that is there, or has one made on the chosen node: a
//! cycle finds out which for each node ([`unbound`]), the decision for the chosen one is [`assumed`] until it is written
//! and seen, and [`binding`] carries it through.

mod assumed;
mod binding;
mod unbound;

use self::assumed::Assumed;
use self::unbound::{Lacks, Unbound, reaches};
use crate::Handle;
use crate::changes::Changes;
use crate::framework::{ClusterEvent, Code, Filter, Plugin, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, claim_names};
use crate::profile::Profile;
use crate::storage_class;
use crate::waiters::{Object, Waiters};
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use api::k8s::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use informer::Key;
use kube::ResourceExt;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// The plugin; its state is what cycles and bindings tell each other.
#[derive(Default)]
pub(crate) struct VolumeBinding {
    assumed: Mutex<Assumed>,
    /// What the last cycle of one pod found.
    found: Mutex<Found>,
    /// Decisions for pods that are to be bound, by UID.
    bindings: Mutex<HashMap<String, Decision>>,
    /// Pods whose claims are being bound.
    waiters: Arc<Waiters>,
}

#[derive(Default)]
struct Found {
    pod: String,
    by_node: HashMap<String, Decision>,
}

/// What becomes of the unbound claims of a pod on a node.
#[derive(Default)]
struct Decision {
    bind: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    provision: Vec<Arc<PersistentVolumeClaim>>,
}

/// Volumes the node must reach, and claims that are not bound yet.
struct Volumes<'a> {
    plugin: &'a VolumeBinding,
    bound: Vec<Arc<PersistentVolume>>,
    /// A claim is bound to a volume that does not exist.
    missing: bool,
    /// Those that have a node first, then the smallest.
    unbound: Vec<Unbound>,
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self.clone());
        profile.reserve.push(self.clone());
        profile.pre_bind.push(self);
    }

    fn register(&self, handle: &Handle, changes: &mut Changes) {
        changes.watch_claims(&handle.claims);
        changes.watch(&handle.volumes);
        changes.watch(&handle.classes);
        changes.watch(&handle.csi_nodes);
        changes.watch(&handle.csi_drivers);
        changes.watch(&handle.capacities);
        self.waiters.follow(&handle.claims);
        self.waiters.follow(&handle.volumes);
        // A volume that is made has a name that nobody knows before.
        self.waiters.follow_for(&handle.volumes, claim_of_volume);
        self.waiters.follow(&handle.pods);
        self.waiters.follow(&handle.nodes);
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        event.changes_claim_of(pod)
            || event.is_change_of::<PersistentVolume>()
            || event.is_change_of::<StorageClass>()
            || event.is_change_of::<CSINode>()
            || event.is_change_of::<CSIDriver>()
            || event.is_change_of::<CSIStorageCapacity>()
            || event.brings_labels()
    }
}

/// The claim that a volume says it is for.
fn claim_of_volume(volume: &PersistentVolume) -> Option<Object> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Object::new::<PersistentVolumeClaim>(Key::new(claim.namespace.clone()?, claim.name.clone()?)))
}

fn waits_for_consumer(handle: &Handle, claim: &PersistentVolumeClaim) -> bool {
    let mode = handle.classes.get("", storage_class::of_claim(claim)).and_then(|c| c.volume_binding_mode.clone());
    mode.as_deref() == Some("WaitForFirstConsumer")
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let completed = claim.metadata.annotations.iter().flatten().any(|(k, _)| k == "pv.kubernetes.io/bind-completed");
    completed && claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).is_some_and(|name| !name.is_empty())
}

impl PreFilter for VolumeBinding {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        *self.found.lock() = Found { pod: pod.uid().to_owned(), ..Found::default() };
        let names = claim_names(&pod.pod);
        if names.is_empty() {
            return Ok(None);
        }
        let handle = snapshot.handle;
        let mut assumed = self.assumed.lock();
        assumed.settle(handle);
        let mut volumes = Volumes { plugin: self, bound: Vec::new(), missing: false, unbound: Vec::new() };
        for name in names {
            let claim = usable_claim(handle, &pod.pod, &name).map_err(Rejection::unresolvable)?;
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
            if is_bound(&claim) {
                match handle.volumes.get("", volume) {
                    Some(volume) => volumes.bound.push(volume),
                    None => volumes.missing = true,
                }
            } else if !waits_for_consumer(handle, &claim) || !volume.is_empty() {
                return Err(Rejection::unresolvable("pod has unbound immediate PersistentVolumeClaims"));
            } else {
                volumes.unbound.push(Unbound::new(handle, claim, &assumed));
            }
        }
        volumes.unbound.sort_by_key(|claim| (claim.selected.is_none(), claim.request));
        Ok(Some(Box::new(volumes)))
    }
}

/// A claim of a pod; an error is why the pod cannot use it.
fn usable_claim(handle: &Handle, pod: &Pod, name: &str) -> Result<Arc<PersistentVolumeClaim>, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let named =
        |v: &&api::k8s::core::v1::Volume| v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == name);
    let is_ephemeral = !pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|v| named(&v));
    let Some(claim) = handle.claims.get(&namespace, name) else {
        return Err(if is_ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        });
    };
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost") {
        let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        return Err(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    let owned = claim
        .owner_references()
        .iter()
        .any(|o| o.controller == Some(true) && Some(&o.uid) == pod.metadata.uid.as_ref());
    if is_ephemeral && !owned {
        let pod = format!("{namespace}/{}", pod.name_any());
        return Err(format!("PVC {namespace}/{name} was not created for pod {pod} (pod is not owner)"));
    }
    Ok(claim)
}

impl Volumes<'_> {
    /// Finds a volume for each unbound claim, or a way to make one.
    fn place(&self, node: &NodeInfo) -> Result<Decision, Lacks> {
        if self.unbound.iter().any(|claim| claim.is_elsewhere(node)) {
            return Err(Lacks::Volume);
        }
        let mut decision = Decision::default();
        for unbound in &self.unbound {
            let used = |volume: &Arc<PersistentVolume>| decision.bind.iter().any(|(used, _)| Arc::ptr_eq(used, volume));
            match unbound.place(node, used)? {
                Some(volume) => decision.bind.push((volume.clone(), unbound.claim.clone())),
                None => decision.provision.push(unbound.claim.clone()),
            }
        }
        Ok(decision)
    }
}

impl Filter for Volumes<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let placed = self.place(node);
        let lacks = placed.as_ref().err().copied();
        let reasons = [
            (
                !self.bound.iter().all(|volume| reaches(volume, &node.node)),
                "node(s) didn't match PersistentVolume's node affinity",
            ),
            (lacks == Some(Lacks::Volume), "node(s) didn't find available persistent volumes to bind"),
            (lacks == Some(Lacks::Space), "node(s) did not have enough free storage"),
            (self.missing, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
        ];
        let reasons: Vec<_> = reasons.into_iter().filter(|(holds, _)| *holds).map(|(_, why)| why.into()).collect();
        match placed {
            Ok(decision) if reasons.is_empty() => {
                if !self.unbound.is_empty() {
                    self.plugin.found.lock().by_node.insert(node.name().to_owned(), decision);
                }
                Ok(())
            }
            _ => Err(Rejection { code: Code::Unresolvable, reasons }),
        }
    }
}
