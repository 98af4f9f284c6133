//! The pod's `nodeSelector` and node affinity, required and preferred.

use crate::framework::{
    ClusterEvent, Filter, Plugin, PreFilter, PreScore, Rejection, Score, Snapshot, normalize_to_max,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::selectors::{pod_accepts_node, term_matches};
use api::k8s::core::v1::{Pod, PodSpec, PreferredSchedulingTerm};
use std::sync::Arc;

pub(crate) struct NodeAffinity;

struct Required<'a>(&'a PodSpec);
struct Preferred<'a>(&'a [PreferredSchedulingTerm]);

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self.clone());
        profile.pre_score.push(self);
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        let accepts = |node| pod.spec.as_ref().is_none_or(|spec| pod_accepts_node(spec, node));
        match event {
            ClusterEvent::NodeAdded(node) => accepts(node),
            ClusterEvent::NodeUpdated { old, new } => accepts(new) && !accepts(old),
            ClusterEvent::PodUpdated => true,
            _ => false,
        }
    }
}

impl PreFilter for NodeAffinity {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let spec = pod.spec();
        let wants = spec.node_selector.is_some() || spec.affinity.as_ref().is_some_and(|a| a.node_affinity.is_some());
        Ok(if wants { Some(Box::new(Required(spec))) } else { None })
    }
}

impl Filter for Required<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if pod_accepts_node(self.0, &node.node) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }
}

impl PreScore for NodeAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
        _feasible: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let affinity = pod.spec().affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = affinity.preferred_during_scheduling_ignored_during_execution.as_ref().filter(|t| !t.is_empty())?;
        Some(Box::new(Preferred(terms)))
    }
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.0.iter().filter(|t| term_matches(&t.preference, &node.node)).map(|t| i64::from(t.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, false);
    }
}
