//! Claims of a pod: they must exist, and be bound (or be bindable here) on a node that reaches the volume.
//!
//! A claim whose class waits for its first consumer is told the chosen node, which starts provisioning.

use crate::Handle;
use crate::framework::{ClusterEvent, Filter, Plugin, PreBind, PreFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::selectors::node_selector_matches;
use api::k8s::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// How long a pod waits for its claims to be bound once its node is chosen.
const BIND_TIMEOUT: Duration = Duration::from_secs(600);

pub(crate) struct VolumeBinding;

/// Volumes the node must reach, and candidates for claims that are not bound yet.
struct Volumes {
    bound: Vec<Arc<PersistentVolume>>,
    unbound: Vec<Vec<Arc<PersistentVolume>>>,
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

fn is_provisioned(handle: &Handle, claim: &PersistentVolumeClaim) -> bool {
    let class = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()).unwrap_or("");
    handle.classes.get("", class).is_some_and(|c| c.provisioner != NO_PROVISIONER)
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
        let (handle, namespace) = (snapshot.handle, pod.pod.namespace().unwrap_or_default());
        let mut volumes = Volumes { bound: Vec::new(), unbound: Vec::new() };
        for name in names {
            let Some(claim) = handle.claims.get(&namespace, &name) else {
                return Err(Rejection::unresolvable(format!("persistentvolumeclaim {name:?} not found")));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(Rejection::unresolvable(format!("persistentvolumeclaim {name:?} is being deleted")));
            }
            if is_bound(&claim) {
                let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
                let Some(volume) = handle.volumes.get("", &volume) else {
                    return Err(Rejection::unresolvable(
                        "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
                    ));
                };
                volumes.bound.push(volume);
            } else if !waits_for_consumer(handle, &claim) {
                return Err(Rejection::unresolvable("pod has unbound immediate PersistentVolumeClaims"));
            } else if !is_provisioned(handle, &claim) {
                volumes.unbound.push(candidates(handle, &claim));
            }
        }
        Ok(Some(Box::new(volumes)))
    }
}

/// Free volumes of the claim's class.
fn candidates(handle: &Handle, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
    let class = claim.spec.as_ref().and_then(|s| s.storage_class_name.clone());
    let mut list = handle.volumes.list();
    list.retain(|v| {
        let spec = v.spec.as_ref();
        let owner = spec.and_then(|s| s.claim_ref.as_ref());
        let free = owner.is_none_or(|r| r.name == claim.metadata.name && r.namespace == claim.metadata.namespace);
        free && spec.and_then(|s| s.storage_class_name.clone()).unwrap_or_default() == class.clone().unwrap_or_default()
    });
    list
}

fn reaches(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    affinity.is_none_or(|selector| node_selector_matches(selector, &node.node))
}

impl Filter for Volumes {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.bound.iter().all(|volume| reaches(volume, node)) {
            return Err(Rejection::unresolvable("node(s) didn't match PersistentVolume's node affinity"));
        }
        if !self.unbound.iter().all(|list| list.iter().any(|volume| reaches(volume, node))) {
            return Err(Rejection::unresolvable("node(s) didn't find available persistent volumes to bind"));
        }
        Ok(())
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
                .map_err(|_| Rejection::error("binding volumes: context deadline exceeded"))
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
