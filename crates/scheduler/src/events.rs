//! What informers' events do to the cache and the queue.

use crate::framework::ClusterEvent;
use crate::pod_info::{is_terminal, node_name, uid};
use crate::resources::requests;
use crate::schedule::Scheduler;
use api::k8s::core::v1::{Node, Pod};
use informer::Event;
use std::sync::Arc;

impl Scheduler {
    pub(crate) fn on_pod(&mut self, event: Event<Pod>) {
        match event {
            Event::Added(pod) => self.pod_changed(None, &pod),
            Event::Updated { old, new } => self.pod_changed(Some(&old), &new),
            Event::Deleted(pod) => self.pod_gone(&pod),
        }
    }

    fn pod_changed(&mut self, old: Option<&Arc<Pod>>, pod: &Arc<Pod>) {
        if is_terminal(pod) {
            return self.pod_gone(pod);
        }
        if !node_name(pod).is_empty() {
            self.queue.remove(uid(pod));
            self.cache.set_pod(pod);
            let old = old.filter(|old| !node_name(old).is_empty());
            // Room gets free when the kubelet says so in the status.
            if old.is_some_and(|old| takes_less(old, pod)) {
                self.queue.on_event(&ClusterEvent::AssignedPodDeleted, &self.profile);
            }
            if old.is_some_and(|old| old.metadata.labels == pod.metadata.labels && old.spec == pod.spec) {
                return;
            }
            self.queue.on_event(&ClusterEvent::AssignedPodAdded, &self.profile);
        } else if is_ours(pod) && !self.cache.is_assumed(uid(pod)) {
            if pod.metadata.deletion_timestamp.is_some() {
                return self.queue.remove(uid(pod));
            }
            self.queue.set(pod.clone(), &self.profile);
        }
    }

    fn pod_gone(&mut self, pod: &Arc<Pod>) {
        self.queue.remove(uid(pod));
        self.cache.remove_pod(uid(pod));
        self.queue.on_event(&ClusterEvent::AssignedPodDeleted, &self.profile);
    }

    pub(crate) fn on_node(&mut self, event: Event<Node>) {
        match event {
            Event::Added(node) => {
                self.cache.set_node(node.clone());
                self.queue.on_event(&ClusterEvent::NodeAdded(node), &self.profile);
            }
            Event::Updated { old, new } => {
                self.cache.set_node(new.clone());
                if respects(&old) != respects(&new) {
                    self.queue.on_event(&ClusterEvent::NodeUpdated { old, new }, &self.profile);
                }
            }
            Event::Deleted(node) => {
                self.cache.remove_node(node.metadata.name.as_deref().unwrap_or(""));
                self.queue.on_event(&ClusterEvent::NodeDeleted, &self.profile);
            }
        }
    }

    /// Handles what has changed of the kinds that plugins watch.
    pub(crate) fn on_changes(&mut self) {
        for event in self.changes.take() {
            self.queue.on_event(&event, &self.profile);
        }
    }
}

fn is_ours(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()).is_none_or(|name| name == crate::NAME)
}

/// Whether a pod requests less of anything than it did: one that was resized in place, as requests are fixed otherwise.
fn takes_less(old: &Pod, new: &Pod) -> bool {
    requests(old).0.exceeds(&requests(new).0)
}

/// All that pods may wait for in a node: what a kubelet reports all the time is not among it.
fn respects(node: &Node) -> impl PartialEq {
    let (spec, status) = (node.spec.as_ref(), node.status.as_ref());
    (
        node.metadata.labels.as_ref(),
        spec.and_then(|s| s.unschedulable).unwrap_or(false),
        spec.and_then(|s| s.taints.as_ref()),
        status.and_then(|s| s.allocatable.as_ref()),
        status.and_then(|s| s.declared_features.as_ref()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_what_hints_look_at_makes_a_node_another() {
        let check = |change: Value, expect: bool| {
            let node = |changes: Value| {
                let mut node = json!({"metadata": {"name": "a", "labels": {"k": "v"}},
                    "spec": {}, "status": {"allocatable": {"cpu": "1"}}});
                for (path, value) in changes.as_object().expect("changes") {
                    let (of, field) = path.split_once('.').expect("two parts");
                    node[of][field] = value.clone();
                }
                serde_json::from_value::<Node>(node).expect("node")
            };
            let (old, new) = (node(json!({})), node(change.clone()));
            assert_eq!(respects(&old) == respects(&new), expect, "{change}");
        };
        let beat = json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]);
        check(json!({"metadata.resourceVersion": "2", "status.conditions": beat}), true);
        check(json!({"status.images": [{"names": ["i"], "sizeBytes": 1}]}), true);
        check(json!({"spec.unschedulable": false}), true);
        check(json!({"spec.unschedulable": true}), false);
        check(json!({"spec.taints": [{"key": "k", "effect": "NoSchedule"}]}), false);
        check(json!({"metadata.labels": {}}), false);
        check(json!({"status.allocatable": {"cpu": "2"}}), false);
        check(json!({"status.declaredFeatures": ["F"]}), false);
    }

    #[test]
    fn a_pod_that_shrinks_makes_room() {
        let pod = |requests: Value| {
            let containers = json!([{"name": "c", "resources": {"requests": requests}}]);
            serde_json::from_value::<Pod>(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}}))
                .expect("pod")
        };
        let check = |old: Value, new: Value, expect: bool| assert_eq!(takes_less(&pod(old), &pod(new)), expect);
        check(json!({"cpu": "2"}), json!({"cpu": "1"}), true);
        check(json!({"cpu": "1"}), json!({"cpu": "2"}), false);
        check(json!({"cpu": "1", "memory": "2Gi"}), json!({"cpu": "2", "memory": "1Gi"}), true);
        check(json!({"cpu": "1"}), json!({"cpu": "1000m"}), false);
    }
}
