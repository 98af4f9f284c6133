//! Affinity and anti-affinity between pods, by topology.

use crate::Handle;
use crate::framework::{ClusterEvent, Filter, MAX_SCORE, Plugin, PreFilter, PreScore, Rejection, Score, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::selectors::AffinityTerm;
use api::k8s::core::v1::Pod;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Weight of an existing pod's required affinity for the pod that is scored.
const HARD_WEIGHT: i64 = 1;

pub(crate) struct InterPodAffinity;

/// A topology key and its value on some node.
type Pair = (String, String);

struct Required<'a> {
    pod: &'a PodInfo,
    /// Where existing pods' anti-affinity forbids this pod.
    forbidden: HashSet<Pair>,
    /// Per affinity term: where pods that meet all terms are.
    affine: Vec<HashSet<String>>,
    /// Per anti-affinity term: where matching pods are.
    averse: Vec<HashSet<String>>,
    handle: &'a Handle,
}

struct Preferred {
    weights: HashMap<Pair, i64>,
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.pre_filter.push(self.clone());
        profile.pre_score.push(self);
    }

    fn hint(&self, _pod: &Pod, event: &ClusterEvent) -> bool {
        use ClusterEvent::{AssignedPodAdded, AssignedPodDeleted, PodUpdated};
        matches!(event, AssignedPodAdded | AssignedPodDeleted | PodUpdated) || event.brings_labels()
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
    ) -> Result<Option<Box<dyn Filter + 'a>>, Rejection> {
        let Snapshot { nodes, handle, .. } = snapshot;
        let mut required = Required {
            pod,
            forbidden: HashSet::new(),
            affine: vec![HashSet::new(); pod.required_affinity.len()],
            averse: vec![HashSet::new(); pod.required_anti_affinity.len()],
            handle,
        };
        let wants = !pod.required_affinity.is_empty() || !pod.required_anti_affinity.is_empty();
        for node in nodes {
            for other in node.pods.iter() {
                required.note_existing(node, other);
                if wants {
                    required.note_own(node, other);
                }
            }
        }
        Ok(if wants || !required.forbidden.is_empty() { Some(Box::new(required)) } else { None })
    }
}

impl Required<'_> {
    fn note_existing(&mut self, node: &NodeInfo, other: &PodInfo) {
        for term in &other.required_anti_affinity {
            if let Some(value) = node.label(&term.topology_key)
                && term.matches(&self.pod.pod, self.handle)
            {
                self.forbidden.insert((term.topology_key.clone(), value.to_owned()));
            }
        }
    }

    fn note_own(&mut self, node: &NodeInfo, other: &PodInfo) {
        let (pod, handle) = (self.pod, self.handle);
        let note = |term: &AffinityTerm, set: &mut HashSet<String>| {
            if let Some(value) = node.label(&term.topology_key) {
                set.insert(value.to_owned());
            }
        };
        if !pod.required_affinity.is_empty() && pod.required_affinity.iter().all(|t| t.matches(&other.pod, handle)) {
            pod.required_affinity.iter().zip(&mut self.affine).for_each(|(term, set)| note(term, set));
        }
        let averse = pod.required_anti_affinity.iter().zip(&mut self.averse);
        averse.filter(|(term, _)| term.matches(&other.pod, handle)).for_each(|(term, set)| note(term, set));
    }

    /// Whether every affinity term finds company here, or the pod is the first of a group it belongs to.
    fn has_company(&self, node: &NodeInfo) -> bool {
        let terms = || self.pod.required_affinity.iter().zip(&self.affine);
        if !terms().all(|(term, _)| node.label(&term.topology_key).is_some()) {
            return false;
        }
        if terms().all(|(term, set)| node.label(&term.topology_key).is_some_and(|value| set.contains(value))) {
            return true;
        }
        let nobody = self.affine.iter().all(HashSet::is_empty);
        nobody && self.pod.required_affinity.iter().all(|t| t.matches(&self.pod.pod, self.handle))
    }
}

impl Filter for Required<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.has_company(node) {
            return Err(Rejection::unresolvable("node(s) didn't match pod affinity rules"));
        }
        let mut averse = self.pod.required_anti_affinity.iter().zip(&self.averse);
        if averse.any(|(term, set)| node.label(&term.topology_key).is_some_and(|value| set.contains(value))) {
            return Err(Rejection::unschedulable("node(s) didn't match pod anti-affinity rules"));
        }
        let labels = node.node.metadata.labels.iter().flatten();
        let mut here = labels.filter(|_| !self.forbidden.is_empty());
        if here.any(|(key, value)| self.forbidden.contains(&(key.clone(), value.clone()))) {
            return Err(Rejection::unschedulable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}

impl PreScore for InterPodAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        snapshot: Snapshot<'a>,
        _feasible: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let mut weights: HashMap<Pair, i64> = HashMap::new();
        for node in snapshot.nodes {
            let mut note = |term: &AffinityTerm, weight: i64, subject: &Pod| {
                if let Some(value) = node.label(&term.topology_key)
                    && term.matches(subject, snapshot.handle)
                {
                    *weights.entry((term.topology_key.clone(), value.to_owned())).or_default() += weight;
                }
            };
            for other in &node.pods {
                pod.preferred_affinity.iter().for_each(|t| note(t, t.weight, &other.pod));
                pod.preferred_anti_affinity.iter().for_each(|t| note(t, -t.weight, &other.pod));
                other.required_affinity.iter().for_each(|t| note(t, HARD_WEIGHT, &pod.pod));
                other.preferred_affinity.iter().for_each(|t| note(t, t.weight, &pod.pod));
                other.preferred_anti_affinity.iter().for_each(|t| note(t, -t.weight, &pod.pod));
            }
        }
        if weights.is_empty() { None } else { Some(Box::new(Preferred { weights })) }
    }
}

impl Score for Preferred {
    fn score(&self, node: &NodeInfo) -> i64 {
        let here = |((key, value), weight): (&Pair, &i64)| (node.label(key) == Some(value)).then_some(*weight);
        self.weights.iter().filter_map(here).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (min, max) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = if max > min { MAX_SCORE * (*score - min) / (max - min) } else { 0 };
        }
    }
}
