//! Which plugins run at which extension point: each in the place that it has in [`plugins::all`].

use crate::Handle;
use crate::changes::Changes;
use crate::framework::{
    Bind, ClusterEvent, Filter, Permit, Plugin, PostBind, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore,
    QueueSort, Rejection, Reserve, Score, Snapshot,
};
use crate::node_info::NodeInfo;
use crate::plugins::{self, DefaultBinder, PrioritySort};
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
        Self::of(plugins::all())
    }

    fn of(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        let mut profile = Self {
            plugins: plugins.clone(),
            pre_enqueue: Vec::new(),
            queue_sort: Arc::new(PrioritySort),
            pre_filter: Vec::new(),
            post_filter: Vec::new(),
            pre_score: Vec::new(),
            reserve: Vec::new(),
            permit: Vec::new(),
            pre_bind: Vec::new(),
            bind: Arc::new(DefaultBinder),
            post_bind: Vec::new(),
        };
        plugins.into_iter().for_each(|plugin| plugin.extend(&mut profile));
        profile
    }

    /// Lets every plugin ask for the events and indexes it needs.
    pub fn register(&self, handle: &Handle, changes: &mut Changes) {
        self.plugins.iter().for_each(|plugin| plugin.register(handle, changes));
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

#[cfg(test)]
mod tests {
    use super::*;
    use api::k8s::core::v1::Node;
    use serde_json::json;

    #[test]
    fn what_a_kubelet_reports_all_the_time_helps_no_pod() {
        let node = |beat: &str, cpu: &str| {
            let condition = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": beat});
            let status = json!({"conditions": [condition], "allocatable": {"cpu": cpu, "pods": "10"}});
            let node = json!({"metadata": {"name": "a", "resourceVersion": beat}, "spec": {}, "status": status});
            Arc::new(serde_json::from_value::<Node>(node).expect("node"))
        };
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": []}})).expect("pod");
        let profile = Profile::new();
        let helped = |cpu: &str| {
            let (old, new) = (node("2026-01-01T00:00:00Z", "1"), node("2026-01-01T00:00:10Z", cpu));
            let event = ClusterEvent::NodeUpdated { old, new };
            let names = profile.plugins.iter().filter(|plugin| plugin.hint(&pod, &event)).map(|plugin| plugin.name());
            names.collect::<Vec<_>>()
        };
        assert_eq!(helped("1"), Vec::<&str>::new());
        assert_eq!(helped("2"), ["NodeResourcesFit", "DynamicResources"]);
    }
}
