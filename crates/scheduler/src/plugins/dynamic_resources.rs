//! Claims of a pod for devices: allocated on a node that has them, and reserved for the pod before it is bound.

mod binding;

use crate::dynamic_resources::DeviceId;
use crate::dynamic_resources::allocator::{Refused, allocate};
use crate::dynamic_resources::inventory::Inventory;
use crate::dynamic_resources::ledger::Ledger;
use crate::dynamic_resources::needs::{ClaimNeeds, claim_name};
use crate::framework::{
    ClusterEvent, Failure, Filter, Nomination, Plugin, PostFilter, PreBind, PreEnqueue, PreFilter, Rejection, Reserve,
    Snapshot,
};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, uid};
use crate::profile::Profile;
use crate::selectors::node_selector_matches;
use crate::Handle;
use api::k8s::core::v1::{Pod, PodResourceClaim};
use api::k8s::resource::v1::{AllocationResult, ResourceClaim};
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::ResourceExt;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Most users of one claim.
const MAX_RESERVED: usize = 256;

/// The plugin; its state is what cycles and bindings tell each other.
#[derive(Default)]
pub(crate) struct DynamicResources {
    ledger: Mutex<Ledger>,
    /// What the last cycle of one pod found, by node.
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    pod: String,
    claims: Vec<Arc<ResourceClaim>>,
    by_node: HashMap<String, Vec<AllocationResult>>,
}

/// One pod's cycle.
struct Cycle<'a> {
    plugin: &'a DynamicResources,
    pod: &'a PodInfo,
    /// Claims that have an allocation.
    allocated: Vec<Arc<ResourceClaim>>,
    needs: Vec<ClaimNeeds>,
    inventory: Inventory,
    taken: HashSet<DeviceId>,
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(
            event,
            ClusterEvent::DevicesChanged
                | ClusterEvent::AssignedPodDeleted
                | ClusterEvent::PodUpdated
                | ClusterEvent::NodeAdded(_)
                | ClusterEvent::NodeUpdated { .. }
        )
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

impl PreFilter for DynamicResources {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        if pod.pod.spec.as_ref().and_then(|s| s.resource_claims.as_ref()).is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        let handle = snapshot.handle;
        let claims = claims_of(handle, &pod.pod).map_err(Rejection::unresolvable)?;
        let taken = self.ledger.lock().taken(&handle.resource_claims.list());
        let (mut allocated, mut needs) = (Vec::new(), Vec::new());
        for claim in &claims {
            if allocation(claim).is_some() {
                let users = claim.status.as_ref().and_then(|s| s.reserved_for.as_ref()).map_or(0, Vec::len);
                if users >= MAX_RESERVED && !is_reserved_for(claim, &pod.pod) {
                    return Err(Rejection::unresolvable("resourceclaim in use"));
                }
                allocated.push(claim.clone());
            } else if self.ledger.lock().holds(claim.metadata.uid.as_deref().unwrap_or_default()) {
                let name = claim_name(claim);
                return Err(Rejection::unresolvable(format!("resource claim {name} is in the process of being allocated")));
            } else {
                needs.push(ClaimNeeds::new(&|name| handle.device_classes.get("", name), claim).map_err(Rejection::unresolvable)?);
            }
        }
        *self.found.lock() = Found { pod: pod.uid().to_owned(), claims, by_node: HashMap::new() };
        let slices = if needs.is_empty() { Vec::new() } else { handle.resource_slices.list() };
        let inventory = Inventory::new(slices);
        Ok(Some(Box::new(Cycle { plugin: self, pod, allocated, needs, inventory, taken })))
    }
}

impl Filter for Cycle<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let fits = |claim: &Arc<ResourceClaim>| {
            let selector = allocation(claim).and_then(|a| a.node_selector.as_ref());
            selector.is_none_or(|selector| node_selector_matches(selector, &node.node))
        };
        if !self.allocated.iter().all(fits) {
            return Err(Rejection::unresolvable("resourceclaim not available on the node"));
        }
        if self.needs.is_empty() {
            return Ok(());
        }
        match allocate(&self.needs, &self.inventory, &self.taken, &node.node) {
            Ok(results) => {
                let mut found = self.plugin.found.lock();
                if found.pod == self.pod.uid() {
                    found.by_node.insert(node.name().to_owned(), results);
                }
                Ok(())
            }
            Err(Refused::NotNow(why)) => Err(Rejection::unresolvable(why)),
            Err(Refused::Error(why)) => Err(Rejection::error(why)),
        }
    }
}

impl PostFilter for DynamicResources {
    fn post_filter(
        &self,
        pod: &PodInfo,
        snapshot: Snapshot<'_>,
        _profile: &Profile,
        _failure: &Failure,
    ) -> Result<Nomination, String> {
        let claims = claims_of(snapshot.handle, &pod.pod).unwrap_or_default();
        if claims.is_empty() {
            return Err("no new claims to deallocate".into());
        }
        // An allocation that keeps the pod from every node, and that nobody else uses, is given back.
        let unavailable = |claim: &&Arc<ResourceClaim>| {
            let selector = allocation(claim).and_then(|a| a.node_selector.as_ref());
            selector.is_some_and(|s| !snapshot.nodes.iter().any(|n| node_selector_matches(s, &n.node)))
        };
        let ours = |claim: &&Arc<ResourceClaim>| {
            let users = claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or_default();
            users.is_empty() || users.len() == 1 && users[0].uid == pod.uid()
        };
        match claims.iter().filter(unavailable).find(ours) {
            Some(claim) => {
                binding::deallocate(snapshot.handle, claim.clone());
                Err("deallocation of ResourceClaim completed".into())
            }
            None => Err("still not schedulable".into()),
        }
    }
}

impl Reserve for DynamicResources {
    fn reserve(&self, pod: &Pod, node: &str) -> Result<(), Rejection> {
        let mut found = self.found.lock();
        if found.pod != uid(pod) {
            return Ok(());
        }
        let results = found.by_node.remove(node).unwrap_or_default();
        let unallocated: Vec<_> = found.claims.iter().filter(|c| allocation(c).is_none()).collect();
        if results.len() != unallocated.len() {
            return Err(Rejection::error("claim allocation not found for node"));
        }
        let mut ledger = self.ledger.lock();
        for (claim, result) in unallocated.into_iter().zip(results) {
            ledger.add(claim.metadata.uid.as_deref().unwrap_or_default(), result);
        }
        Ok(())
    }

    fn unreserve(&self, handle: &Arc<Handle>, pod: &Pod, _node: &str) {
        for claim in claims_of(handle, pod).unwrap_or_default() {
            self.ledger.lock().remove(claim.metadata.uid.as_deref().unwrap_or_default());
            if is_reserved_for(&claim, pod) {
                binding::unreserve(handle, claim, uid(pod).to_owned());
            }
        }
    }
}

impl PreBind for DynamicResources {
    fn pre_bind<'a>(&'a self, handle: &'a Handle, pod: &'a Pod, _node: &'a str) -> BoxFuture<'a, Result<(), Rejection>> {
        async move {
            for claim in claims_of(handle, pod).map_err(Rejection::error)? {
                let claim_uid = claim.uid().unwrap_or_default();
                let allocation = self.ledger.lock().to_write(&claim_uid).cloned();
                if allocation.is_none() && is_reserved_for(&claim, pod) {
                    continue;
                }
                binding::bind(handle, &claim, pod, allocation).await.map_err(Rejection::error)?;
                self.ledger.lock().written(&claim_uid);
            }
            Ok(())
        }
        .boxed()
    }
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
