//! The annotations that tie ReplicaSets to the revisions and sizes of their Deployment.

use super::{replicas, rolling};
use api::k8s::apps::v1::{Deployment, ReplicaSet};
use std::collections::BTreeMap;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// Length of the remembered history of revisions.
const HISTORY_LENGTH: usize = 2000;

/// The revision of a ReplicaSet, 0 when it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    number(set, REVISION).unwrap_or(0)
}

/// A numeric annotation.
pub(super) fn number(set: &ReplicaSet, key: &str) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// Gives the new ReplicaSet the Deployment's annotations and its revision; tells whether anything changed.
pub(super) fn set_new(deployment: &Deployment, set: &mut ReplicaSet, new_revision: i64, exists: bool) -> bool {
    let before = set.metadata.annotations.clone();
    let old_revision = revision(set);
    let map = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            map.insert(key.clone(), value.clone());
        }
    }
    if old_revision < new_revision {
        if let Some(old) = map.insert(REVISION.into(), new_revision.to_string()) {
            remember(map, &old);
        }
    }
    if !exists {
        set_sizes(deployment, set);
    }
    set.metadata.annotations != before
}

fn remember(map: &mut BTreeMap<String, String>, revision: &str) {
    let history = map.entry(REVISION_HISTORY.into()).or_default();
    if !history.is_empty() {
        history.push(',');
    }
    history.push_str(revision);
    while history.len() > HISTORY_LENGTH {
        let cut = history.find(',').map_or(history.len(), |at| at + 1);
        history.drain(..cut);
    }
}

/// Notes the Deployment's size and what surge allows; tells whether anything changed.
pub(super) fn set_sizes(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let desired = replicas(deployment).to_string();
    let max = (replicas(deployment) + rolling::max_surge(deployment)).to_string();
    let map = set.metadata.annotations.get_or_insert_default();
    let changed = map.get(DESIRED) != Some(&desired) || map.get(MAX) != Some(&max);
    map.insert(DESIRED.into(), desired);
    map.insert(MAX.into(), max);
    changed
}
