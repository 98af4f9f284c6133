//! Claims of a pod for devices: allocated on a node that has them, and reserved for the pod before it is bound.
//!
//! A cycle ([`cycle`]) leaves what it found for each node; the node that is chosen becomes a [`Binding`], which
//! [`reserve`] carries through until the pod is bound or has failed.

mod binding;
mod cycle;
mod reserve;

use crate::Handle;
use crate::changes::Changes;
use crate::dynamic_resources::extended::{self, Extended};
use crate::dynamic_resources::inventory::Inventory;
use crate::dynamic_resources::ledger::Ledger;
use crate::framework::{ClusterEvent, Plugin, PreEnqueue, Rejection};
use crate::pod_info::uid;
use crate::profile::Profile;
use crate::waiters::Waiters;
use api::k8s::core::v1::{Pod, PodResourceClaim};
use api::k8s::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use kube::ResourceExt;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The plugin; its state is what cycles and bindings tell each other.
#[derive(Default)]
pub(crate) struct DynamicResources {
    ledger: Mutex<Ledger>,
    inventory: Mutex<Arc<Inventory>>,
    /// What the last cycle of one pod found.
    found: Mutex<Found>,
    /// Pods that are being bound, by UID.
    bindings: Mutex<HashMap<String, Binding>>,
    /// Bindings that wait for claims.
    waiters: Arc<Waiters>,
}

#[derive(Default)]
struct Found {
    pod: String,
    claims: Vec<Arc<ResourceClaim>>,
    /// The claim for extended resources of an earlier cycle.
    stale: Option<Arc<ResourceClaim>>,
    by_node: HashMap<String, OnNode>,
    /// UIDs of allocated claims that kept the pod from some node.
    unavailable: BTreeSet<String>,
}

/// What a node can give: for each claim without an allocation one, that for extended resources last.
#[derive(Default)]
struct OnNode {
    results: Vec<AllocationResult>,
    extended: Option<Arc<Extended>>,
}

/// A pod on its way to its node.
struct Binding {
    /// The claims of the pod, as they were written last.
    claims: Vec<Arc<ResourceClaim>>,
    /// Decided allocations by claim.
    decided: HashMap<String, AllocationResult>,
    /// The claim for extended resources: its requests, then, once it is made, itself.
    extended: Option<(Arc<Extended>, Option<Arc<ResourceClaim>>)>,
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_enqueue.push(self.clone());
        profile.pre_filter.push(self.clone());
        profile.post_filter.push(self.clone());
        profile.pre_score.push(self.clone());
        profile.reserve.push(self.clone());
        profile.pre_bind.push(self.clone());
        profile.post_bind.push(self);
    }

    fn register(&self, handle: &Handle, changes: &mut Changes) {
        changes.watch(&handle.resource_claims);
        changes.watch(&handle.resource_slices);
        changes.watch(&handle.device_classes);
        extended::index(&handle.device_classes);
        self.waiters.follow(&handle.resource_claims);
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::AssignedPodDeleted | ClusterEvent::PodUpdated)
            || event.is_change_of::<ResourceClaim>()
            || event.is_change_of::<ResourceSlice>()
            || event.is_change_of::<DeviceClass>()
            || event.brings_labels()
            || event.brings(|node| node.status.as_ref()?.allocatable.as_ref())
    }
}

impl PreEnqueue for DynamicResources {
    fn pre_enqueue(&self, pod: &Pod) -> Result<(), Rejection> {
        // The update of the pod that names the claim lets it in.
        let references = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
        references.into_iter().try_for_each(|r| claim_name_of(pod, r).map(drop)).map_err(Rejection::unresolvable)
    }
}

/// Name of a claim, and whether it was made for the pod alone; `None`: it was not needed.
fn claim_name_of(pod: &Pod, reference: &PodResourceClaim) -> Result<Option<(String, bool)>, String> {
    let pod_name = || format!("pod \"{}/{}\"", pod.namespace().unwrap_or_default(), pod.name_any());
    match (&reference.resource_claim_name, &reference.resource_claim_template_name) {
        (Some(name), _) => Ok(Some((name.clone(), false))),
        (None, Some(_)) => {
            let statuses = pod.status.as_ref().and_then(|s| s.resource_claim_statuses.as_ref());
            let made = statuses.into_iter().flatten().find(|s| s.name == reference.name);
            let made = made.ok_or_else(|| format!("{}: ResourceClaim not created yet", pod_name()))?;
            Ok(made.resource_claim_name.clone().map(|name| (name, true)))
        }
        (None, None) => {
            let name = &reference.name;
            Err(format!("{}, spec.resourceClaim {name:?}: none of the supported fields are set", pod_name()))
        }
    }
}

/// The claims of a pod; an error is why it waits.
fn claims_of(handle: &Handle, pod: &Pod) -> Result<Vec<Arc<ResourceClaim>>, String> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let mut out = Vec::new();
    for reference in pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()) {
        let Some((claim_name, of_template)) = claim_name_of(pod, reference)? else { continue };
        let claim = handle.resource_claims.get(&namespace, &claim_name);
        let claim = claim.ok_or_else(|| format!("resourceclaim.resource.k8s.io {claim_name:?} not found"))?;
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("resourceclaim {claim_name:?} is being deleted"));
        }
        let owners = claim.metadata.owner_references.iter().flatten();
        if of_template && !owners.into_iter().any(|o| o.controller == Some(true) && o.uid == uid(pod)) {
            let of = format!("ResourceClaim {namespace}/{claim_name}");
            return Err(format!("{of} was not created for Pod {namespace}/{name} (Pod is not owner)"));
        }
        out.push(claim);
    }
    Ok(out)
}

fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

fn is_reserved_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    claim.status.iter().flat_map(|s| s.reserved_for.iter().flatten()).any(|r| r.uid == uid(pod))
}

fn claim_uid(claim: &ResourceClaim) -> &str {
    claim.metadata.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn pods_wait_for_the_claims_of_their_templates() {
        let check = |claim: Value, statuses: Value, expect: Result<(), &str>| {
            let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [], "resourceClaims": [claim]},
                "status": {"resourceClaimStatuses": statuses}});
            let pod: Pod = serde_json::from_value(pod).expect("pod");
            let got = DynamicResources::default().pre_enqueue(&pod).map_err(|r| r.reasons.join(", "));
            assert_eq!(got, expect.map_err(str::to_owned));
        };
        let of_template = || json!({"name": "x", "resourceClaimTemplateName": "t"});
        check(json!({"name": "x", "resourceClaimName": "c"}), json!([]), Ok(()));
        check(of_template(), json!([]), Err("pod \"n/p\": ResourceClaim not created yet"));
        check(of_template(), json!([{"name": "x", "resourceClaimName": "p-x"}]), Ok(()));
        check(of_template(), json!([{"name": "x"}]), Ok(()));
        let nothing = "pod \"n/p\", spec.resourceClaim \"x\": none of the supported fields are set";
        check(json!({"name": "x"}), json!([]), Err(nothing));
    }
}
