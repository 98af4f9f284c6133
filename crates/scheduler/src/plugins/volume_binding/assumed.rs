//! Decisions about volumes and claims that informers do not show yet.

use super::Decision;
use crate::{Handle, version};
use api::k8s::core::v1::PersistentVolumeClaim;
use informer::Key;
use std::collections::{HashMap, HashSet};

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
    /// The pods it was decided for and that did not give it up.
    pods: HashSet<String>,
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

    /// Drops what was decided for a pod, not for others as well, and not written.
    pub fn remove(&mut self, pod: &str) {
        self.volumes.remove(pod);
        self.claims.remove(pod);
    }

    /// Forgets what informers show by now, or have nothing of any more.
    pub fn settle(&mut self, handle: &Handle) {
        self.volumes.settle(|key| handle.volumes.get_key(key).map(|volume| version(&volume.metadata)));
        self.claims.settle(|key| handle.claims.get_key(key).map(|claim| version(&claim.metadata)));
    }
}

impl Pending {
    fn add(&mut self, key: Key, pod: &str, decision: &str) {
        let entry = || Entry { pods: HashSet::new(), decision: decision.to_owned(), written: None };
        self.0.entry(key).or_insert_with(entry).pods.insert(pod.to_owned());
    }

    fn remove(&mut self, pod: &str) {
        self.0.retain(|_, entry| !entry.pods.remove(pod) || !entry.pods.is_empty() || entry.written.is_some());
    }

    fn get(&self, key: &Key) -> Option<&str> {
        self.0.get(key).map(|entry| entry.decision.as_str())
    }

    fn written(&mut self, key: &Key, pod: &str, version: u64) {
        if let Some(entry) = self.0.get_mut(key).filter(|entry| entry.pods.contains(pod)) {
            entry.written = Some(version);
        }
    }

    fn settle(&mut self, shown: impl Fn(&Key) -> Option<u64>) {
        self.0.retain(|key, entry| {
            entry.written.is_none_or(|written| shown(key).is_some_and(|version| version < written))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_for_several_pods_lasts_until_the_last_gives_it_up() {
        let mut pending = Pending::default();
        let key = Key::new("n", "c");
        pending.add(key.clone(), "p", "a");
        pending.add(key.clone(), "q", "b");
        pending.remove("p");
        assert_eq!(pending.get(&key), Some("a"), "the first decision, which the second pod relies on");
        pending.remove("q");
        assert_eq!(pending.get(&key), None);
        ["p", "q"].iter().for_each(|pod| pending.add(key.clone(), pod, "a"));
        pending.written(&key, "q", 5);
        ["p", "q"].iter().for_each(|pod| pending.remove(pod));
        pending.settle(|_| Some(4));
        assert_eq!(pending.get(&key), Some("a"), "written, but not seen");
        pending.settle(|_| Some(5));
        assert_eq!(pending.get(&key), None);
    }
}
