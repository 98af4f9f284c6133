//! Claims of a pod: they must exist, and be bound (or be bindable here) on a node that reaches the volume.
//!
//! A claim whose class waits for its first consumer is told the chosen node, which starts provisioning.

mod unbound;

use self::unbound::{Lacks, Unbound, reaches};
use crate::Handle;
use crate::framework::{ClusterEvent, Code, Filter, Plugin, PreBind, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// How long a pod waits for its claims to be bound once its node is chosen.
const BIND_TIMEOUT: Duration = Duration::from_secs(600);

pub(crate) struct VolumeBinding;

/// Volumes the node must reach, and claims that are not bound yet, the smallest first.
struct Volumes {
    bound: Vec<Arc<PersistentVolume>>,
    /// A claim is bound to a volume that does not exist.
    missing: bool,
    unbound: Vec<Unbound>,
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::StorageChanged | ClusterEvent::NodeAdded(_) | ClusterEvent::NodeUpdated { .. })
    }
}

/// Names of the claims of a pod, those of ephemeral volumes included.
pub(super) fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let name = |v: &api::k8s::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), v.name)),
        _ => None,
    };
    volumes.filter_map(name).collect()
}

fn waits_for_consumer(handle: &Handle, claim: &PersistentVolumeClaim) -> bool {
    let class = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()).unwrap_or("");
    let mode = handle.classes.get("", class).and_then(|c| c.volume_binding_mode.clone());
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
        let names = claim_names(&pod.pod);
        if names.is_empty() {
            return Ok(None);
        }
        let handle = snapshot.handle;
        let mut volumes = Volumes { bound: Vec::new(), missing: false, unbound: Vec::new() };
        for name in names {
            let claim = usable_claim(handle, &pod.pod, &name).map_err(Rejection::unresolvable)?;
            if is_bound(&claim) {
                let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
                match handle.volumes.get("", volume) {
                    Some(volume) => volumes.bound.push(volume),
                    None => volumes.missing = true,
                }
            } else if !waits_for_consumer(handle, &claim) {
                return Err(Rejection::unresolvable("pod has unbound immediate PersistentVolumeClaims"));
            } else {
                let selected = claim.annotations().get(SELECTED_NODE).map(String::as_str);
                volumes.unbound.push(Unbound::new(handle, &claim, selected));
            }
        }
        volumes.unbound.sort_by_key(|claim| claim.request);
        Ok(Some(Box::new(volumes)))
    }
}

/// A claim of a pod; an error is why the pod cannot use it.
fn usable_claim(handle: &Handle, pod: &Pod, name: &str) -> Result<Arc<PersistentVolumeClaim>, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let named = |v: &&api::k8s::core::v1::Volume| v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == name);
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
    let owned = claim.owner_references().iter().any(|o| o.controller == Some(true) && Some(&o.uid) == pod.metadata.uid.as_ref());
    if is_ephemeral && !owned {
        let pod = format!("{namespace}/{}", pod.name_any());
        return Err(format!("PVC {namespace}/{name} was not created for pod {pod} (pod is not owner)"));
    }
    Ok(claim)
}

impl Filter for Volumes {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let mut used = Vec::new();
        let lacks = self.unbound.iter().filter_map(|claim| claim.place(node, &mut used).err()).min();
        let reasons = [
            (!self.bound.iter().all(|volume| reaches(volume, node)), "node(s) didn't match PersistentVolume's node affinity"),
            (lacks == Some(Lacks::Volume), "node(s) didn't find available persistent volumes to bind"),
            (lacks == Some(Lacks::Space), "node(s) did not have enough free storage"),
            (self.missing, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
        ];
        let reasons: Vec<_> = reasons.into_iter().filter(|(holds, _)| *holds).map(|(_, why)| why.into()).collect();
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { code: Code::Unresolvable, reasons }) }
    }
}

impl PreBind for VolumeBinding {
    fn pre_bind<'a>(&'a self, handle: &'a Handle, pod: &'a Pod, node: &'a str) -> BoxFuture<'a, Result<(), Rejection>> {
        async move {
            let names = claim_names(pod);
            if names.is_empty() {
                return Ok(());
            }
            let namespace = pod.namespace().unwrap_or_default();
            let api: Api<PersistentVolumeClaim> = Api::namespaced(handle.client.clone(), &namespace);
            for claim in
                names.iter().filter_map(|name| handle.claims.get(&namespace, name)).filter(|claim| !is_bound(claim))
            {
                let patch = Patch::Merge(json!({"metadata": {"annotations": {SELECTED_NODE: node}}}));
                api.patch(&claim.name_any(), &PatchParams::default(), &patch)
                    .await
                    .map_err(|e| Rejection::error(e.to_string()))?;
            }
            let waiting = wait_bound(handle, &namespace, &names);
            tokio::time::timeout(BIND_TIMEOUT, waiting)
                .await
                .map_err(|_| Rejection::error("binding volumes: context deadline exceeded"))?;
            refuse_unreachable(handle, &namespace, &names, node).map_err(Rejection::error)
        }
        .boxed()
    }
}

async fn wait_bound(handle: &Handle, namespace: &str, names: &[String]) {
    let all_bound =
        || names.iter().all(|name| handle.claims.get(namespace, name).is_some_and(|claim| is_bound(&claim)));
    if all_bound() {
        return;
    }
    let mut changes = handle.claims.subscribe();
    while !all_bound() && changes.next().await.is_some() {}
}

/// What the claims were bound to meanwhile may be elsewhere.
fn refuse_unreachable(handle: &Handle, namespace: &str, names: &[String], node: &str) -> Result<(), String> {
    let Some(info) = handle.nodes.get("", node).map(NodeInfo::new) else { return Ok(()) };
    for claim in names.iter().filter_map(|name| handle.claims.get(namespace, name)) {
        let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        if handle.volumes.get("", volume).is_some_and(|volume| !reaches(&volume, &info)) {
            let why = format!("pv {volume:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms");
            return Err(format!("binding volumes: {why}"));
        }
    }
    Ok(())
}
