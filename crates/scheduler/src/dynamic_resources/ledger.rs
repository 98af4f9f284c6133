//! What is taken: allocations in the API, and those that were decided and are not seen there yet.

use super::DeviceId;
use api::k8s::resource::v1::{AllocationResult, ResourceClaim};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// An allocation on its way into the API.
struct Pending {
    allocation: AllocationResult,
    /// It was written; only the informer has not seen it.
    written: bool,
}

/// Allocations by the UID of their claim that the informer does not show.
#[derive(Default)]
pub(crate) struct Ledger(HashMap<String, Pending>);

impl Ledger {
    /// Notes a decision.
    pub fn add(&mut self, claim: &str, allocation: AllocationResult) {
        self.0.insert(claim.to_owned(), Pending { allocation, written: false });
    }

    /// The decision for a claim that is still to be written.
    pub fn to_write(&self, claim: &str) -> Option<&AllocationResult> {
        self.0.get(claim).filter(|p| !p.written).map(|p| &p.allocation)
    }

    /// Whether a claim is being allocated.
    pub fn holds(&self, claim: &str) -> bool {
        self.0.contains_key(claim)
    }

    /// Notes that a decision is in the API.
    pub fn written(&mut self, claim: &str) {
        if let Some(pending) = self.0.get_mut(claim) {
            pending.written = true;
        }
    }

    /// Drops a decision that was not written.
    pub fn remove(&mut self, claim: &str) {
        if self.0.get(claim).is_some_and(|p| !p.written) {
            self.0.remove(claim);
        }
    }

    /// Forgets what the API shows by now, or what is gone from it, and returns the devices in use.
    pub fn taken(&mut self, claims: &[Arc<ResourceClaim>]) -> HashSet<DeviceId> {
        let mut unseen: HashSet<&str> = HashSet::new();
        let mut taken = HashSet::new();
        for claim in claims {
            match claim.status.as_ref().and_then(|s| s.allocation.as_ref()) {
                Some(allocation) => taken.extend(devices(allocation)),
                None => drop(unseen.insert(claim.metadata.uid.as_deref().unwrap_or_default())),
            }
        }
        self.0.retain(|uid, _| unseen.contains(uid.as_str()));
        taken.extend(self.0.values().flat_map(|p| devices(&p.allocation)));
        taken
    }
}

/// The devices of an allocation that nobody else may have.
fn devices(allocation: &AllocationResult) -> impl Iterator<Item = DeviceId> {
    let results = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
    results.filter(|r| r.admin_access != Some(true)).map(|r| DeviceId {
        driver: r.driver.clone(),
        pool: r.pool.clone(),
        device: r.device.clone(),
    })
}
