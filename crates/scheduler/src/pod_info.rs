//! A pod with everything a scheduling cycle asks of it, computed once.

use crate::resources::{Resources, requests};
use crate::selectors::AffinityTerm;
use api::k8s::core::v1::{Pod, PodAffinityTerm, PodSpec, Volume, WeightedPodAffinityTerm};
use kube::ResourceExt;
use std::sync::{Arc, LazyLock};

static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);

/// A port on the host: address (`0.0.0.0`: all), protocol, number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    pub fn conflicts(&self, other: &Self) -> bool {
        const ALL: &str = "0.0.0.0";
        let same_ip = self.ip == other.ip || self.ip == ALL || other.ip == ALL;
        same_ip && self.protocol == other.protocol && self.port == other.port
    }
}

/// A pod, parsed.
#[derive(Clone, Debug)]
pub(crate) struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: Resources,
    pub non_zero_requests: Resources,
    pub host_ports: Vec<HostPort>,
    pub required_affinity: Vec<AffinityTerm>,
    pub required_anti_affinity: Vec<AffinityTerm>,
    pub preferred_affinity: Vec<AffinityTerm>,
    pub preferred_anti_affinity: Vec<AffinityTerm>,
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.as_ref().unwrap_or(&EMPTY);
        let (requests, non_zero_requests) = requests(&pod);
        let affinity = spec.affinity.clone().unwrap_or_default();
        let (with, against) =
            (affinity.pod_affinity.unwrap_or_default(), affinity.pod_anti_affinity.unwrap_or_default());
        let required = |list: Option<Vec<PodAffinityTerm>>| -> Vec<AffinityTerm> {
            list.iter().flatten().map(|term| AffinityTerm::new(&pod, term, 0)).collect()
        };
        let preferred = |list: Option<Vec<WeightedPodAffinityTerm>>| -> Vec<AffinityTerm> {
            list.iter().flatten().map(|t| AffinityTerm::new(&pod, &t.pod_affinity_term, i64::from(t.weight))).collect()
        };
        Self {
            requests,
            non_zero_requests,
            host_ports: host_ports(spec),
            required_affinity: required(with.required_during_scheduling_ignored_during_execution),
            required_anti_affinity: required(against.required_during_scheduling_ignored_during_execution),
            preferred_affinity: preferred(with.preferred_during_scheduling_ignored_during_execution),
            preferred_anti_affinity: preferred(against.preferred_during_scheduling_ignored_during_execution),
            pod,
        }
    }

    pub fn spec(&self) -> &PodSpec {
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    pub fn uid(&self) -> &str {
        uid(&self.pod)
    }

    pub fn priority(&self) -> i32 {
        priority(&self.pod)
    }
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

pub(crate) fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
}

pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

pub(crate) fn nominated_node(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).unwrap_or("")
}

pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Names of the claims of a pod, those of ephemeral volumes included.
pub(crate) fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let name = |v: &Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), v.name)),
        _ => None,
    };
    volumes.filter_map(name).collect()
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let wanted = ports.filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0)?;
        let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
        Some(HostPort { ip, protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()), port })
    });
    wanted.collect()
}
