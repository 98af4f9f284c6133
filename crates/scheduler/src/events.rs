//! What informers' events do to the cache and the queue.

use crate::framework::ClusterEvent;
use crate::pod_info::{is_terminal, node_name, uid};
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
            let unchanged = old.is_some_and(|old| {
                !node_name(old).is_empty() && old.metadata.labels == pod.metadata.labels && old.spec == pod.spec
            });
            if !unchanged {
                self.queue.on_event(&ClusterEvent::AssignedPodAdded, &self.profile);
            }
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
                self.queue.on_event(&ClusterEvent::NodeUpdated { old, new }, &self.profile);
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
