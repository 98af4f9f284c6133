//! Whether a node has what the pod requests; nodes with more left score higher (`LeastAllocated`).

use crate::Handle;
use crate::changes::Changes;
use crate::dynamic_resources::extended;
use crate::framework::{
    ClusterEvent, Code, Filter, MAX_SCORE, Plugin, PreFilter, PreScore, Rejection, Score, Snapshot,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::resources::Resources;
use api::k8s::core::v1::{Node, Pod};
use api::k8s::resource::v1::DeviceClass;
use std::borrow::Cow;
use std::sync::Arc;

pub(crate) struct NodeResourcesFit;

/// What a pod requests, and what of it device classes stand for.
struct Requests<'a> {
    amounts: &'a Resources,
    backed: Vec<&'a str>,
}
struct LeastAllocated<'a>(&'a Resources);

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self.clone());
        profile.pre_score.push(self);
    }

    fn register(&self, handle: &Handle, changes: &mut Changes) {
        changes.watch(&handle.device_classes);
        extended::index(&handle.device_classes);
    }

    fn hint(&self, pod: &Pod, event: &ClusterEvent) -> bool {
        let fits = |node: &Arc<Node>| {
            let (amounts, _) = crate::resources::requests(pod);
            // A device class may give what the node does not have.
            let backed =
                amounts.scalar.keys().map(String::as_str).filter(|name| extended::is_candidate(name)).collect();
            Requests { amounts: &amounts, backed }.filter(&NodeInfo::new(node.clone())).is_ok()
        };
        match event {
            event if event.is_change_of::<DeviceClass>() => {
                let (amounts, _) = crate::resources::requests(pod);
                amounts.scalar.keys().any(|name| extended::is_candidate(name))
            }
            ClusterEvent::AssignedPodDeleted | ClusterEvent::PodUpdated => true,
            ClusterEvent::NodeAdded(node) => fits(node),
            ClusterEvent::NodeUpdated { old, new } => {
                let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
                allocatable(old) != allocatable(new) && fits(new)
            }
            _ => false,
        }
    }
}

impl PreFilter for NodeResourcesFit {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let amounts = &pod.requests;
        let backed = |name: &&str| extended::device_class(snapshot.handle, name).is_some();
        let backed = amounts.scalar.keys().map(String::as_str).filter(backed).collect();
        Ok(Some(Box::new(Requests { amounts, backed })))
    }
}

impl Filter for Requests<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let (want, have, used) = (self.amounts, &node.allocatable, &node.requested);
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        let mut hopeless = false;
        if node.pods.len() + 1 > node.allowed_pods {
            reasons.push("Too many pods".into());
        }
        let mut check = |name: Cow<'static, str>, want: i64, have: i64, used: i64| {
            if want > 0 && want > have - used {
                reasons.push(name);
                hopeless |= want > have;
            }
        };
        check("Insufficient cpu".into(), want.milli_cpu, have.milli_cpu, used.milli_cpu);
        check("Insufficient memory".into(), want.memory, have.memory, used.memory);
        check(
            "Insufficient ephemeral-storage".into(),
            want.ephemeral_storage,
            have.ephemeral_storage,
            used.ephemeral_storage,
        );
        for (name, amount) in &want.scalar {
            let of = |r: &Resources| r.scalar.get(name).copied().unwrap_or(0);
            // DynamicResources looks for devices where no device plugin gives any.
            if of(have) == 0 && self.backed.contains(&name.as_str()) {
                continue;
            }
            check(format!("Insufficient {name}").into(), *amount, of(have), of(used));
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Rejection { code: if hopeless { Code::Unresolvable } else { Code::Unschedulable }, reasons })
    }
}

impl PreScore for NodeResourcesFit {
    fn weight(&self) -> i64 {
        1
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        _snapshot: Snapshot<'a>,
        _feasible: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(LeastAllocated(&pod.non_zero_requests)))
    }
}

impl Score for LeastAllocated<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (have, used) = (&node.allocatable, &node.non_zero_requested);
        let pairs = [(have.milli_cpu, used.milli_cpu + self.0.milli_cpu), (have.memory, used.memory + self.0.memory)];
        let scores: Vec<i64> =
            pairs.into_iter().filter(|(have, _)| *have > 0).map(|(have, used)| left(have, used)).collect();
        if scores.is_empty() { 0 } else { scores.iter().sum::<i64>() / scores.len() as i64 }
    }
}

fn left(have: i64, used: i64) -> i64 {
    if used > have { 0 } else { ((i128::from(have - used) * i128::from(MAX_SCORE)) / i128::from(have)) as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn names_every_shortage_and_whether_it_is_final() {
        let status = json!({"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "1"}});
        let mut node = NodeInfo::new(Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "n"}, "status": status})).expect("node"),
        ));
        let pod = |requests| {
            let containers = json!([{"name": "c", "resources": {"requests": requests}}]);
            let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": containers}});
            PodInfo::new(Arc::new(serde_json::from_value(pod).expect("pod")))
        };
        let check = |node: &NodeInfo, requests, want: Option<(Code, &str)>| {
            let pod = pod(requests);
            let requests = Requests { amounts: &pod.requests, backed: vec!["example.com/device"] };
            let got = requests.filter(node).err().map(|r| (r.code, r.reasons.join(", ")));
            assert_eq!(got, want.map(|(c, r)| (c, r.to_owned())));
        };
        check(&node, json!({"cpu": "2"}), None);
        check(
            &node,
            json!({"cpu": "3", "memory": "2Gi"}),
            Some((Code::Unresolvable, "Insufficient cpu, Insufficient memory")),
        );
        check(&node, json!({"example.com/gpu": "1"}), Some((Code::Unresolvable, "Insufficient example.com/gpu")));
        check(&node, json!({"example.com/device": "1"}), None);
        node.add(Arc::new(pod(json!({"cpu": "1"}))));
        check(&node, json!({"cpu": "1500m"}), Some((Code::Unschedulable, "Too many pods, Insufficient cpu")));
        assert_eq!(
            LeastAllocated(&pod(json!({"cpu": "1", "memory": "512Mi"})).requests).score(&node),
            (0 + (1024 - 512 - 200) * 100 / 1024) / 2
        );
    }
}
