//! The next steps of a StatefulSet: creation in order, scaling down from the end, updates from the end.

use super::{Sync, revision_of};
use crate::deployment::resolve;
use crate::pods;
use api::k8s::core::v1::Pod;
use std::sync::Arc;

/// Something to do.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Make the pod of an ordinal, of the newest revision or of the one before.
    Create { ordinal: i32, update: bool },
    /// Delete a finished pod, so that it is made again.
    Replace(Arc<Pod>),
    /// Delete a pod.
    Delete(Arc<Pod>),
}

fn rolling(sync: &Sync) -> bool {
    sync.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete")
}

/// Ordinals from here on get the newest revision.
fn partition(sync: &Sync) -> i32 {
    let rolling = sync.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    rolling.and_then(|r| r.partition).unwrap_or(0)
}

/// Whether a missing pod is made of the newest revision.
fn is_updated(sync: &Sync, ordinal: i32) -> bool {
    // `currentReplicas` pods are kept at the revision before, counted from the first.
    let current = sync.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0);
    let kept = if rolling(sync) && partition(sync) == 0 { current } else { partition(sync) };
    sync.current.metadata.name == sync.update.metadata.name || ordinal >= sync.first() + kept
}

/// What is to be done now; in order, at most one pod changes at a time.
pub(super) fn steps(sync: &Sync) -> Vec<Step> {
    let (first, end) = (sync.first(), sync.first() + sync.replicas());
    let mut out = Vec::new();
    for ordinal in first..end {
        let stop = match sync.pod(ordinal) {
            None => {
                out.push(Step::Create { ordinal, update: is_updated(sync, ordinal) });
                true
            }
            Some(pod) if pods::is_terminal(pod) => {
                if !pods::is_deleting(pod) {
                    out.push(Step::Replace(pod.clone()));
                }
                true
            }
            Some(pod) => pods::is_deleting(pod) || !pods::is_ready(pod) || !sync.is_available(pod),
        };
        if stop && sync.ordered() {
            return out;
        }
    }
    let healthy = |p: &Pod| pods::is_ready(p) && sync.is_available(p) && !pods::is_deleting(p);
    let mut condemned: Vec<(i32, &Arc<Pod>)> = Vec::new();
    condemned.extend(
        sync.pods
            .iter()
            .filter_map(|p| super::pods_of::ordinal(&sync.set, p).map(|o| (o, p)))
            .filter(|(o, _)| !(first..end).contains(o)),
    );
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    // Scaling down in order waits for what is unhealthy before it; only the first of the unhealthy may go.
    let first_unhealthy = condemned.iter().rev().find(|(_, p)| !healthy(p)).map(|(ordinal, _)| *ordinal);
    for (ordinal, pod) in &condemned {
        if sync.ordered() && !healthy(pod) && first_unhealthy != Some(*ordinal) {
            return out;
        }
        if !pods::is_deleting(pod) {
            out.push(Step::Delete((*pod).clone()));
        }
        if sync.ordered() {
            return out;
        }
    }
    out.extend(updates(sync, first, end, &healthy));
    out
}

/// Pods of an older revision to delete, from the last, as long as enough others are healthy.
fn updates(sync: &Sync, first: i32, end: i32, healthy: &dyn Fn(&Pod) -> bool) -> Vec<Step> {
    if !rolling(sync) {
        return Vec::new();
    }
    let newest = sync.update.metadata.name.as_deref().unwrap_or("");
    let limit = sync.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref()?.max_unavailable.as_ref());
    let limit = limit.map_or(1, |v| resolve(Some(v), sync.replicas(), true)).max(1) as usize;
    let unhealthy = (first..end).filter(|o| sync.pod(*o).is_none_or(|p| !healthy(p))).count();
    let mut budget = limit.saturating_sub(unhealthy);
    let mut out = Vec::new();
    for ordinal in ((first + partition(sync)).max(first)..end).rev() {
        let Some(pod) = sync.pod(ordinal) else { continue };
        if revision_of(pod) != newest && !pods::is_deleting(pod) {
            // A broken pod costs nothing to replace.
            if healthy(pod) && budget == 0 {
                return out;
            }
            budget = budget.saturating_sub(usize::from(healthy(pod)));
            out.push(Step::Delete(pod.clone()));
            if out.len() >= limit {
                return out;
            }
        } else if !healthy(pod) && limit == 1 {
            return out;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::k8s::apps::v1::{ControllerRevision, StatefulSet};
    use serde_json::{Value, json};

    fn sync(spec: Value, pods: &[(&str, bool, &str)]) -> Sync {
        let mut object = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {"selector": {}, "serviceName": "s", "template": {}}});
        object["spec"].as_object_mut().expect("map").extend(spec.as_object().cloned().expect("map"));
        let set: StatefulSet = serde_json::from_value(object).expect("set");
        let revision = |name: &str| -> ControllerRevision {
            serde_json::from_value(json!({"metadata": {"name": name}, "revision": 1})).expect("revision")
        };
        let pod = |(name, ready, revision): &(&str, bool, &str)| -> Arc<Pod> {
            let ready = if *ready { "True" } else { "False" };
            let pod = json!({"metadata": {"name": name, "labels": {"controller-revision-hash": revision}},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(pod).expect("pod"))
        };
        Sync {
            spec: set.spec.clone().expect("spec"),
            set: Arc::new(set),
            pods: pods.iter().map(pod).collect(),
            current: revision("old"),
            update: revision("new"),
            collisions: 0,
        }
    }

    fn told(sync: &Sync) -> Vec<String> {
        let tell = |step: Step| match step {
            Step::Create { ordinal, update } => format!("+{ordinal}{}", if update { "new" } else { "old" }),
            Step::Replace(pod) => format!("!{}", pods::name(&pod)),
            Step::Delete(pod) => format!("-{}", pods::name(&pod)),
        };
        steps(sync).into_iter().map(tell).collect()
    }

    #[test]
    fn pods_come_and_go_in_order() {
        let check = |spec: Value, pods: &[(&str, bool, &str)], want: &[&str]| {
            assert_eq!(told(&sync(spec, pods)), want, "{pods:?}")
        };
        check(json!({"replicas": 2}), &[], &["+0new"]);
        check(json!({"replicas": 2}), &[("d-0", false, "new")], &[]);
        check(json!({"replicas": 2}), &[("d-0", true, "new")], &["+1new"]);
        check(json!({"replicas": 2, "podManagementPolicy": "Parallel"}), &[], &["+0new", "+1new"]);
        check(json!({"replicas": 1}), &[("d-0", true, "new"), ("d-1", true, "new"), ("d-2", true, "new")], &["-d-2"]);
        check(json!({"replicas": 0}), &[("d-0", false, "new"), ("d-1", false, "new"), ("d-2", true, "new")], &["-d-2"]);
        check(json!({"replicas": 0}), &[("d-0", false, "new"), ("d-1", false, "new")], &[]);
        check(json!({"replicas": 0}), &[("d-0", false, "new")], &["-d-0"]);
        check(json!({"replicas": 2}), &[("d-0", true, "old"), ("d-1", true, "old")], &["-d-1"]);
        check(json!({"replicas": 2}), &[("d-0", true, "old"), ("d-1", true, "new")], &["-d-0"]);
        check(
            json!({"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}}),
            &[("d-0", true, "old"), ("d-1", true, "new")],
            &[],
        );
    }
}
