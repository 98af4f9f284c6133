//! The plugins, one file each: a module and a line in [`all`] make a file a plugin of the default profile.

mod default_binder;
mod default_preemption;
mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_declared_features;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod priority_sort;
mod scheduling_gates;
mod taint_toleration;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

pub(crate) use default_binder::DefaultBinder;
pub(crate) use priority_sort::PrioritySort;

use crate::framework::Plugin;
use std::sync::Arc;

/// Kubernetes' default plugins in its order, which holds at every extension point.
///
/// So an idle claim of the pod is given back before pods are deleted for it. [`PrioritySort`] and [`DefaultBinder`] are
/// alone at their points, which [`crate::profile`] says.
pub(crate) fn all() -> Vec<Arc<dyn Plugin>> {
    vec![
        Arc::new(scheduling_gates::SchedulingGates),
        Arc::new(node_unschedulable::NodeUnschedulable),
        Arc::new(node_name::NodeName),
        Arc::new(taint_toleration::TaintToleration),
        Arc::new(node_affinity::NodeAffinity),
        Arc::new(node_ports::NodePorts),
        Arc::new(node_resources_fit::NodeResourcesFit),
        Arc::new(volume_restrictions::VolumeRestrictions),
        Arc::new(node_volume_limits::NodeVolumeLimits),
        Arc::new(volume_binding::VolumeBinding::default()),
        Arc::new(volume_zone::VolumeZone),
        Arc::new(pod_topology_spread::PodTopologySpread),
        Arc::new(inter_pod_affinity::InterPodAffinity),
        Arc::new(dynamic_resources::DynamicResources::default()),
        Arc::new(default_preemption::DefaultPreemption),
        Arc::new(node_resources_balanced_allocation::NodeResourcesBalancedAllocation),
        Arc::new(image_locality::ImageLocality),
        Arc::new(node_declared_features::NodeDeclaredFeatures),
    ]
}
