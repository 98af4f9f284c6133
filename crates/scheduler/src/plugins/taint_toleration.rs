//! Taints: `NoSchedule` and `NoExecute` reject, `PreferNoSchedule` is avoided.

use crate::framework::{
    ClusterEvent, Filter, Plugin, PreFilter, PreScore, Rejection, Score, Snapshot, normalize_to_max,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::selectors::any_tolerates;
use api::k8s::core::v1::{Pod, Toleration};
use std::sync::Arc;

pub(crate) struct TaintToleration;

struct Tolerations<'a>(Option<&'a Vec<Toleration>>);

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self.clone());
        profile.pre_score.push(self);
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::PodUpdated) || event.brings(|node| node.spec.as_ref()?.taints.as_ref())
    }
}

impl PreFilter for TaintToleration {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        Ok(Some(Box::new(Tolerations(pod.spec().tolerations.as_ref()))))
    }
}

impl Filter for Tolerations<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let taints = node.node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let mut hard = taints.filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
        if hard.any(|taint| !any_tolerates(self.0, taint)) {
            return Err(Rejection::unresolvable("node(s) had untolerated taint(s)"));
        }
        Ok(())
    }
}

impl PreScore for TaintToleration {
    fn weight(&self) -> i64 {
        3
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
        _feasible: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(Tolerations(pod.spec().tolerations.as_ref())))
    }
}

impl Score for Tolerations<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let taints = node.node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        taints.filter(|t| t.effect == "PreferNoSchedule" && !any_tolerates(self.0, t)).count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, true);
    }
}
