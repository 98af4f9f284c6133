//! Disruption budgets: how many of their pods may be evicted now.

use crate::context::{Context, synced};
use crate::deployment::resolve;
use crate::ownership::controller_of;
use crate::pods;
use api::k8s::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use api::k8s::core::v1::{Pod, ReplicationController};
use api::k8s::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use api::machinery::apis::meta::v1::Condition;
use api::machinery::util::intstr::IntOrString;
use api::selector::LabelSelector;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::PostParams;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How long an evicted pod may stay before its eviction counts as failed.
const EVICTION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

struct Disruption {
    ctx: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let this = Disruption {
        budgets: ctx.informer(),
        pods: ctx.informer(),
        deployments: ctx.informer(),
        replica_sets: ctx.informer(),
        stateful_sets: ctx.informer(),
        controllers: ctx.informer(),
        ctx: ctx.clone(),
    };
    let enqueue = queue.clone();
    this.budgets.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let (enqueue, budgets) = (queue.clone(), this.budgets.clone());
    this.pods.on_event(move |event| {
        let same = |old: &Pod, new: &Pod| {
            old.metadata.labels == new.metadata.labels
                && pods::is_ready(old) == pods::is_ready(new)
                && pods::is_active(old) == pods::is_active(new)
                && old.metadata.annotations == new.metadata.annotations
        };
        if matches!(event, Event::Updated { old, new } if same(old, new)) {
            return;
        }
        let before = match event {
            Event::Updated { old, .. } => old.metadata.labels.as_ref(),
            _ => None,
        };
        let pod = event.object();
        for budget in budgets.list_in(pod.metadata.namespace.as_deref().unwrap_or("")) {
            let covers = |labels| selector(&budget).is_some_and(|s| s.matches_labels(labels));
            if covers(pod.metadata.labels.as_ref()) || (before.is_some() && covers(before)) {
                enqueue.add(Key::of(budget.as_ref()));
            }
        }
    });
    synced!(this.budgets, this.pods, this.deployments, this.replica_sets, this.stateful_sets, this.controllers);
    Controller::new("disruption", queue, this).workers(2).run(ctx.shutdown()).await;
}

fn selector(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    LabelSelector::from_api(budget.spec.as_ref().and_then(|s| s.selector.as_ref()))
}

impl Reconcile for Disruption {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(budget) = self.budgets.get_key(key) else { return Ok(Requeue::Done) };
        let covered = selector(&budget);
        let mut pods = self.pods.list_in(&key.namespace);
        pods.retain(|p| {
            covered.as_ref().is_some_and(|s| s.matches_labels(p.metadata.labels.as_ref())) && !pods::is_terminal(p)
        });
        if pods.is_empty() {
            self.ctx.normal(budget.as_ref(), "NoPods", "No matching pods found");
        }
        let (status, wait) = match self.expected(&budget, &pods) {
            Ok((expected, desired)) => status(&budget, &pods, expected, desired, Timestamp::now()),
            Err(why) => {
                self.ctx.warning(
                    budget.as_ref(),
                    "CalculateExpectedPodCountFailed",
                    format!("Failed to calculate the number of expected pods: {why}"),
                );
                (failed(&budget, &why), None)
            }
        };
        if budget.status.as_ref() != Some(&status) {
            let wanted = PodDisruptionBudget { status: Some(status), ..PodDisruptionBudget::clone(&budget) };
            self.ctx
                .api::<PodDisruptionBudget>(&key.namespace)
                .replace_status(&key.name, &PostParams::default(), &wanted)
                .await?;
        }
        Ok(wait.map_or(Requeue::Done, Requeue::After))
    }
}

impl Disruption {
    /// How many pods there should be, and how many must be healthy.
    fn expected(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<(i32, i32), String> {
        let spec = budget.spec.clone().unwrap_or_default();
        let count = pods.len() as i32;
        match (&spec.max_unavailable, &spec.min_available) {
            (Some(max), _) => {
                let expected = self.scale(pods)?;
                Ok((expected, (expected - resolve(Some(max), expected, true)).max(0)))
            }
            (None, Some(min @ IntOrString::String(_))) => {
                let expected = self.scale(pods)?;
                Ok((expected, resolve(Some(min), expected, true)))
            }
            (None, Some(IntOrString::Int(min))) => Ok((count, *min)),
            (None, None) => Ok((count, 0)),
        }
    }

    /// The sum of the sizes of the pods' controllers.
    fn scale(&self, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let (mut seen, mut sum) = (HashSet::new(), 0);
        for pod in pods {
            let Some(owner) = controller_of(pod.as_ref()) else { continue };
            let namespace = pod.namespace().unwrap_or_default();
            let (uid, size) = match owner.kind.as_str() {
                "ReplicaSet" => self.replica_set(&namespace, &owner.name),
                "StatefulSet" => self
                    .stateful_sets
                    .get(&namespace, &owner.name)
                    .map(|s| (s.metadata.uid.clone(), s.spec.as_ref().and_then(|s| s.replicas))),
                "ReplicationController" => self
                    .controllers
                    .get(&namespace, &owner.name)
                    .map(|s| (s.metadata.uid.clone(), s.spec.as_ref().and_then(|s| s.replicas))),
                kind => return Err(format!("{kind}.{} does not implement the scale subresource", owner.api_version)),
            }
            .ok_or_else(|| format!("found no controller {}/{} of pod {}", owner.kind, owner.name, pod.name_any()))?;
            if seen.insert(uid) {
                sum += size.unwrap_or(1);
            }
        }
        Ok(sum)
    }

    /// A ReplicaSet speaks for its Deployment, where it has one.
    fn replica_set(&self, namespace: &str, name: &str) -> Option<(Option<String>, Option<i32>)> {
        let set = self.replica_sets.get(namespace, name)?;
        let deployment = controller_of(set.as_ref())
            .filter(|o| o.kind == "Deployment")
            .and_then(|o| self.deployments.get(namespace, &o.name));
        Some(match deployment {
            Some(d) => (d.metadata.uid.clone(), d.spec.as_ref().and_then(|s| s.replicas)),
            None => (set.metadata.uid.clone(), set.spec.as_ref().and_then(|s| s.replicas)),
        })
    }
}

fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: i32,
    desired: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let old = budget.status.clone().unwrap_or_default();
    let mut disrupted = old.disrupted_pods.clone().unwrap_or_default();
    // Evictions that are done, or that came to nothing.
    disrupted.retain(|name, since| {
        let waiting = pods.iter().any(|p| pods::name(p) == name && !pods::is_deleting(p));
        waiting && since.0.checked_add(EVICTION_TIMEOUT).is_ok_and(|due| due > now)
    });
    let next = disrupted.values().filter_map(|since| since.0.checked_add(EVICTION_TIMEOUT).ok()).min();
    let healthy = |p: &&Arc<Pod>| pods::is_ready(p) && !pods::is_deleting(p) && !disrupted.contains_key(pods::name(p));
    let current = pods.iter().filter(healthy).count() as i32;
    let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
    let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let status = PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        disruptions_allowed: Some(allowed),
        current_healthy: Some(current),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        conditions: Some(vec![condition(budget, &old, value, reason, "")]),
    };
    (status, next.map(|due| pods::until(due, now) + Duration::from_millis(10)))
}

fn failed(budget: &PodDisruptionBudget, why: &str) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let conditions = Some(vec![condition(budget, &old, "False", "SyncFailed", why)]);
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        observed_generation: budget.metadata.generation,
        conditions,
        ..old
    }
}

fn condition(
    budget: &PodDisruptionBudget,
    old: &PodDisruptionBudgetStatus,
    status: &str,
    reason: &str,
    message: &str,
) -> Condition {
    let known = old.conditions.iter().flatten().find(|c| c.type_ == "DisruptionAllowed");
    let since = known.filter(|c| c.status == status).map_or_else(pods::now, |c| c.last_transition_time.clone());
    Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    }
}
