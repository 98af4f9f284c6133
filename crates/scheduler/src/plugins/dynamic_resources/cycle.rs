//! One pod's cycle: which nodes its claims are on, or can be allocated on.

use super::{DynamicResources, Found, OnNode, allocation, binding, claim_uid, claims_of, is_reserved_for};
use crate::Handle;
use crate::dynamic_resources::allocator::{Limits, Refused, allocate};
use crate::dynamic_resources::conditions::{self, Readiness};
use crate::dynamic_resources::extended::{self, Extended};
use crate::dynamic_resources::inventory::Inventory;
use crate::dynamic_resources::needs::{ClaimNeeds, claim_name};
use crate::dynamic_resources::usage::Usage;
use crate::framework::{
    Failure, Filter, Nomination, PostFilter, PreFilter, PreScore, Rejection, Score, Snapshot, normalize_to_max,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::selectors::node_selector_matches;
use api::k8s::resource::v1::{AllocationResult, DeviceClass, ResourceClaim};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Most users of one claim.
const MAX_RESERVED: usize = 256;
/// Most alternatives of one request.
const MAX_ALTERNATIVES: usize = 8;

/// One pod's cycle.
struct Cycle<'a> {
    plugin: &'a DynamicResources,
    handle: &'a Handle,
    pod: &'a PodInfo,
    /// Claims that have an allocation.
    allocated: Vec<Arc<ResourceClaim>>,
    needs: Vec<ClaimNeeds>,
    resources: Option<Resources>,
    inventory: Arc<Inventory>,
    usage: Usage,
    limits: Limits,
}

/// Extended resources of the pod that device classes may stand for.
struct Resources {
    wanted: BTreeMap<String, Option<Arc<DeviceClass>>>,
    template: ResourceClaim,
    /// There is a claim of an earlier cycle, which must go first.
    stale: bool,
    /// Claims by the set of resources they are for: nodes differ in what a device plugin gives.
    made: Mutex<Vec<(Vec<String>, Arc<Extended>)>>,
}

impl DynamicResources {
    /// The inventory of the present slices.
    fn inventory(&self, handle: &Handle) -> Arc<Inventory> {
        let slices = handle.resource_slices.list();
        let mut known = self.inventory.lock();
        if !known.is_of(&slices) {
            *known = Arc::new(Inventory::new(slices));
        }
        known.clone()
    }

    /// What is in use: allocations in the API, and those that are on their way there.
    fn usage(&self, claims: &[Arc<ResourceClaim>], inventory: &Inventory) -> Usage {
        let ledger = self.ledger.lock();
        Usage::new(inventory, claims.iter().filter_map(|c| allocation(c)).chain(ledger.allocations()))
    }

    /// Reads the claims that are to be allocated, unless one cannot be now.
    fn needs(&self, handle: &Handle, pod: &PodInfo, claims: &[Arc<ResourceClaim>]) -> Result<Vec<ClaimNeeds>, String> {
        let mut needs = Vec::new();
        for claim in claims {
            if allocation(claim).is_some() {
                let users = claim.status.as_ref().and_then(|s| s.reserved_for.as_ref()).map_or(0, Vec::len);
                if users >= MAX_RESERVED && !is_reserved_for(claim, &pod.pod) {
                    return Err("resourceclaim in use".into());
                }
            } else if self.ledger.lock().holds(claim_uid(claim)) {
                return Err(format!("resource claim {} is in the process of being allocated", claim_name(claim)));
            } else {
                needs.push(ClaimNeeds::new(&|name| handle.device_classes.get("", name), claim)?);
            }
        }
        Ok(needs)
    }
}

impl PreFilter for DynamicResources {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        // Of an earlier cycle of the pod, which may have had claims that it has no more.
        *self.found.lock() = Found::default();
        let handle = snapshot.handle;
        let wanted = extended::of_pod(handle, &pod.requests);
        let backed = wanted.values().any(Option::is_some);
        if !backed && pod.spec().resource_claims.as_ref().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        let claims = claims_of(handle, &pod.pod).map_err(Rejection::unresolvable)?;
        let stale = if backed { extended::find(handle, &pod.pod) } else { None };
        if !backed && claims.is_empty() {
            return Ok(None);
        }
        let all = handle.resource_claims.list();
        self.ledger.lock().settle(&all);
        let needs = self.needs(handle, pod, &claims).map_err(Rejection::unresolvable)?;
        let allocated = claims.iter().filter(|c| allocation(c).is_some()).cloned().collect();
        let inventory = if needs.is_empty() && !backed { Arc::default() } else { self.inventory(handle) };
        let usage = self.usage(&all, &inventory);
        let resources = backed.then(|| Resources {
            wanted,
            template: extended::template(&pod.pod),
            stale: stale.is_some(),
            made: Mutex::default(),
        });
        *self.found.lock() = Found { pod: pod.uid().to_owned(), claims, stale, ..Found::default() };
        let limits = Limits::new(snapshot.began);
        Ok(Some(Box::new(Cycle { plugin: self, handle, pod, allocated, needs, resources, inventory, usage, limits })))
    }
}

impl Cycle<'_> {
    /// The claim for extended resources that this node does not have from a device plugin.
    fn extended(&self, node: &NodeInfo) -> Result<Option<Arc<Extended>>, Rejection> {
        let Some(resources) = &self.resources else {
            return Ok(None);
        };
        if resources.stale {
            return Err(Rejection::unresolvable("cannot schedule extended resource claim"));
        }
        let mut missing = BTreeMap::new();
        for (name, class) in &resources.wanted {
            let there = node.allocatable.scalar.get(name).copied();
            match class {
                Some(class) if there.unwrap_or(0) == 0 => {
                    missing.insert(name.clone(), class.metadata.name.clone().unwrap_or_default());
                }
                _ if there.is_none() => return Err(Rejection::unresolvable("cannot fit resource")),
                _ => {}
            }
        }
        if missing.is_empty() {
            return Ok(None);
        }
        let mut made = resources.made.lock();
        let known = made.iter().find(|(names, _)| names.iter().eq(missing.keys()));
        if let Some((_, extended)) = known {
            return Ok(Some(extended.clone()));
        }
        let classes = |name: &str| self.handle.device_classes.get("", name);
        let extended = extended::complete(&resources.template, &self.pod.pod, &missing, &classes);
        let extended = Arc::new(extended.map_err(Rejection::unresolvable)?);
        made.push((missing.into_keys().collect(), extended.clone()));
        Ok(Some(extended))
    }

    /// Allocated claims that this node cannot use.
    fn unavailable(&self, node: &NodeInfo) -> Vec<&Arc<ResourceClaim>> {
        let unusable = |claim: &&Arc<ResourceClaim>| {
            let selector = allocation(claim).and_then(|a| a.node_selector.as_ref());
            if selector.is_some_and(|selector| !node_selector_matches(selector, &node.node)) {
                return true;
            }
            match conditions::readiness(claim) {
                Readiness::Ready => false,
                Readiness::Waiting => conditions::deadline(claim).is_some_and(|d| d < Timestamp::now()),
                Readiness::Failed(_) => true,
            }
        };
        self.allocated.iter().filter(unusable).collect()
    }
}

impl Filter for Cycle<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let extended = self.extended(node)?;
        let needs: Vec<&ClaimNeeds> = self.needs.iter().chain(extended.iter().map(|e| &e.needs)).collect();
        let results = if needs.is_empty() {
            Vec::new()
        } else {
            allocate(&needs, &self.inventory, &self.usage, &node.node, self.limits).map_err(
                |refused| match refused {
                    Refused::NotNow(why) => Rejection::unresolvable(why),
                    Refused::Error(why) => Rejection::error(why),
                },
            )?
        };
        let unavailable = self.unavailable(node);
        let mut found = self.plugin.found.lock();
        if !unavailable.is_empty() {
            found.unavailable.extend(unavailable.iter().map(|claim| claim_uid(claim).to_owned()));
            return Err(Rejection::unresolvable("resourceclaim not available on the node"));
        }
        found.by_node.insert(node.name().to_owned(), OnNode { results, extended });
        Ok(())
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
        let found = std::mem::take(&mut *self.found.lock());
        if found.pod != pod.uid() {
            return Err("no new claims to deallocate".into());
        }
        if let Some(claim) = given_back(&found, pod.uid()) {
            binding::deallocate(snapshot.handle, claim.clone());
            return Err("deallocation of ResourceClaim completed".into());
        }
        if let Some(claim) = found.stale {
            binding::delete(snapshot.handle, claim);
            return Err("deletion of ResourceClaim completed".into());
        }
        Err("still not schedulable".into())
    }
}

/// An allocation that kept the pod from some node and that nobody else uses.
fn given_back<'a>(found: &'a Found, pod: &str) -> Option<&'a Arc<ResourceClaim>> {
    let ours = |claim: &&Arc<ResourceClaim>| {
        let users = claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or_default();
        found.unavailable.contains(claim_uid(claim)) && (users.is_empty() || users.len() == 1 && users[0].uid == pod)
    };
    found.claims.iter().find(ours)
}

/// Nodes by how early the alternatives are that they can serve.
struct Preferences(HashMap<String, i64>);

impl PreScore for DynamicResources {
    fn weight(&self) -> i64 {
        2
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
        _feasible: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let found = self.found.lock();
        let requests =
            |c: &Arc<ResourceClaim>| c.spec.devices.as_ref().and_then(|d| d.requests.clone()).unwrap_or_default();
        if found.pod != pod.uid() || !found.claims.iter().flat_map(requests).any(|r| r.first_available.is_some()) {
            return None;
        }
        let score = |(name, node): (&String, &OnNode)| (name.clone(), score(&found.claims, &node.results));
        Some(Box::new(Preferences(found.by_node.iter().map(score).collect())))
    }
}

impl Score for Preferences {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.0.get(node.name()).copied().unwrap_or(0)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, false);
    }
}

/// More for each alternative, the earlier it stands in its request.
fn score(claims: &[Arc<ResourceClaim>], results: &[AllocationResult]) -> i64 {
    let mut results = results.iter();
    let mut sum = 0;
    for claim in claims {
        let Some(allocation) = allocation(claim).or_else(|| results.next()) else {
            continue;
        };
        let chosen: Vec<&str> =
            allocation.devices.iter().flat_map(|d| d.results.iter().flatten()).map(|r| r.request.as_str()).collect();
        for request in claim.spec.devices.iter().flat_map(|d| d.requests.iter().flatten()) {
            for (at, alternative) in request.first_available.iter().flatten().enumerate() {
                let name = format!("{}/{}", request.name, alternative.name);
                if chosen.contains(&name.as_str()) {
                    sum += i64::try_from(MAX_ALTERNATIVES.saturating_sub(at)).unwrap_or(0);
                }
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(name: &str, status: Value) -> Arc<ResourceClaim> {
        let sub = |name: &str| json!({"name": name, "deviceClassName": "gpu"});
        let requests = json!([{"name": "r", "firstAvailable": [sub("large"), sub("small")]}]);
        let spec = json!({"devices": {"requests": requests}});
        let claim = json!({"metadata": {"name": name, "uid": name}, "spec": spec, "status": status});
        Arc::new(serde_json::from_value(claim).expect("claim"))
    }

    fn result(request: &str) -> Value {
        json!({"devices": {"results": [{"driver": "d", "pool": "p", "device": "x", "request": request}]}})
    }

    #[test]
    fn earlier_alternatives_score_higher() {
        let check = |claims: &[Arc<ResourceClaim>], results: &[&str], expect: i64| {
            let results = results.iter().map(|r| serde_json::from_value(result(r)).expect("result"));
            assert_eq!(score(claims, &results.collect::<Vec<_>>()), expect);
        };
        let open = || claim("c", json!({}));
        check(&[open()], &["r/large"], 8);
        check(&[open()], &["r/small"], 7);
        check(&[claim("a", json!({"allocation": result("r/small")})), open()], &["r/large"], 15);
    }

    #[test]
    fn only_claims_that_kept_the_pod_away_and_nobody_else_uses_are_given_back() {
        let check = |users: &[&str], unavailable: &[&str], expect: bool| {
            let users: Vec<Value> = users.iter().map(|u| json!({"resource": "pods", "name": u, "uid": u})).collect();
            let claims = vec![claim("c", json!({"allocation": result("r/small"), "reservedFor": users}))];
            let unavailable = unavailable.iter().map(|u| (*u).to_owned()).collect();
            let found = Found { pod: "pod".into(), claims, unavailable, ..Found::default() };
            assert_eq!(given_back(&found, "pod").is_some(), expect);
        };
        check(&[], &["c"], true);
        check(&["pod"], &["c"], true);
        check(&["other"], &["c"], false);
        check(&["pod", "other"], &["c"], false);
        check(&["pod"], &[], false);
    }
}
