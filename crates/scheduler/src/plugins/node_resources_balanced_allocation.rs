//! Prefers nodes whose CPU and memory the pod brings to more equal use.

use crate::framework::{MAX_SCORE, Plugin, PreScore, Score, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::resources::Resources;
use std::sync::Arc;

pub(crate) struct NodeResourcesBalancedAllocation;

struct Balance<'a>(&'a Resources);

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_score.push(self);
    }
}

impl PreScore for NodeResourcesBalancedAllocation {
    fn weight(&self) -> i64 {
        1
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
        _feasible: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let best_effort = pod.requests.milli_cpu == 0 && pod.requests.memory == 0;
        if best_effort { None } else { Some(Box::new(Balance(&pod.requests))) }
    }
}

impl Score for Balance<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (have, used) = (&node.allocatable, &node.requested);
        let before = balance([(used.milli_cpu, have.milli_cpu), (used.memory, have.memory)]);
        let after =
            balance([(used.milli_cpu + self.0.milli_cpu, have.milli_cpu), (used.memory + self.0.memory, have.memory)]);
        MAX_SCORE / 2 + (MAX_SCORE / 2 + after - before) / 2
    }
}

/// 100 for equal use of both, less the further they are apart.
fn balance(pairs: [(i64, i64); 2]) -> i64 {
    let fractions: Vec<f64> = pairs
        .into_iter()
        .filter(|(_, have)| *have > 0)
        .map(|(used, have)| (used as f64 / have as f64).min(1.0))
        .collect();
    let deviation = match fractions[..] {
        [a, b] => (a - b).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
