//! A node and what the pods on it take.

use crate::pod_info::PodInfo;
use crate::resources::Resources;
use api::k8s::core::v1::Node;
use std::collections::HashMap;
use std::sync::Arc;

/// A node with running sums over its pods.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    pub node: Arc<Node>,
    pub pods: Vec<Arc<PodInfo>>,
    pub allocatable: Resources,
    pub allowed_pods: usize,
    pub requested: Resources,
    pub non_zero_requested: Resources,
    /// Size of each image on the node.
    pub images: HashMap<String, i64>,
}

impl NodeInfo {
    pub fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            node: node.clone(),
            pods: Vec::new(),
            allocatable: Resources::default(),
            allowed_pods: 0,
            requested: Resources::default(),
            non_zero_requested: Resources::default(),
            images: HashMap::new(),
        };
        info.set_node(node);
        info
    }

    /// Takes a newer state of the node.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        self.allocatable = Resources::of(allocatable);
        let pods = allocatable.and_then(|l| l.get("pods")).and_then(|q| api::quantity::Quantity::parse(&q.0).ok());
        self.allowed_pods = pods.map_or(0, |q| usize::try_from(q.value()).unwrap_or(0));
        let images = status.and_then(|s| s.images.as_ref()).into_iter().flatten();
        let named = images.flat_map(|i| i.names.iter().flatten().map(|name| (name.clone(), i.size_bytes.unwrap_or(0))));
        self.images = named.collect();
        self.node = node;
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or("")
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.non_zero_requested.add(&pod.non_zero_requests);
        self.pods.push(pod);
    }

    /// Removes a pod; tells whether it was there.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(at) = self.pods.iter().position(|p| p.uid() == uid) else { return false };
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.non_zero_requested.subtract(&pod.non_zero_requests);
        true
    }
}
