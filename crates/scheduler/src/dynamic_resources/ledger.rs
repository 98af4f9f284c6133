//! Allocations that were decided here and that the informer does not show yet.

use api::k8s::resource::v1::{AllocationResult, ResourceClaim};
use std::collections::HashMap;
use std::sync::Arc;

/// An allocation on its way into the API.
struct Pending {
    /// The pod it was decided for.
    pod: String,
    allocation: AllocationResult,
    /// The resource version it was written at.
    written: Option<u64>,
    /// The claim is made here, so the informer need not have it.
    unborn: bool,
}

/// Allocations by the UID of their claim.
#[derive(Default)]
pub(crate) struct Ledger(HashMap<String, Pending>);

impl Ledger {
    /// Notes a decision for a pod.
    pub fn add(&mut self, claim: &str, pod: &str, allocation: AllocationResult) {
        let pending = Pending { pod: pod.to_owned(), allocation, written: None, unborn: false };
        self.0.insert(claim.to_owned(), pending);
    }

    /// Notes a decision for a claim that is still to be made, under a UID of its own.
    pub fn add_unborn(&mut self, claim: &str, pod: &str, allocation: AllocationResult) {
        let pending = Pending { pod: pod.to_owned(), allocation, written: None, unborn: true };
        self.0.insert(claim.to_owned(), pending);
    }

    /// Notes the UID that a claim got when it was made.
    pub fn named(&mut self, unborn: &str, claim: &str) {
        if let Some(pending) = self.0.remove(unborn) {
            self.0.insert(claim.to_owned(), pending);
        }
    }

    /// Notes that the informer has shown a claim that was made here, or never will.
    pub fn born(&mut self, claim: &str) {
        if let Some(pending) = self.0.get_mut(claim) {
            pending.unborn = false;
        }
    }

    /// Whether a claim is being allocated.
    pub fn holds(&self, claim: &str) -> bool {
        self.0.contains_key(claim)
    }

    /// Notes that a pod's decision is in the API, at a resource version.
    pub fn written(&mut self, claim: &str, pod: &str, version: u64) {
        if let Some(pending) = self.0.get_mut(claim).filter(|p| p.pod == pod) {
            pending.written = Some(version);
        }
    }

    /// Drops a pod's decision that was not written.
    pub fn remove(&mut self, claim: &str, pod: &str) {
        if self.0.get(claim).is_some_and(|p| p.pod == pod && p.written.is_none()) {
            self.0.remove(claim);
        }
    }

    /// Drops a decision whose claim is deleted.
    pub fn forget(&mut self, claim: &str) {
        self.0.remove(claim);
    }

    /// Forgets what the API shows by now, has undone since, or has no claim for any more.
    pub fn settle(&mut self, claims: &[Arc<ResourceClaim>]) {
        if self.0.is_empty() {
            return;
        }
        let shown: HashMap<&str, &ResourceClaim> =
            claims.iter().map(|c| (c.metadata.uid.as_deref().unwrap_or_default(), c.as_ref())).collect();
        self.0.retain(|uid, pending| match shown.get(uid.as_str()) {
            None => pending.unborn,
            Some(claim) if claim.status.as_ref().is_some_and(|s| s.allocation.is_some()) => false,
            Some(claim) => pending.written.is_none_or(|written| crate::version(&claim.metadata) < written),
        });
    }

    /// The allocations that are on their way.
    pub fn allocations(&self) -> impl Iterator<Item = &AllocationResult> {
        self.0.values().map(|p| &p.allocation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(version: &str, allocation: Value) -> Arc<ResourceClaim> {
        let metadata = json!({"name": "c", "uid": "c", "resourceVersion": version});
        let claim = json!({"metadata": metadata, "spec": {}, "status": {"allocation": allocation}});
        Arc::new(serde_json::from_value(claim).expect("claim"))
    }

    /// The pending claims after `act` and then what the informer shows.
    fn check(act: impl Fn(&mut Ledger), shown: &[Arc<ResourceClaim>], expect: bool) {
        let mut ledger = Ledger::default();
        ledger.add("c", "pod", AllocationResult::default());
        act(&mut ledger);
        ledger.settle(shown);
        assert_eq!(ledger.holds("c"), expect);
        assert_eq!(ledger.allocations().count(), usize::from(expect));
    }

    #[test]
    fn decisions_bridge_writing_and_seeing() {
        check(|_| {}, &[claim("1", Value::Null)], true);
        check(|l| l.written("c", "pod", 5), &[claim("4", Value::Null)], true);
        check(|l| l.written("c", "pod", 5), &[claim("5", json!({}))], false);
        // Given back before anybody looked.
        check(|l| l.written("c", "pod", 5), &[claim("6", Value::Null)], false);
        check(|_| {}, &[], false);
    }

    #[test]
    fn only_its_own_pod_takes_a_decision_back() {
        let shown = || [claim("1", Value::Null)];
        check(|l| l.remove("c", "pod"), &shown(), false);
        check(|l| l.remove("c", "other"), &shown(), true);
        check(|l| l.written("c", "other", 1), &shown(), true);
        let written = |l: &mut Ledger| {
            l.written("c", "pod", 2);
            l.remove("c", "pod");
        };
        check(written, &shown(), true);
    }

    #[test]
    fn claims_that_are_made_here_wait_to_be_seen() {
        let mut ledger = Ledger::default();
        ledger.add_unborn("temporary", "pod", AllocationResult::default());
        ledger.settle(&[]);
        ledger.named("temporary", "c");
        ledger.settle(&[]);
        assert!(ledger.holds("c") && !ledger.holds("temporary"));
        ledger.born("c");
        ledger.settle(&[]);
        assert!(!ledger.holds("c"));
    }
}
