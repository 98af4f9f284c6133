//! Decisions about volumes and claims that informers do not show yet.

use super::Decision;
use crate::{Handle, version};
use api::k8s::core::v1::PersistentVolumeClaim;
use informer::Key;
use std::collections::HashMap;

/// What was decided and is on its way into the API.
#[derive(Default)]
pub(super) struct Assumed {
    /// The UIDs of claims that volumes are kept for.
    volumes: Pending,
    /// The nodes that claims get their volumes for.
    claims: Pending,
}

#[derive(Default)]
struct Pending(HashMap<Key, Entry>);

struct Entry {
    /// The pod it was decided for.
    pod: String,
    decision: String,
    /// The resource version it was written at.
    written: Option<u64>,
}

impl Assumed {
    /// Notes what was decided for a pod; for a claim of several pods the first decision stands.
    pub fn add(&mut self, pod: &str, node: &str, decision: &Decision) {
        for (volume, claim) in &decision.bind {
            let uid = claim.metadata.uid.as_deref().unwrap_or_default();
            self.volumes.add(Key::of(volume.as_ref()), pod, uid);
        }
        decision.provision.iter().for_each(|claim| self.claims.add(Key::of(claim.as_ref()), pod, node));
    }

    /// The UID of the claim that a volume is kept for.
    pub fn owner_of(&self, volume: &str) -> Option<&str> {
        self.volumes.get(&Key::new("", volume))
    }

    /// The node that a claim gets its volume for.
    pub fn node_of(&self, claim: &PersistentVolumeClaim) -> Option<&str> {
        self.claims.get(&Key::of(claim))
    }

    /// Notes the version at which a pod's decision for a volume is in the API.
    pub fn volume_written(&mut self, volume: Key, pod: &str, version: u64) {
        self.volumes.written(&volume, pod, version);
    }

    /// Notes the version at which a pod's decision for a claim is in the API.
    pub fn claim_written(&mut self, claim: Key, pod: &str, version: u64) {
        self.claims.written(&claim, pod, version);
    }

    /// Drops what was decided for a pod and not written.
    pub fn remove(&mut self, pod: &str) {
        self.volumes.0.retain(|_, entry| entry.pod != pod || entry.written.is_some());
        self.claims.0.retain(|_, entry| entry.pod != pod || entry.written.is_some());
    }

    /// Forgets what informers show by now, or have nothing of any more.
    pub fn settle(&mut self, handle: &Handle) {
        self.volumes.settle(|key| handle.volumes.get_key(key).map(|volume| version(&volume.metadata)));
        self.claims.settle(|key| handle.claims.get_key(key).map(|claim| version(&claim.metadata)));
    }
}

impl Pending {
    fn add(&mut self, key: Key, pod: &str, decision: &str) {
        let entry = || Entry { pod: pod.to_owned(), decision: decision.to_owned(), written: None };
        self.0.entry(key).or_insert_with(entry);
    }

    fn get(&self, key: &Key) -> Option<&str> {
        self.0.get(key).map(|entry| entry.decision.as_str())
    }

    fn written(&mut self, key: &Key, pod: &str, version: u64) {
        if let Some(entry) = self.0.get_mut(key).filter(|entry| entry.pod == pod) {
            entry.written = Some(version);
        }
    }

    fn settle(&mut self, shown: impl Fn(&Key) -> Option<u64>) {
        self.0.retain(|key, entry| {
            entry.written.is_none_or(|written| shown(key).is_some_and(|version| version < written))
        });
    }
}
