//! Makes room for a pod by deleting pods of lower priority from one node.

use crate::framework::{Code, Failure, Nomination, Plugin, PostFilter, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, nominated_node, priority};
use crate::profile::Profile;
use crate::schedule::{fit_error, histogram};
use api::k8s::core::v1::Pod;
use api::k8s::policy::v1::PodDisruptionBudget;
use api::selector::LabelSelector;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// Candidates that are weighed at most.
const MAX_CANDIDATES: usize = 100;

pub(crate) struct DefaultPreemption;

/// A node and what would have to go from it.
struct Candidate {
    node: String,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }

    fn extend(self: Arc<Self>, profile: &mut Profile) {
        profile.post_filter.push(self);
    }
}

impl PostFilter for DefaultPreemption {
    fn post_filter(
        &self,
        pod: &PodInfo,
        snapshot: Snapshot<'_>,
        profile: &Profile,
        failure: &Failure,
    ) -> Result<Nomination, String> {
        if let Some(why) = ineligible(pod, snapshot) {
            return Err(format!("preemption: {why}"));
        }
        let mut candidates = Vec::new();
        let mut verdicts = Vec::with_capacity(snapshot.nodes.len());
        for (at, rejection) in failure.rejections.iter().enumerate() {
            if rejection.code != Code::Unschedulable {
                verdicts.push(Rejection::unresolvable("Preemption is not helpful for scheduling"));
                continue;
            }
            match candidate(pod, snapshot, profile, at) {
                Some(found) => candidates.push(found),
                None => verdicts.push(Rejection::unresolvable("No preemption victims found for incoming pod")),
            }
            if candidates.len() >= MAX_CANDIDATES {
                break;
            }
        }
        let best = candidates.into_iter().min_by_key(rank);
        let Some(best) = best else {
            return Err(format!("preemption: {}", fit_error(snapshot.nodes.len(), &histogram(&verdicts), "")));
        };
        Ok(Nomination { node: best.node, victims: best.victims.iter().map(|p| p.pod.clone()).collect() })
    }
}

fn ineligible(pod: &PodInfo, snapshot: Snapshot<'_>) -> Option<&'static str> {
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = snapshot.nodes.iter().find(|n| n.name() == nominated_node(&pod.pod))?;
    let leaving = |p: &&Arc<PodInfo>| {
        let conditions = p.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let by_us = |c: &api::k8s::core::v1::PodCondition| {
            c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("PreemptionByScheduler")
        };
        p.pod.metadata.deletion_timestamp.is_some()
            && p.priority() < pod.priority()
            && conditions.into_iter().any(by_us)
    };
    nominated.pods.iter().any(|p| leaving(&p)).then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Fewest broken budgets, then the least important, then fewest victims, then the youngest.
fn rank(candidate: &Candidate) -> (usize, i32, i64, usize, Reverse<Option<jiff::Timestamp>>) {
    let highest = candidate.victims.iter().map(|p| p.priority()).max().unwrap_or(i32::MIN);
    let sum = candidate.victims.iter().map(|p| i64::from(p.priority()) + i64::from(i32::MAX) + 1).sum();
    let top = candidate.victims.iter().filter(|p| p.priority() == highest);
    let earliest = top.filter_map(|p| started(&p.pod)).min();
    (candidate.violations, highest, sum, candidate.victims.len(), Reverse(earliest))
}

fn started(pod: &Pod) -> Option<jiff::Timestamp> {
    pod.status.as_ref()?.start_time.as_ref().map(|t| t.0)
}

/// Whether the pod fits a node whose pods are `node`'s, everything else being as it is.
fn fits(pod: &PodInfo, snapshot: Snapshot<'_>, profile: &Profile, at: usize, node: &Arc<NodeInfo>) -> bool {
    let mut nodes = snapshot.nodes.to_vec();
    nodes[at] = node.clone();
    let changed = Snapshot { nodes: &nodes, ..snapshot };
    profile.filters(pod, changed).is_ok_and(|filters| filters.run(node).is_ok())
}

/// The smallest set of victims on one node: all lower pods go, then as many as possible come back.
fn candidate(pod: &PodInfo, snapshot: Snapshot<'_>, profile: &Profile, at: usize) -> Option<Candidate> {
    let mut node = Arc::clone(&snapshot.nodes[at]);
    let mut lower: Vec<Arc<PodInfo>> = node.pods.iter().filter(|p| p.priority() < pod.priority()).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    for victim in &lower {
        Arc::make_mut(&mut node).remove(victim.uid());
    }
    if !fits(pod, snapshot, profile, at, &node) {
        return None;
    }
    // The most important come back first; those that a budget protects before all others.
    let budgets = snapshot.handle.budgets.list();
    let protected = over_budget(&lower, &budgets);
    let broken: Vec<String> =
        lower.iter().zip(&protected).filter(|(_, p)| **p).map(|(v, _)| v.uid().to_owned()).collect();
    lower.sort_by_key(|v| (!broken.iter().any(|uid| uid == v.uid()), Reverse(priority(&v.pod)), started(&v.pod)));
    let (mut victims, mut violations) = (Vec::new(), 0);
    for victim in lower {
        let mut fuller = node.clone();
        Arc::make_mut(&mut fuller).add(victim.clone());
        if fits(pod, snapshot, profile, at, &fuller) {
            node = fuller;
        } else {
            violations += usize::from(broken.iter().any(|uid| uid == victim.uid()));
            victims.push(victim);
        }
    }
    Some(Candidate { node: node.name().to_owned(), victims, violations })
}

/// Which of the pods cannot go without breaking a disruption budget.
fn over_budget(pods: &[Arc<PodInfo>], budgets: &[Arc<PodDisruptionBudget>]) -> Vec<bool> {
    let mut left: HashMap<usize, i32> = HashMap::new();
    let mut breaks = |pod: &Pod| {
        let mut broken = false;
        for (at, budget) in budgets.iter().enumerate() {
            let selector = LabelSelector::from_api(budget.spec.as_ref().and_then(|s| s.selector.as_ref()));
            let covers = budget.metadata.namespace == pod.metadata.namespace
                && selector.is_some_and(|s| !s.0.is_empty() && s.matches_labels(pod.metadata.labels.as_ref()));
            let status = budget.status.as_ref();
            let done = status
                .and_then(|s| s.disrupted_pods.as_ref())
                .is_some_and(|d| pod.metadata.name.as_ref().is_some_and(|n| d.contains_key(n)));
            if covers && !done {
                let allowed = left.entry(at).or_insert_with(|| status.and_then(|s| s.disruptions_allowed).unwrap_or(0));
                *allowed -= 1;
                broken |= *allowed < 0;
            }
        }
        broken
    };
    pods.iter().map(|p| breaks(&p.pod)).collect()
}
