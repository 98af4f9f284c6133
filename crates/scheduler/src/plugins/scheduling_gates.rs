//! Keeps pods with scheduling gates out of the queue.

use crate::framework::{ClusterEvent, Plugin, PreEnqueue, Rejection};
use crate::profile::Profile;
use api::k8s::core::v1::Pod;
use std::sync::Arc;

pub(crate) struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_enqueue.push(self);
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::PodUpdated)
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &Pod) -> Result<(), Rejection> {
        let gates = pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref());
        let names: Vec<&str> = gates.into_iter().flatten().map(|g| g.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Rejection::unresolvable(format!("waiting for scheduling gates: [{}]", names.join(" "))))
    }
}
