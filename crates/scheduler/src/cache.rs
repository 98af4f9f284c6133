//! Nodes with their pods, kept by events, and pods that are assumed to be on a node already.

use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, node_name, uid};
use api::k8s::core::v1::{Node, Pod};
use std::collections::HashMap;
use std::sync::Arc;

/// Nodes in a dense list, so that a cycle can look at all of them without copying.
#[derive(Default)]
pub(crate) struct Cache {
    nodes: Vec<Arc<NodeInfo>>,
    index: HashMap<String, usize>,
    /// Where each pod is counted, by UID.
    placed: HashMap<String, Placed>,
    /// Pods on nodes that are not (or no longer) known.
    homeless: HashMap<String, Vec<Arc<PodInfo>>>,
}

struct Placed {
    node: String,
    assumed: bool,
}

impl Cache {
    pub fn nodes(&self) -> &[Arc<NodeInfo>] {
        &self.nodes
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(at) = self.index.get(&name) {
            Arc::make_mut(&mut self.nodes[*at]).set_node(node);
            return;
        }
        let mut info = NodeInfo::new(node);
        for pod in self.homeless.remove(&name).unwrap_or_default() {
            info.add(pod);
        }
        self.index.insert(name, self.nodes.len());
        self.nodes.push(Arc::new(info));
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.index.remove(name) else { return };
        let info = self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.name().to_owned(), at);
        }
        if !info.pods.is_empty() {
            self.homeless.insert(name.to_owned(), info.pods.clone());
        }
    }

    /// Counts a pod on a node before the server says so.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(pod.uid());
        self.place(pod, node, true);
    }

    /// Takes an assumed pod back, unless it was seen on its node meanwhile.
    pub fn forget(&mut self, uid: &str) {
        if self.placed.get(uid).is_some_and(|p| p.assumed) {
            self.remove_pod(uid);
        }
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.placed.get(uid).is_some_and(|p| p.assumed)
    }

    /// Counts a pod that the server says is on a node.
    pub fn set_pod(&mut self, pod: &Arc<Pod>) {
        self.remove_pod(uid(pod));
        self.place(Arc::new(PodInfo::new(pod.clone())), node_name(pod), false);
    }

    pub fn remove_pod(&mut self, uid: &str) {
        let Some(placed) = self.placed.remove(uid) else { return };
        if let Some(at) = self.index.get(&placed.node) {
            Arc::make_mut(&mut self.nodes[*at]).remove(uid);
        } else if let Some(pods) = self.homeless.get_mut(&placed.node) {
            pods.retain(|p| p.uid() != uid);
            if pods.is_empty() {
                self.homeless.remove(&placed.node);
            }
        }
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        self.placed.insert(pod.uid().to_owned(), Placed { node: node.to_owned(), assumed });
        match self.index.get(node) {
            Some(at) => Arc::make_mut(&mut self.nodes[*at]).add(pod),
            None => self.homeless.entry(node.to_owned()).or_default().push(pod),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str) -> Arc<Node> {
        let status = json!({"allocatable": {"cpu": "4", "pods": "10"}});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).expect("node"))
    }

    fn pod(name: &str, node: &str) -> Arc<Pod> {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "1"}}}]);
        let spec = json!({"nodeName": node, "containers": containers});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": spec})).expect("pod"))
    }

    #[test]
    fn pods_are_counted_once() {
        let mut cache = Cache::default();
        let cpu = |cache: &Cache| cache.nodes().iter().map(|n| n.requested.milli_cpu).collect::<Vec<_>>();
        cache.set_pod(&pod("early", "a"));
        cache.set_node(node("a"));
        cache.set_node(node("b"));
        assert_eq!(cpu(&cache), [1000, 0]);
        cache.assume(Arc::new(PodInfo::new(pod("p", ""))), "b");
        assert_eq!(cpu(&cache), [1000, 1000]);
        cache.set_pod(&pod("p", "b"));
        cache.forget("p");
        assert_eq!(cpu(&cache), [1000, 1000]);
        cache.remove_node("a");
        cache.remove_pod("p");
        assert_eq!(cpu(&cache), [0]);
        cache.set_node(node("a"));
        assert_eq!(cpu(&cache), [0, 1000]);
    }
}
