//! Spreads pods over topology domains: constraints that reject, and constraints that are preferred.
//!
//! Pods without constraints of their own get the cluster's defaults: spread over hosts (skew 3) and zones
//! (skew 5) with the pods of their service or controller, where that is possible.

use crate::Handle;
use crate::framework::{ClusterEvent, Filter, MAX_SCORE, Plugin, PreFilter, PreScore, Rejection, Score, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::selectors::{any_tolerates, pod_accepts_node};
use api::k8s::core::v1::{Pod, TopologySpreadConstraint};
use api::selector::{LabelSelector, Requirement};
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::Arc;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

pub(crate) struct PodTopologySpread;

struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: i64,
    selector: LabelSelector,
    honours_affinity: bool,
    honours_taints: bool,
}

impl Constraint {
    fn new(pod: &Pod, from: &TopologySpreadConstraint) -> Self {
        let mut selector = LabelSelector::from_api(from.label_selector.as_ref());
        let labels = pod.metadata.labels.as_ref();
        if let Some(selector) = &mut selector {
            let keys = from.match_label_keys.iter().flatten();
            let values = keys.filter_map(|key| Some(Requirement::In(key.clone(), vec![labels?.get(key)?.clone()])));
            selector.0.extend(values);
        }
        Self {
            key: from.topology_key.clone(),
            max_skew: i64::from(from.max_skew),
            min_domains: i64::from(from.min_domains.unwrap_or(1)),
            // Without a selector nothing is counted.
            selector: selector.unwrap_or_else(|| LabelSelector(vec![Requirement::In(String::new(), Vec::new())])),
            honours_affinity: from.node_affinity_policy.as_deref() != Some("Ignore"),
            honours_taints: from.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// Whether a node takes part in the count.
    fn counts(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let taints = || node.node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let tolerated = || {
            taints()
                .filter(|t| t.effect != "PreferNoSchedule")
                .all(|t| any_tolerates(pod.spec().tolerations.as_ref(), t))
        };
        (!self.honours_affinity || pod_accepts_node(pod.spec(), &node.node)) && (!self.honours_taints || tolerated())
    }

    fn matching(&self, pod: &Pod, node: &NodeInfo) -> i64 {
        let same = |p: &Pod| p.metadata.namespace == pod.metadata.namespace && p.metadata.deletion_timestamp.is_none();
        node.pods
            .iter()
            .filter(|p| same(&p.pod) && self.selector.matches_labels(p.pod.metadata.labels.as_ref()))
            .count() as i64
    }

    fn matches_self(&self, pod: &Pod) -> bool {
        self.selector.matches_labels(pod.metadata.labels.as_ref())
    }
}

fn constraints(pod: &Pod, action: &str) -> Vec<Constraint> {
    let list = pod.spec.iter().flat_map(|s| s.topology_spread_constraints.iter().flatten());
    list.filter(|c| c.when_unsatisfiable == action).map(|c| Constraint::new(pod, c)).collect()
}

struct Hard<'a> {
    pod: &'a PodInfo,
    /// Each constraint with the pods per domain.
    constraints: Vec<(Constraint, HashMap<String, i64>)>,
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self.clone());
        profile.pre_score.push(self);
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        use ClusterEvent::{AssignedPodAdded, AssignedPodDeleted, NodeDeleted, PodUpdated};
        matches!(event, AssignedPodAdded | AssignedPodDeleted | NodeDeleted | PodUpdated)
            || event.brings_labels()
            || event.brings(|node| node.spec.as_ref()?.taints.as_ref())
    }
}

impl PreFilter for PodTopologySpread {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let constraints = constraints(&pod.pod, "DoNotSchedule");
        if constraints.is_empty() {
            return Ok(None);
        }
        let has_all = |node: &NodeInfo| constraints.iter().all(|c| node.label(&c.key).is_some());
        let nodes: Vec<&NodeInfo> = snapshot.nodes.iter().map(AsRef::as_ref).filter(|n| has_all(n)).collect();
        let count = |c: Constraint| {
            let mut domains: HashMap<String, i64> = HashMap::new();
            for node in nodes.iter().filter(|n| c.counts(pod, n)) {
                *domains.entry(node.label(&c.key).unwrap_or("").to_owned()).or_default() += c.matching(&pod.pod, node);
            }
            (c, domains)
        };
        let constraints = constraints.into_iter();
        let constraints = constraints.map(count).collect();
        Ok(Some(Box::new(Hard { pod, constraints })))
    }
}

impl Filter for Hard<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for (constraint, domains) in &self.constraints {
            let Some(value) = node.label(&constraint.key) else {
                return Err(Rejection::unresolvable(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let few = (domains.len() as i64) < constraint.min_domains;
            let min = if few { 0 } else { domains.values().copied().min().unwrap_or(0) };
            let here = domains.get(value).copied().unwrap_or(0) + i64::from(constraint.matches_self(&self.pod.pod));
            if here - min > constraint.max_skew {
                return Err(Rejection::unschedulable("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }
}

struct Soft<'a> {
    pod: &'a PodInfo,
    /// Each constraint with pods per domain and the weight of its topology.
    constraints: Vec<(Constraint, HashMap<String, i64>, f64)>,
    require_all: bool,
}

impl Soft<'_> {
    fn ignores(&self, node: &NodeInfo) -> bool {
        self.require_all && self.constraints.iter().any(|(c, ..)| node.label(&c.key).is_none())
    }
}

impl PreScore for PodTopologySpread {
    fn weight(&self) -> i64 {
        2
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
        feasible: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let own = pod.spec().topology_spread_constraints.as_ref().is_some_and(|c| !c.is_empty());
        let wanted = if own { constraints(&pod.pod, "ScheduleAnyway") } else { defaults(&pod.pod, snapshot.handle) };
        if wanted.is_empty() {
            return None;
        }
        let has_all = |node: &NodeInfo| !own || wanted.iter().all(|c| node.label(&c.key).is_some());
        let complete: Vec<&NodeInfo> = snapshot.nodes.iter().map(AsRef::as_ref).filter(|n| has_all(n)).collect();
        let candidates: Vec<&&NodeInfo> = feasible.iter().filter(|n| has_all(n)).collect();
        let count = |c: Constraint| {
            // Only domains of feasible nodes can be chosen.
            let mut domains: HashMap<String, i64> =
                candidates.iter().filter_map(|n| Some((n.label(&c.key)?.to_owned(), 0))).collect();
            let size = if c.key == HOSTNAME { candidates.len() } else { domains.len() };
            for node in complete.iter().filter(|n| c.counts(pod, n)) {
                if let Some(sum) = node.label(&c.key).and_then(|value| domains.get_mut(value)) {
                    *sum += c.matching(&pod.pod, node);
                }
            }
            (c, domains, ((size + 2) as f64).ln())
        };
        let constraints = wanted.into_iter();
        let constraints = constraints.map(count).collect();
        Some(Box::new(Soft { pod, constraints, require_all: own }))
    }
}

impl Score for Soft<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        if self.ignores(node) {
            return i64::MIN;
        }
        let one = |(c, domains, weight): &(Constraint, HashMap<String, i64>, f64)| {
            let value = node.label(&c.key)?;
            let count = if c.key == HOSTNAME {
                c.matching(&self.pod.pod, node)
            } else {
                domains.get(value).copied().unwrap_or(0)
            };
            Some(count as f64 * weight + (c.max_skew - 1) as f64)
        };
        self.constraints.iter().filter_map(one).sum::<f64>().round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        let valid = || scores.iter().copied().filter(|s| *s != i64::MIN);
        let (min, max) = (valid().min().unwrap_or(0), valid().max().unwrap_or(0));
        for score in scores.iter_mut() {
            *score = match *score {
                i64::MIN => 0,
                _ if max == 0 => MAX_SCORE,
                score => MAX_SCORE * (max + min - score) / max,
            };
        }
    }
}

/// The cluster's default constraints with the selector of the pod's services and controller.
fn defaults(pod: &Pod, handle: &Handle) -> Vec<Constraint> {
    let Some(selector) = default_selector(pod, handle) else { return Vec::new() };
    let constraint = |key: &str, max_skew| Constraint {
        key: key.into(),
        max_skew,
        min_domains: 1,
        selector: selector.clone(),
        honours_affinity: true,
        honours_taints: false,
    };
    vec![constraint(HOSTNAME, 3), constraint(ZONE, 5)]
}

fn default_selector(pod: &Pod, handle: &Handle) -> Option<LabelSelector> {
    let (namespace, labels) = (pod.namespace().unwrap_or_default(), pod.metadata.labels.as_ref());
    let mut out = Vec::new();
    let equals = |(k, v): (&String, &String)| Requirement::In(k.clone(), vec![v.clone()]);
    for service in handle.services.list_in(&namespace) {
        let selector =
            service.spec.as_ref().and_then(|s| s.selector.clone()).filter(|s| !s.is_empty()).unwrap_or_default();
        let matches = |(k, v): (&String, &String)| labels.and_then(|l| l.get(k)) == Some(v);
        if !selector.is_empty() && selector.iter().all(matches) {
            out.extend(selector.iter().map(equals));
        }
    }
    let owner = pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    if let Some(owner) = owner {
        let selector = match owner.kind.as_str() {
            "ReplicaSet" => handle
                .replica_sets
                .get(&namespace, &owner.name)
                .and_then(|s| LabelSelector::from_api(s.spec.as_ref().map(|s| &s.selector))),
            "StatefulSet" => handle
                .stateful_sets
                .get(&namespace, &owner.name)
                .and_then(|s| LabelSelector::from_api(s.spec.as_ref().map(|s| &s.selector))),
            "ReplicationController" => {
                let labels =
                    handle.controllers.get(&namespace, &owner.name).and_then(|c| c.spec.as_ref()?.selector.clone());
                labels.map(|l| LabelSelector(l.iter().map(equals).collect()))
            }
            _ => None,
        };
        out.extend(selector.unwrap_or_default().0);
    }
    if out.is_empty() { None } else { Some(LabelSelector(out)) }
}
