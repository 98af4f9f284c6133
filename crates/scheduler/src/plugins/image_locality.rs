//! Prefers nodes that have the pod's images already, by size and by how many nodes have them.

use crate::framework::{MAX_SCORE, Plugin, PreScore, Score, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use std::sync::Arc;

const MB: i64 = 1024 * 1024;
const MIN: i64 = 23 * MB;
const MAX_PER_CONTAINER: i64 = 1000 * MB;

pub(crate) struct ImageLocality;

struct Images<'a> {
    names: Vec<String>,
    nodes: &'a [Arc<NodeInfo>],
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_score.push(self);
    }
}

impl PreScore for ImageLocality {
    fn weight(&self) -> i64 {
        1
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
        _feasible: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let spec = pod.spec();
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let names = containers.filter_map(|c| c.image.as_deref()).map(with_tag).collect();
        Some(Box::new(Images { names, nodes: snapshot.nodes }))
    }
}

/// The name as nodes report it: with a tag.
fn with_tag(name: &str) -> String {
    let has_tag = match (name.rfind(':'), name.rfind('/')) {
        (Some(colon), Some(slash)) => colon > slash,
        (colon, _) => colon.is_some(),
    };
    if has_tag { name.to_owned() } else { format!("{name}:latest") }
}

impl Score for Images<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let scaled = |name: &String| {
            let size = *node.images.get(name)? as f64;
            let holders = self.nodes.iter().filter(|n| n.images.contains_key(name)).count() as f64;
            Some((size * holders / self.nodes.len() as f64) as i64)
        };
        let sum: i64 = self.names.iter().filter_map(scaled).sum();
        let max = MAX_PER_CONTAINER * self.names.len() as i64;
        if max <= MIN { 0 } else { MAX_SCORE * (sum.clamp(MIN, max) - MIN) / (max - MIN) }
    }
}
