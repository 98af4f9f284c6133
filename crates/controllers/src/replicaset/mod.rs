//! ReplicaSet and ReplicationController: keep a number of pods that match a selector.

mod kind;
mod ranking;

use crate::context::{Context, synced};
use crate::ownership::{self, Claimant, claim, controlled_by, is_namespace_terminating};
use crate::{pod_control, pods, template};
use api::k8s::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use api::k8s::core::v1::Pod;
use informer::{Controller, Error, Event, Expectations, Informer, Key, Reconcile, Requeue, WorkQueue};
use jiff::Timestamp;
pub(crate) use kind::Replicated;
use kube::ResourceExt;
use kube::api::PostParams;
use std::sync::Arc;

/// Pods created or deleted in one reconcile at most.
const BURST: usize = 500;

struct ReplicaSets<K: 'static> {
    ctx: Context,
    sets: Informer<K>,
    pods: Informer<Pod>,
    expectations: Arc<Expectations<Key>>,
}

pub(crate) async fn run<K: Replicated>(ctx: Context) {
    let (sets, pods) = (ctx.informer::<K>(), ctx.informer::<Pod>());
    let (queue, expectations) = (WorkQueue::new(), Arc::new(Expectations::default()));
    ownership::index(&pods);
    ownership::index(&sets);
    watch_sets(&sets, &queue, &expectations);
    watch_pods(&sets, &pods, &queue, &expectations);
    synced!(sets, pods);
    let reconciler = ReplicaSets { ctx: ctx.clone(), sets, pods, expectations };
    Controller::new(K::CONTROLLER, queue, reconciler).run(ctx.shutdown()).await;
}

fn watch_sets<K: Replicated>(sets: &Informer<K>, queue: &WorkQueue<Key>, expectations: &Arc<Expectations<Key>>) {
    let (queue, expectations) = (queue.clone(), expectations.clone());
    sets.on_event(move |event| {
        let key = Key::of(event.object().as_ref());
        if matches!(event, Event::Deleted(_)) {
            expectations.forget(&key);
        }
        queue.add(key);
    });
}

fn watch_pods<K: Replicated>(
    sets: &Informer<K>,
    pods: &Informer<Pod>,
    queue: &WorkQueue<Key>,
    expectations: &Arc<Expectations<Key>>,
) {
    let (sets, queue, expectations) = (sets.clone(), queue.clone(), expectations.clone());
    pods.on_event(move |event| {
        let pod = event.object();
        if let Event::Updated { old, .. } = event
            && let Some(before) = owner_key::<K>(old)
            && Some(&before) != owner_key::<K>(pod).as_ref()
        {
            queue.add(before);
        }
        if let Some(key) = owner_key::<K>(pod) {
            match event {
                Event::Added(_) => expectations.creation_observed(&key),
                Event::Updated { old, new } if pods::is_deleting(new) && !pods::is_deleting(old) => {
                    expectations.deletion_observed(&key, &Key::of(pod.as_ref()));
                }
                Event::Updated { .. } => {}
                Event::Deleted(_) => expectations.deletion_observed(&key, &Key::of(pod.as_ref())),
            }
            queue.add(key);
        } else if ownership::controller_of(pod.as_ref()).is_none() && !matches!(event, Event::Deleted(_)) {
            matching(&sets, pod).for_each(|key| queue.add(key));
        }
    });
}

fn owner_key<K: Replicated>(pod: &Pod) -> Option<Key> {
    let owner = controlled_by::<K>(pod)?;
    Some(Key::new(pod.namespace().unwrap_or_default(), owner.name.clone()))
}

/// Sets that could adopt an orphan.
fn matching<K: Replicated>(sets: &Informer<K>, pod: &Pod) -> impl Iterator<Item = Key> {
    let labels = pod.metadata.labels.clone();
    let candidates = sets.list_in(pod.metadata.namespace.as_deref().unwrap_or(""));
    let selects =
        move |set: &Arc<K>| set.selector().is_some_and(|s| !s.0.is_empty() && s.matches_labels(labels.as_ref()));
    candidates.into_iter().filter(selects).map(|set| Key::of(set.as_ref()))
}

impl<K: Replicated> Reconcile for ReplicaSets<K> {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(set) = self.sets.get_key(key) else {
            self.expectations.forget(key);
            return Ok(Requeue::Done);
        };
        let Some(selector) = set.selector() else { return Ok(Requeue::Done) };
        let in_sync = self.expectations.satisfied(key);
        let claimant = Claimant { owner: set.as_ref(), selector: &selector, finalizers: &[] };
        let owned = claim(&self.ctx, &claimant, &self.pods).await?;
        let (active, rest): (Vec<_>, Vec<_>) = owned.into_iter().partition(|pod| pods::is_active(pod));
        let terminating = rest.iter().filter(|pod| pods::is_terminating(pod)).count();
        let failure = match in_sync && set.meta().deletion_timestamp.is_none() {
            true => self.manage(key, &set, &active).await.err(),
            false => None,
        };
        let status = status(set.as_ref(), &active, terminating, failure.as_ref());
        let updated = self.update_status(set.as_ref(), status).await?;
        if let Some(Failure { error, .. }) = failure {
            // In a namespace that goes away nothing is retried.
            return if is_namespace_terminating(&error) { Ok(Requeue::Done) } else { Err(error.into()) };
        }
        Ok(self.wait_for_availability(&updated, &active))
    }
}

/// What went wrong while pods were created or deleted.
struct Failure {
    reason: &'static str,
    error: kube::Error,
}

impl<K: Replicated> ReplicaSets<K> {
    async fn manage(&self, key: &Key, set: &Arc<K>, active: &[Arc<Pod>]) -> Result<(), Failure> {
        let wanted = usize::try_from(set.replicas()).unwrap_or(0);
        if active.len() < wanted {
            let count = (wanted - active.len()).min(BURST);
            return self.create(key, set, count).await.map_err(|error| Failure { reason: "FailedCreate", error });
        }
        let surplus = (active.len() - wanted).min(BURST);
        if surplus == 0 {
            return Ok(());
        }
        let victims = ranking::victims(active.to_vec(), &self.related(set), surplus, Timestamp::now());
        self.delete(key, set, victims).await.map_err(|error| Failure { reason: "FailedDelete", error })
    }

    async fn create(&self, key: &Key, set: &Arc<K>, count: usize) -> Result<(), kube::Error> {
        let Some(template) = set.template() else { return Ok(()) };
        let pod = template::pod(&template, &set.name_any(), ownership::reference_to(set.as_ref()));
        self.expectations.expect_creations(key, count);
        let (created, error) = pod_control::slow_start(count, |_| async {
            pod_control::create(&self.ctx, set.as_ref(), &pod).await.map(drop)
        })
        .await;
        // What was not created will not be seen.
        self.expectations.creations_skipped(key, count - created);
        error.map_or(Ok(()), Err)
    }

    async fn delete(&self, key: &Key, set: &Arc<K>, victims: Vec<Arc<Pod>>) -> Result<(), kube::Error> {
        self.expectations.expect_deletions(key, victims.iter().map(|pod| Key::of(pod.as_ref())));
        let deletions = victims.iter().map(|pod| async {
            let result = pod_control::delete(&self.ctx, set.as_ref(), pod).await;
            if result.is_err() {
                self.expectations.deletion_observed(key, &Key::of(pod.as_ref()));
            }
            result
        });
        futures::future::join_all(deletions).await.into_iter().collect()
    }

    /// Pods of every set with the same controller (a Deployment's old and new ones).
    fn related(&self, set: &Arc<K>) -> Vec<Arc<Pod>> {
        let siblings = match ownership::controller_of(set.as_ref()) {
            Some(owner) => ownership::owned(&self.sets, &owner.uid),
            None => vec![set.clone()],
        };
        siblings.iter().flat_map(|s| ownership::owned(&self.pods, s.meta().uid.as_deref().unwrap_or(""))).collect()
    }

    async fn update_status(&self, set: &K, status: ReplicaSetStatus) -> Result<K, Error> {
        let mut new = set.clone();
        new.set_status(status);
        if new == *set {
            return Ok(new);
        }
        let api = self.ctx.api::<K>(&set.namespace().unwrap_or_default());
        Ok(api.replace_status(&set.name_any(), &PostParams::default(), &new).await?)
    }

    /// Comes back when the next ready pod will have been ready for long enough.
    fn wait_for_availability(&self, set: &K, active: &[Arc<Pod>]) -> Requeue {
        let (min_ready, now) = (set.min_ready_seconds(), Timestamp::now());
        let waits = active.iter().filter(|p| !pods::is_available(p, min_ready, now));
        match waits.filter_map(|p| pods::available_in(p, min_ready, now)).min() {
            Some(wait) => Requeue::After(wait + std::time::Duration::from_millis(10)),
            None => Requeue::Done,
        }
    }
}

fn status<K: Replicated>(
    set: &K,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
) -> ReplicaSetStatus {
    let template_labels = set.template().and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let labelled = |pod: &Pod| template_labels.iter().all(|(k, v)| pods::label(pod, k) == Some(v));
    let (min_ready, now) = (set.min_ready_seconds(), Timestamp::now());
    let count = |test: &dyn Fn(&Pod) -> bool| active.iter().filter(|p| test(p)).count() as i32;
    let some = |n: i32| Some(n).filter(|n| *n != 0);
    let old = set.status();
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: some(count(&labelled)),
        ready_replicas: some(count(&pods::is_ready)),
        available_replicas: some(count(&|p| pods::is_available(p, min_ready, now))),
        terminating_replicas: K::CONTROLLER.eq("replicaset").then_some(terminating as i32),
        observed_generation: set.meta().generation,
        conditions: conditions(old.conditions.unwrap_or_default(), failure),
    }
}

fn conditions(mut list: Vec<ReplicaSetCondition>, failure: Option<&Failure>) -> Option<Vec<ReplicaSetCondition>> {
    let at = list.iter().position(|c| c.type_ == "ReplicaFailure");
    match (failure, at) {
        (Some(Failure { reason, error }), None) => list.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some((*reason).into()),
            message: Some(ownership::message(error)),
            last_transition_time: Some(pods::now()),
        }),
        (None, Some(at)) => drop(list.remove(at)),
        _ => {}
    }
    Some(list).filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::k8s::apps::v1::ReplicaSet;
    use serde_json::json;

    #[test]
    fn status_counts_pods() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "d", "generation": 3},
            "spec": {"replicas": 2, "selector": {}, "template": {"metadata": {"labels": {"a": "b"}}}},
        }))
        .expect("set");
        let pod = |ready: &str| -> Arc<Pod> {
            let pod = json!({"metadata": {"labels": {"a": "b"}}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
            Arc::new(serde_json::from_value(pod).expect("pod"))
        };
        let status = status(&set, &[pod("True"), pod("False")], 1, None);
        let got = serde_json::to_value(status).expect("json");
        let want = json!({"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 1, "availableReplicas": 1,
            "terminatingReplicas": 1, "observedGeneration": 3});
        assert_eq!(got, want);
    }
}
