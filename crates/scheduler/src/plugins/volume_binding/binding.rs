//! From the chosen node to bound claims: volumes are given their claims, provisioners are told the node, and the pod
//! waits until both have led to claims that are bound where the pod can reach them.

use super::unbound::{is_made_for, reaches};
use super::{Decision, Found, SELECTED_NODE, VolumeBinding, is_bound};
use crate::framework::{PreBind, Rejection, Reserve};
use crate::pod_info::uid;
use crate::waiters::{Object, Waiting};
use crate::{Handle, version};
use api::k8s::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use futures::FutureExt;
use futures::future::BoxFuture;
use informer::{Key, reference};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// How long a pod waits for its claims to be bound once its node is chosen.
const TIMEOUT: Duration = Duration::from_secs(600);

impl Reserve for VolumeBinding {
    fn reserve(&self, pod: &Pod, node: &str) -> Result<(), Rejection> {
        let Found { pod: of, mut by_node } = std::mem::take(&mut *self.found.lock());
        if of == uid(pod)
            && let Some(decision) = by_node.remove(node)
        {
            self.assumed.lock().add(&of, node, &decision);
            self.bindings.lock().insert(of, decision);
        }
        Ok(())
    }

    fn unreserve(&self, _handle: &Arc<Handle>, pod: &Pod, _node: &str) {
        self.bindings.lock().remove(uid(pod));
        self.assumed.lock().remove(uid(pod));
    }
}

impl PreBind for VolumeBinding {
    fn pre_bind<'a>(&'a self, handle: &'a Handle, pod: &'a Pod, node: &'a str) -> BoxFuture<'a, Result<(), Rejection>> {
        async move {
            let Some(decision) = self.bindings.lock().remove(uid(pod)) else {
                return Ok(());
            };
            let written = self.write(handle, pod, node, decision).await.map_err(Rejection::error)?;
            let waited = tokio::time::timeout(TIMEOUT, self.wait_bound(handle, pod, node, &written)).await;
            let bound = waited.unwrap_or_else(|_| Err("context deadline exceeded".into()));
            bound.map_err(|why| Rejection::error(format!("binding volumes: {why}")))
        }
        .boxed()
    }
}

impl VolumeBinding {
    /// Writes a decision; returns it with volumes and claims as they are in the API then.
    async fn write(&self, handle: &Handle, pod: &Pod, node: &str, decision: Decision) -> Result<Decision, String> {
        let mut written = Decision::default();
        for (volume, claim) in decision.bind {
            let volume = write_volume(handle, volume, &claim).await.map_err(|e| e.to_string())?;
            self.assumed.lock().volume_written(Key::of(volume.as_ref()), uid(pod), version(&volume.metadata));
            written.bind.push((volume, claim));
        }
        for claim in decision.provision {
            let claim = write_claim(handle, claim, node).await?;
            self.assumed.lock().claim_written(Key::of(claim.as_ref()), uid(pod), version(&claim.metadata));
            written.provision.push(claim);
        }
        Ok(written)
    }

    async fn wait_bound(&self, handle: &Handle, pod: &Pod, node: &str, written: &Decision) -> Result<(), String> {
        let waiting = self.wait_for(pod, node, written);
        while !all_bound(handle, pod, node, written)? {
            waiting.woken().await;
        }
        Ok(())
    }

    /// Begins to wait for everything that [`all_bound`] looks at.
    fn wait_for(&self, pod: &Pod, node: &str, written: &Decision) -> Waiting {
        let given =
            written.bind.iter().flat_map(|(volume, claim)| [Object::of(volume.as_ref()), Object::of(claim.as_ref())]);
        let made = written.provision.iter().map(|claim| Object::of(claim.as_ref()));
        let place = [Object::of(pod), Object::new::<Node>(Key::new("", node))];
        self.waiters.wait_for(given.chain(made).chain(place))
    }
}

/// Gives a volume to a claim.
async fn write_volume(
    handle: &Handle,
    volume: Arc<PersistentVolume>,
    claim: &PersistentVolumeClaim,
) -> Result<Arc<PersistentVolume>, kube::Error> {
    let owner = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if owner.is_some_and(|owner| owner.uid == claim.metadata.uid) {
        return Ok(volume);
    }
    let mut wanted = PersistentVolume::clone(&volume);
    if !is_made_for(&volume, claim) {
        wanted.annotations_mut().insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    }
    wanted.spec.get_or_insert_default().claim_ref = Some(reference(claim));
    let api: Api<PersistentVolume> = Api::all(handle.client.clone());
    api.replace(&volume.name_any(), &PostParams::default(), &wanted).await.map(Arc::new)
}

/// Tells a claim's provisioner the node.
async fn write_claim(
    handle: &Handle,
    judged: Arc<PersistentVolumeClaim>,
    node: &str,
) -> Result<Arc<PersistentVolumeClaim>, String> {
    let seen = handle.claims.get_key(&Key::of(judged.as_ref())).filter(|c| c.uid() == judged.uid());
    let claim = seen.unwrap_or_else(|| judged.clone());
    // Another pod may have told it since.
    if selected_node(&claim) == Some(node) {
        return Ok(claim);
    }
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if !volume.is_empty() || selected_node(&claim) != selected_node(&judged) {
        // As the server says of one who writes what was decided on an older state.
        return Err(format!(
            "Operation cannot be fulfilled on persistentvolumeclaims {:?}: the object has been modified; please apply your changes to the latest version and try again",
            claim.name_any()
        ));
    }
    let metadata = json!({"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
        "annotations": {SELECTED_NODE: node}});
    let api: Api<PersistentVolumeClaim> =
        Api::namespaced(handle.client.clone(), &claim.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let written = api.patch(&claim.name_any(), &PatchParams::default(), &patch).await;
    written.map(Arc::new).map_err(|e| e.to_string())
}

fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.annotations().get(SELECTED_NODE).map(String::as_str)
}

/// Whether everything is bound as it was decided; an error is why it never will be.
fn all_bound(handle: &Handle, pod: &Pod, node: &str, written: &Decision) -> Result<bool, String> {
    let node =
        &handle.nodes.get("", node).ok_or_else(|| format!("failed to get node {node:?}: node {node:?} not found"))?;
    let name = pod.name_any();
    if handle.pods.get(&pod.namespace().unwrap_or_default(), &name).is_none_or(|p| uid(&p) != uid(pod)) {
        return Err(format!("pod does not exist any more: pod {name:?} not found"));
    }
    for (volume, claim) in &written.bind {
        if !is_given(handle, node, volume, claim)? {
            return Ok(false);
        }
    }
    for claim in &written.provision {
        if !is_provisioned(handle, node, claim)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a volume that was given to a claim is the claim's.
fn is_given(
    handle: &Handle,
    node: &Node,
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Result<bool, String> {
    let name = volume.name_any();
    let seen = handle.volumes.get("", &name);
    let seen = seen.ok_or_else(|| format!("failed to check binding: could not find v1.PersistentVolume {name:?}"))?;
    let claim = claim_of(handle, claim).map_err(|why| format!("failed to check binding: {why}"))?;
    if version(&seen.metadata) < version(&volume.metadata) {
        return Ok(false);
    }
    refuse_unreachable(&seen, node)?;
    let owner = seen.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|c| c.uid.as_deref());
    if owner.unwrap_or_default().is_empty() {
        return Err(format!("ClaimRef got reset for pv {name:?}"));
    }
    Ok(is_bound(&claim))
}

/// Whether a claim has a volume that was made for it.
fn is_provisioned(handle: &Handle, node: &Node, claim: &PersistentVolumeClaim) -> Result<bool, String> {
    let seen = claim_of(handle, claim).map_err(|why| format!("failed to check provisioning pvc: {why}"))?;
    if version(&seen.metadata) < version(&claim.metadata) {
        return Ok(false);
    }
    let name = claim.name_any();
    let Some(annotations) = &seen.metadata.annotations else {
        return Err(format!("selectedNode annotation reset for PVC {name:?}"));
    };
    // A provisioner that cannot do it takes the node away.
    if annotations.get(SELECTED_NODE).is_none_or(|selected| *selected != node.name_any()) {
        return Err(format!("provisioning failed for PVC {name:?}"));
    }
    let volume = seen.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if !volume.is_empty() {
        // The claim may be seen before its volume, which must be judged first.
        let Some(volume) = handle.volumes.get("", volume) else {
            return Ok(false);
        };
        refuse_unreachable(&volume, node)?;
    }
    Ok(is_bound(&seen))
}

fn claim_of(handle: &Handle, claim: &PersistentVolumeClaim) -> Result<Arc<PersistentVolumeClaim>, String> {
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let seen = handle.claims.get(&namespace, &name);
    seen.ok_or_else(|| format!("could not find v1.PersistentVolumeClaim \"{namespace}/{name}\""))
}

fn refuse_unreachable(volume: &PersistentVolume, node: &Node) -> Result<(), String> {
    if reaches(volume, node) {
        return Ok(());
    }
    let (volume, node) = (volume.name_any(), node.name_any());
    Err(format!("pv {volume:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms"))
}
