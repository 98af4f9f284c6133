//! Which plugins run at which extension point, in which order.

use crate::framework::{
    Bind, ClusterEvent, Filter, Permit, Plugin, PostBind, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore,
    QueueSort, Rejection, Reserve, Score, Snapshot,
};
use crate::node_info::NodeInfo;
use crate::plugins::*;
use crate::pod_info::PodInfo;
use api::k8s::core::v1::Pod;
use std::sync::Arc;

/// The default profile.
pub(crate) struct Profile {
    plugins: Vec<Arc<dyn Plugin>>,
    pub pre_enqueue: Vec<Arc<dyn PreEnqueue>>,
    pub queue_sort: Arc<dyn QueueSort>,
    pub pre_filter: Vec<Arc<dyn PreFilter>>,
    pub post_filter: Vec<Arc<dyn PostFilter>>,
    pub pre_score: Vec<Arc<dyn PreScore>>,
    pub reserve: Vec<Arc<dyn Reserve>>,
    pub permit: Vec<Arc<dyn Permit>>,
    pub pre_bind: Vec<Arc<dyn PreBind>>,
    pub bind: Arc<dyn Bind>,
    pub post_bind: Vec<Arc<dyn PostBind>>,
}

impl Profile {
    /// The plugins of Kubernetes' default profile, in its order.
    pub fn new() -> Self {
        let (fit, affinity, spread) =
            (Arc::new(NodeResourcesFit), Arc::new(InterPodAffinity), Arc::new(PodTopologySpread));
        let (taints, node_affinity, volumes) =
            (Arc::new(TaintToleration), Arc::new(NodeAffinity), Arc::new(VolumeBinding));
        let (gates, unschedulable, node_name) =
            (Arc::new(SchedulingGates), Arc::new(NodeUnschedulable), Arc::new(NodeName));
        let (ports, zones, features) = (Arc::new(NodePorts), Arc::new(VolumeZone), Arc::new(NodeDeclaredFeatures));
        let (restrictions, limits, devices) =
            (Arc::new(VolumeRestrictions), Arc::new(NodeVolumeLimits), Arc::new(DynamicResources::default()));
        Self {
            plugins: vec![
                gates.clone(),
                unschedulable.clone(),
                node_name.clone(),
                taints.clone(),
                node_affinity.clone(),
                ports.clone(),
                fit.clone(),
                restrictions.clone(),
                limits.clone(),
                volumes.clone(),
                zones.clone(),
                spread.clone(),
                affinity.clone(),
                devices.clone(),
                features.clone(),
            ],
            pre_enqueue: vec![gates, devices.clone()],
            queue_sort: Arc::new(PrioritySort),
            pre_filter: vec![
                unschedulable,
                node_name,
                taints.clone(),
                node_affinity.clone(),
                ports,
                fit.clone(),
                restrictions,
                limits,
                volumes.clone(),
                zones,
                spread.clone(),
                affinity.clone(),
                devices.clone(),
                features,
            ],
            // An idle claim is given back before pods are deleted.
            post_filter: vec![devices.clone(), Arc::new(DefaultPreemption)],
            pre_score: vec![
                taints,
                node_affinity,
                fit,
                spread,
                affinity,
                devices.clone(),
                Arc::new(NodeResourcesBalancedAllocation),
                Arc::new(ImageLocality),
            ],
            reserve: vec![devices.clone()],
            permit: vec![],
            pre_bind: vec![volumes, devices.clone()],
            bind: Arc::new(DefaultBinder),
            post_bind: vec![devices],
        }
    }

    /// Whether a plugin that rejected `pod` thinks that `event` may help.
    pub fn hint(&self, name: &str, pod: &Pod, event: &ClusterEvent) -> bool {
        self.plugins.iter().any(|plugin| plugin.name() == name && plugin.hint(pod, event))
    }

    /// Prepares every filter for a pod.
    pub fn filters<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Filters<'a>, (&'static str, Rejection)> {
        let mut filters = Vec::with_capacity(self.pre_filter.len());
        for plugin in &self.pre_filter {
            match plugin.pre_filter(pod, snapshot) {
                Ok(Some(filter)) => filters.push((plugin.name(), filter)),
                Ok(None) => {}
                Err(rejection) => {
                    let rejection = rejection.error_in(|| format!("running PreFilter plugin {:?}", plugin.name()));
                    return Err((plugin.name(), rejection));
                }
            }
        }
        Ok(Filters { filters })
    }

    /// Scores feasible nodes; the result is in their order.
    pub fn score<'a>(&'a self, pod: &'a PodInfo, snapshot: Snapshot<'a>, feasible: &[&'a NodeInfo]) -> Vec<i64> {
        let mut total = vec![0; feasible.len()];
        for plugin in &self.pre_score {
            let Some(scorer): Option<Box<dyn Score + 'a>> = plugin.pre_score(pod, snapshot, feasible) else { continue };
            let mut scores: Vec<i64> = feasible.iter().map(|node| scorer.score(node)).collect();
            scorer.normalize(&mut scores);
            total.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score * plugin.weight());
        }
        total
    }
}

/// The filters of one pod's cycle.
pub(crate) struct Filters<'a> {
    filters: Vec<(&'static str, Box<dyn Filter + 'a>)>,
}

impl Filters<'_> {
    /// Runs the filters on one node until one rejects it.
    pub fn run(&self, node: &NodeInfo) -> Result<(), (&'static str, Rejection)> {
        let error = |name: &str| format!("running {name:?} filter plugin");
        self.filters.iter().try_for_each(|(name, filter)| {
            filter.filter(node).map_err(|rejection| (*name, rejection.error_in(|| error(name))))
        })
    }
}
